"""What is attacked: the application as it is served, that asks who calls, with two galleries that must not mix."""

import io
import itertools
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from service.access import Role
from service.api.context import Service
from service.logs import JsonFormatter
from tests.api.credentials import AUDIENCE, header, in_gallery, new_rsa_key
from tests.api.live import fake_app, fake_settings, serving_app, wait_until_ready
from tests.api.own_provider import Pages, jwk, serving

HERE, ELSEWHERE, NOWHERE = "camp", "town", "no-such-gallery"
MARK = "zq7elsewhere"
"""Stands in every text of the other gallery, and nowhere else."""

PROVIDER_KEY = new_rsa_key()
MAX_REQUEST_BYTES = 256 * 1024
FAILED_SIGN_INS = 40

_SWEEP_S = 60
_names = itertools.count(1)


@dataclass
class Target:
    """A running service and what an attacker may have of it."""

    port: int
    app: FastAPI
    service: Service
    http: httpx.Client
    provider: Pages
    log: io.StringIO = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def key(self, *roles: Role, galleries: tuple[str, ...] = ()) -> str:
        """Return the key of a new client with these roles (none: all), in these galleries (none: everywhere)."""
        grants = [in_gallery(role, *galleries) for role in roles or Role]
        return self.service.clients.add(f"attacker-{next(_names)}", grants).key

    def ask(self, method: str, path: str, credential: str | None, **request: Any) -> httpx.Response:
        headers = dict(request.pop("headers", {}))
        if credential is not None:
            headers |= header(credential)
        return self.http.request(method, path, headers=headers, **request)


@contextmanager
def target(folder: Path, **settings: Any) -> Iterator[Target]:
    """Serve the application as `biodedup serve` does, with people in two galleries."""
    with serving(Pages([jwk(PROVIDER_KEY)])) as provider, _log() as log:
        asked = fake_settings(
            folder / "var",
            **{
                "auth": "on",
                "oidc_issuer": provider.issuer,
                "oidc_audience": AUDIENCE,
                "keep_samples": True,
                "max_request_bytes": MAX_REQUEST_BYTES,
                "max_sample_bytes": MAX_REQUEST_BYTES,
                # the attacks are many requests from one address; they ask for this limit where it is meant
                "limit_failed_sign_ins_per_minute": 0,
                **settings,
            },
        )
        app = fake_app(asked)
        with serving_app(app, asked) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            wait_until_ready(http)
            found = Target(port, app, app.state.startup.service(), http, provider, log)
            _populate(found)
            yield found


@contextmanager
def _log() -> Iterator[io.StringIO]:
    """Everything that the service logs while the block runs, as it writes it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root, own = logging.getLogger(), logging.getLogger("service")
    level = own.level
    root.addHandler(handler)
    own.setLevel(logging.DEBUG)
    try:
        yield stream
    finally:
        own.setLevel(level)
        root.removeHandler(handler)


def _populate(found: Target) -> None:
    """Two people in each gallery, of whom one came twice, which makes a case; and a sweep."""
    key = found.key()
    for gallery_id, mark in ((HERE, "here"), (ELSEWHERE, MARK)):
        path = f"/v1/galleries/{gallery_id}"
        found.ask("POST", "/v1/galleries", key, json={"gallery_id": gallery_id}).raise_for_status()
        for number, person in enumerate(("anna/1", "ben/1", "ben/2")):
            texts = {"site": f"site-{mark}", "operator_ref": f"op-{mark}", "labels": f'{{"label-{mark}": "{mark}"}}'}
            ids = {"subject_id": f"S-{mark}-{number}", "encounter_id": f"E-{mark}-{number}"}
            sample = {"sample": f"{mark} {person}".encode()}
            found.ask("POST", f"{path}/enrolments", key, files=sample, data=texts | ids).raise_for_status()
        job = found.ask("POST", f"{path}/sweeps", key, json={}).raise_for_status().json()["job_id"]
        deadline = time.monotonic() + _SWEEP_S
        while found.ask("GET", f"{path}/sweeps/{job}", key).json()["state"] != "done":
            assert time.monotonic() < deadline, "the sweep did not end"
            time.sleep(0.05)
