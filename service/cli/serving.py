"""`biodedup serve`: runs the service until it is told to stop, and says where it listens."""

import ipaddress
import signal
import sys
from types import FrameType
from typing import NoReturn

from service.cli.show import console, plain
from service.logs import configure_logs
from service.settings import Settings


def run_service(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish the accepted requests and end with exit status 0.

    Raises:
        BiodedupError: the service could not start, and why.
    """
    # uvicorn has handlers of its own while it serves, and raises the signal again when it has finished: then, and
    # while the models are imported, a signal must end the process without a failure
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    configure_logs(settings.log_level)
    if not is_loopback(settings.host):
        print(  # noqa: T201
            f"warning: listening on {settings.host}. Whoever reaches this address can enrol, read and erase: the "
            "service does not ask who is calling. Let only trusted systems reach it.",
            file=sys.stderr,
        )
    from service.app import serve  # noqa: PLC0415  (imports onnxruntime and faiss: a second)

    serve(settings, lambda url: _announce(settings, url))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`. A name other than localhost may lead anywhere."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(0)
