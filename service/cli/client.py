"""Talks to a running service over HTTP and turns its error bodies into `CommandFailed`."""

import os
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self
from urllib.parse import quote

import httpx
import typer

from service.cli.failures import CommandFailed

DEFAULT_URL = "http://127.0.0.1:8000"
NO_SERVICE = "no_service"
CA_FILE = "BIODEDUP_CA_FILE"

_KEY_ADVICE = "Put the key alone into BIODEDUP_API_KEY, or into a file that `biodedup --key-file FILE` names."

_TRIES = 3  # of an erasure whose answer does not come
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)  # seconds; a sample may wait in the service's queue before it is looked at

UrlOption = Annotated[
    str, typer.Option("--url", envvar="BIODEDUP_URL", help="Address of the running service.", show_default=True)
]
GalleryOption = Annotated[str, typer.Option("--gallery", "-g", help="Gallery to use.", show_default=True)]
GalleryArgument = Annotated[str, typer.Argument(metavar="GALLERY", help="Name of the gallery.", show_default=False)]
SampleFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="A photograph.", exists=True, dir_okay=False, readable=True, show_default=False
    ),
]

key_file: ContextVar[Path | None] = ContextVar("key_file", default=None)
"""What `--key-file` named, for the command that runs."""

Json = dict[str, Any]
"""A JSON object as the service answers it."""


class ServiceClient:
    """A connection pool to one service. May be used by several threads.

    Args:
        url: of the service.
        connections: at most this many at once.
        key: to show it; None: that of `--key-file`, else of BIODEDUP_API_KEY, else none.

    Raises:
        CommandFailed: what was given is no address, or the file of the key cannot be read.
    """

    def __init__(self, url: str, *, connections: int = 10, key: str | None = None) -> None:
        self.url = url.rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise CommandFailed(
                f"{url} is no address of a service", "url_invalid", advice=f"Write it like {DEFAULT_URL}."
            )
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        key = _own_key() if key is None else key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=self.url, timeout=_TIMEOUT, limits=limits, headers=headers, verify=_trust())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, *, accept: Sequence[int] = (200,), **params: str | int) -> Json:
        """Return the JSON answer of a GET; statuses in `accept` are answers, all others raise CommandFailed."""
        return self.send("GET", path, accept=accept, params=params)

    def post_json(self, path: str, body: Mapping[str, object]) -> Json:
        return self.send("POST", path, json=body)

    def patch_json(self, path: str, body: Mapping[str, object]) -> Json:
        return self.send("PATCH", path, json=body)

    def put_json(self, path: str, body: Mapping[str, object]) -> Json:
        return self.send("PUT", path, json=body)

    def post_samples(self, path: str, files: Sequence[tuple[str, bytes]], fields: Mapping[str, str]) -> Json:
        """Send samples as multipart form data. `files` are pairs of field name and content; no file name is sent."""
        # every part needs some file name to be taken as a file; the real one may say who the person is
        parts = [(name, ("sample", content, "application/octet-stream")) for name, content in files]
        return self.send("POST", path, files=parts, data=dict(fields))

    def erase(self, path: str, idempotency_key: str) -> bytes:
        """Return the receipt of a DELETE, byte by byte; an answer that is lost is asked for again, with the same key.

        Raises:
            CommandFailed
        """
        for attempt in range(_TRIES):
            try:
                response = self._http.request("DELETE", path, headers={"Idempotency-Key": idempotency_key})
            except httpx.ConnectError as error:
                raise self._no_service(error) from error
            except httpx.TransportError as error:
                if attempt == _TRIES - 1:
                    raise self._no_service(error) from error
            else:
                break
        if response.status_code != 200:
            raise self._failure(response)
        return response.content

    def stream(self, path: str, **params: str | int) -> Iterator[bytes]:
        """Yield the parts of a long answer. Raises CommandFailed, also where it breaks off."""
        try:
            with self._http.stream("GET", path, params=params) as response:
                if response.status_code != 200:
                    response.read()
                    raise self._failure(response)
                yield from response.iter_bytes()
        except httpx.TransportError as error:
            raise self._no_service(error) from error

    def send(self, method: str, path: str, *, accept: Sequence[int] = (200, 201), **arguments: Any) -> Json:
        """Return the JSON object that the service answers.

        Raises:
            CommandFailed: nothing answers (`no_service`), or the answer is an error; then with the service's own code.
        """
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.TransportError as error:
            raise self._no_service(error) from error
        if response.status_code in accept:
            return _json_object(response, self.url)
        raise self._failure(response)

    def _no_service(self, error: httpx.TransportError) -> CommandFailed:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return CommandFailed(
                f"the certificate of {self.url} is signed by nobody this machine trusts, or is for another name",
                "certificate_untrusted",
                advice="Name the authority's file: biodedup --ca-file FILE, or BIODEDUP_CA_FILE.",
            )
        return CommandFailed(
            f"no service answers at {self.url}; start it with `biodedup serve`",
            NO_SERVICE,
            advice="Another address is given with --url or BIODEDUP_URL.",
        )

    def _failure(self, response: httpx.Response) -> CommandFailed:
        """Return what the service's error says."""
        body = _json_object(response, self.url)
        message, code = body.get("message"), body.get("code")
        if not isinstance(message, str) or not isinstance(code, str):
            return _not_biodedup(self.url)
        return CommandFailed(message, code, retry_after_s=_retry_after_s(response))


def _trust() -> ssl.SSLContext | bool:
    """Return whose certificates are trusted: the system's authorities, or the one that the operator names."""
    path = os.environ.get(CA_FILE, "").strip()
    if not path:
        return True
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise CommandFailed(f"{CA_FILE}: {path} is no file of certificates (PEM)", "ca_file_unusable") from error


def _own_key() -> str:
    """Return the key that this command was given, an empty text where there is none. Raises CommandFailed."""
    path = key_file.get()
    try:
        key = os.environ.get("BIODEDUP_API_KEY", "") if path is None else path.read_text()
    except (OSError, UnicodeDecodeError):
        raise CommandFailed(f"the file of the key, {path}, cannot be read", "key_unreadable") from None
    key = key.strip()
    if not key.isascii() or any(character.isspace() or not character.isprintable() for character in key):
        raise CommandFailed("what was given as the key holds more than a key", "key_unreadable", advice=_KEY_ADVICE)
    return key


def gallery_path(gallery_id: str, *parts: str) -> str:
    """Return `/v1/galleries/{gallery_id}/...` with every part quoted."""
    return "/".join(["/v1/galleries", *(quote(part, safe="") for part in (gallery_id, *parts))])


def _json_object(response: httpx.Response, url: str) -> Json:
    try:
        body = response.json()
    except ValueError as error:
        raise _not_biodedup(url) from error
    if not isinstance(body, dict):
        raise _not_biodedup(url)
    return body


def _not_biodedup(url: str) -> CommandFailed:
    return CommandFailed(
        f"what answers at {url} is not biodedup", NO_SERVICE, advice="Is another program using this port?"
    )


def _retry_after_s(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdigit() else None
