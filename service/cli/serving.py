"""`biodedup serve`: binds the port, builds the application, and runs it until it is told to stop."""

import errno
import ipaddress
import signal
import socket
import sys
from types import FrameType

import uvicorn

from service.cli.failures import CommandFailed
from service.cli.show import console, plain
from service.logs import configure_logs
from service.settings import Settings

_FINISH_S = 60  # for accepted requests after a stop signal; longer than a sample may wait in the queue
_BACKLOG = 512  # connections that the kernel keeps for us while the threads are busy

_BIND_ERRORS = {
    errno.EADDRINUSE: "is taken by another program",
    errno.EACCES: "needs more rights: ports below 1024 belong to the system",
    errno.EADDRNOTAVAIL: "is no address of this machine",
}


class _Server(uvicorn.Server):
    """Says where it listens once the application is up."""

    def __init__(self, config: uvicorn.Config, settings: Settings, url: str) -> None:
        super().__init__(config)
        self._settings = settings
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            _announce(self._settings, self._url)


def run_service(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish the accepted requests.

    Raises:
        CommandFailed: the address cannot be listened on, or the application did not start.
        BiodedupError: what the application says of its settings, packs, record and folder.
    """
    configure_logs(settings.log_level)
    listener = _listen(settings.host, settings.port)
    # after the port, which is quick to find taken, and before the models, which take a second to load
    if not _is_loopback(settings.host):
        print(  # noqa: T201
            f"warning: listening on {settings.host}. Whoever reaches this address can enrol, read and erase: "
            "the service does not ask who is calling. Put a proxy that does in front of it.",
            file=sys.stderr,
        )
    with listener:
        from service.app import create_app  # noqa: PLC0415  (imports onnxruntime and faiss: a second)

        config = uvicorn.Config(
            create_app(settings),
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_FINISH_S,
        )
        server = _Server(config, settings, _url_of(listener))
        # uvicorn raises the signal again when it has finished; that must not turn a clean stop into a failure
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _ignore)
        server.run(sockets=[listener])
    if not server.started:
        raise CommandFailed("the service did not start; its log says why", "not_started")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        reason = _BIND_ERRORS.get(error.errno or 0, f"cannot be listened on ({error.strerror})")
        raise CommandFailed(
            f"{host} port {port} {reason}",
            "address_unusable",
            advice="Choose another one, for example BIODEDUP_PORT=8001 biodedup serve.",
        ) from error
    return listener


def _url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name: it may lead anywhere


def _announce(settings: Settings, url: str) -> None:
    out = console()
    record = "a database" if settings.database_url is not None else str(settings.var_dir)
    out.print(f"biodedup listens on {url}  (model pack {plain(settings.pack)}, record in {plain(record)})")
    out.print(f"  {url}/docs     try every request in the browser")
    out.print(f"  {url}/redoc    the same as a manual")
    out.print(f"  {url}/readyz   what is loaded and in step")
    out.print(f"  {url}/metrics  numbers for Prometheus")
    out.print("Stop with Ctrl-C.")
    out.file.flush()


def _ignore(_number: int, _frame: FrameType | None) -> None:
    return
