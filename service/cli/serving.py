"""`biodedup serve`: takes the port, runs the application until it is told to stop, and says where it listens."""

import asyncio
import errno
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import uvicorn
import uvloop

from service.api.connections import ConnectionRules, protocol_with
from service.api.tls import Certificate
from service.cli.failures import CommandFailed
from service.cli.show import console, plain
from service.core_dumps import forbid_core_dumps
from service.errors import NotReady
from service.logs import configure_logs
from service.settings import Settings, is_loopback
from service.var_lock import refuse_owned

if TYPE_CHECKING:
    from fastapi import FastAPI

    from service.api.context import Startup
    from service.metrics import Metrics

_FINISH_S = 60  # for accepted requests after a stop signal; longer than a sample may wait in the queue
_FILES_BESIDE = 512  # segments of indexes, pipes to workers, the database
_TICKS_A_LOOK = 10  # a second, for certificate files that changed
_BACKLOG = 2048  # connections that the kernel keeps for us while the threads are busy


def run_service(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish the accepted requests and end with exit status 0.

    Raises:
        BiodedupError: the service could not start, and why.
        CommandFailed: the address cannot be listened on.
    """
    # uvicorn has handlers of its own while it serves, and raises the signal again when it has finished: then, and
    # while the models are imported, a signal must end the process without a failure
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    os.umask(0o077)  # the record, its write-ahead log and the lock are for their owner only
    configure_logs(settings.log_level)
    forbid_core_dumps()
    _certificate(settings)  # wrong files are told before anything else is done
    _allow_connections(settings.max_connections)
    # before the models, which take a second to load
    with _listen(settings) as listener:
        _serve(settings, listener, _url_of(listener, is_https=settings.tls_cert_file is not None))


class _Loop(uvloop.Loop):
    """uvloop that waits for a TLS handshake as long as for a request's head, where it would wait for a minute.

    Until the handshake is done nobody counts the connection: it has no protocol yet, and uvicorn has no setting.
    """

    def __init__(self, handshake_timeout_s: float) -> None:
        super().__init__()
        self._handshake_timeout_s = handshake_timeout_s

    async def create_server(self, *args: Any, **options: Any) -> Any:  # uvloop and asyncio name its type differently
        if options.get("ssl") is not None:
            options["ssl_handshake_timeout"] = self._handshake_timeout_s
        return await super().create_server(*args, **options)


class _Config(uvicorn.Config):
    handshake_timeout_s: float

    def get_loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop]:
        return partial(_Loop, self.handshake_timeout_s)


class _Server(uvicorn.Server):
    """Calls `announce` once, when the service is ready: a start that fails has only its error to say.

    A certificate whose files change is loaded again.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        startup: "Startup",
        announce: Callable[[], None],
        certificate: Certificate | None = None,
    ) -> None:
        super().__init__(config)
        self._startup = startup
        self._certificate = certificate
        self._announce: Callable[[], None] | None = announce

    async def on_tick(self, counter: int) -> bool:
        """Look, ten times a second, whether the service is there; return whether to stop, as uvicorn asks."""
        if self._announce is not None:
            with suppress(NotReady):
                self._startup.service()
                self._announce()
                self._announce = None
        if self._certificate is not None and counter % _TICKS_A_LOOK == 0:
            self._certificate.reload_if_changed()
        return await super().on_tick(counter)


def server_config(app: "FastAPI", settings: Settings, certificate: Certificate | None = None) -> uvicorn.Config:
    """Return how uvicorn serves `app`."""
    metrics: Metrics = app.state.metrics
    rules = ConnectionRules(
        header_timeout_s=settings.header_timeout_s,
        receive_timeout_s=settings.receive_timeout_s,
        send_timeout_s=settings.send_timeout_s,
        max_connections=settings.max_connections,
        max_per_address=settings.max_connections_per_address,
        trusted_proxies=settings.trusted_proxies,
        on_closed=lambda reason: metrics.connections_closed.labels(reason=reason).inc(),
    )
    config = _Config(
        app,
        http=protocol_with(rules),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the application takes the addresses that proxies tell, and from trusted ones alone
        timeout_graceful_shutdown=_FINISH_S,
        ssl_context_factory=None if certificate is None else lambda _config, _default: certificate.context,
    )
    config.handshake_timeout_s = settings.header_timeout_s
    return config


