"""The real application on a real port inside the test process, with an embedder that needs no weights."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn
from fastapi import FastAPI

from service.api.tls import Certificate
from service.app import create_app
from service.cli.serving import server_config
from service.settings import Settings
from tests.api.credentials import header
from tests.fake_embedder import PACK_ID, fake_packs

_START_S = 30


def fake_settings(folder: Path, **values: object) -> Settings:
    """Return settings whose only pack is the fake one, and which ask nobody who they are."""
    return Settings.model_validate({"var_dir": folder, "pack": PACK_ID, "auth": "off", **values})


def fake_app(settings: Settings) -> FastAPI:
    return create_app(settings, packs=fake_packs())


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Serve `app` on a free port; the value is its address. Leaving waits until it has shut down."""
    with _running(_config(app)) as port:
        yield f"http://127.0.0.1:{port}"


def _config(app: FastAPI) -> uvicorn.Config:
    """As plain as can be, but for what uvicorn would do about proxies, which is the application's to do."""
    return uvicorn.Config(app, log_config=None, access_log=False, ws="none", lifespan="on", proxy_headers=False)


@contextmanager
def served(settings: Settings, certificate: Certificate | None = None) -> Iterator[int]:
    """Serve the fake application as `biodedup serve` does, with its limits of connections; the value is its port."""
    with serving_app(fake_app(settings), settings, certificate) as port:
        yield port


@contextmanager
def serving_app(app: FastAPI, settings: Settings, certificate: Certificate | None = None) -> Iterator[int]:
    """The same with an application that was made with these settings."""
    with _running(server_config(app, settings, certificate)) as port:
        yield port


@contextmanager
def _running(config: uvicorn.Config) -> Iterator[int]:
    config.port = 0
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="server")
    thread.start()
    try:
        deadline = time.monotonic() + _START_S
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.started, "the server did not start"
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def wait_until_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + _START_S
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline, "the service did not become ready"
        time.sleep(0.01)


@contextmanager
def asking(folder: Path, **settings: object) -> Iterator[tuple[httpx.Client, dict[str, str]]]:
    """A service that asks who calls: a client of it, and the header of its admin."""
    keys: list[str] = []
    app = create_app(fake_settings(folder / "var", auth="on", **settings), packs=fake_packs(), on_first_key=keys.append)
    with running(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        wait_until_ready(client)
        yield client, header(keys[0])