def _certificate(settings: Settings) -> Certificate | None:
    """Raises SettingsInvalid."""
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    return Certificate(settings.tls_cert_file, settings.tls_key_file)


def _allow_connections(wanted: int) -> None:
    """Let the process have so many connections open, and its files beside them, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _FILES_BESIDE
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _serve(settings: Settings, listener: socket.socket, url: str) -> None:
    from service.app import create_app  # noqa: PLC0415  (imports onnxruntime and faiss: a second)

    certificate = _certificate(settings)

    def announce() -> None:
        if not (is_loopback(settings.host) or certificate or settings.trusted_proxies):
            _warn_of_strangers(settings.host)
        _announce(settings, url)

    def stop() -> None:
        server.should_exit = True

    app = create_app(settings, url=url, on_failure=stop, on_encryption=_tell_encryption, on_first_key=_show_first_key)
    startup: Startup = app.state.startup
    server = _Server(server_config(app, settings, certificate), startup, announce, certificate)
    server.run(sockets=[listener])
    if startup.failure is not None:
        raise startup.failure


def _listen(settings: Settings) -> socket.socket:
    """Raises CommandFailed, VarInUse, VarUnusable."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        if settings.database_url is None:
            # most likely this very service a second time: what the lock says then helps more than a busy port
            refuse_owned(settings.var_dir)
        raise CommandFailed(
            f"{settings.host} port {settings.port} {_why(error)}",
            "address_unusable",
            advice="Choose another one, for example BIODEDUP_PORT=8001 biodedup serve.",
        ) from error


def _why(error: OSError) -> str:
    reasons = {
        errno.EADDRINUSE: "is taken by another program",
        errno.EACCES: "may not be used: ports below 1024 belong to the system",
        errno.EADDRNOTAVAIL: "is no address of this machine",
    }
    number = error.errno or 0
    return reasons.get(number, f"cannot be listened on: {os.strerror(number) if number > 0 else error.strerror}")


def _url_of(listener: socket.socket, *, is_https: bool) -> str:
    """Return an address that works on this machine, also where the service listens on all of them."""
    host, port = listener.getsockname()[:2]
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (shown to people, not listened on)
    host = everywhere.get(host, host)
    scheme = "https" if is_https else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _warn_of_strangers(host: str) -> None:
    print(  # noqa: T201  (a command speaks)
        f"warning: listening on {host} without encryption. Keys and photographs cross the network as they are: set "
        "BIODEDUP_TLS_CERT_FILE and BIODEDUP_TLS_KEY_FILE; or let only a proxy on the same trusted network reach it, "
        "one that speaks TLS to everybody else, and name it in BIODEDUP_TRUSTED_PROXIES.",
        file=sys.stderr,
    )


def _tell_encryption(done: int, total: int) -> None:
    out = console()
    out.print(f"Encrypting what an earlier version wrote: {done:,} of {total:,} subjects.")
    out.file.flush()


def _show_first_key(key: str) -> None:
    """Say the key of the first client, on standard output alone: the log is kept, and read by others."""
    out = console()
    out.print("Nobody may call this service yet, so the client `admin` was made, with the role admin in all galleries.")
    out.print("Its key is shown this once; keep it where you keep passwords:")
    out.print(f"  {key}", highlight=False)
    out.print("Commands read it from BIODEDUP_API_KEY; `biodedup clients add` makes clients that enrol and decide.")
    out.file.flush()


def _announce(settings: Settings, url: str) -> None:
    out = console()
    record = "a database" if settings.database_url is not None else str(settings.var_dir.absolute())
    out.print(f"biodedup listens on {url}  (model pack {plain(settings.pack)}, record in {plain(record)})")
    out.print(f"  {url}/docs     try every request in the browser")
    out.print(f"  {url}/redoc    the same as a manual")
    out.print(f"  {url}/readyz   what is loaded and in step")
    out.print(f"  {url}/metrics  numbers for Prometheus")
    if settings.auth == "off":
        out.print("BIODEDUP_AUTH=off: nobody is asked who they are; every program on this machine may do everything.")
    out.print("Stop with Ctrl-C.")
    out.file.flush()


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(0)
