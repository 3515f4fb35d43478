"""The service of the demo: a child process that is ready when it says so itself, or why there is none."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from service.cli.failures import CommandFailed
from service.var_lock import refuse_owned

LOG = "service.log"

_START_S = 120.0  # a slow disk and a cold machine included
_STOP_S = 70.0  # the service finishes accepted requests within 60
_PROBE_S = 2.0  # for a connection on this machine
_MOST_SAID = 65_536  # bytes; a start says a dozen lines
_KEY = re.compile(r"bdk_\w{16}_[\w-]{43}")
_OTHER_PORT = "Stop that program, or take another port: BIODEDUP_PORT=8001 make demo"


@dataclass(frozen=True, slots=True)
class Child:
    """The service of the demo, ready."""

    process: "subprocess.Popen[bytes]"
    url: str
    first_key: str | None = field(repr=False)
    """Of the administrator that its first start makes; None: there were clients before."""


def refuse_taken(port: int, var_dir: Path) -> None:
    """Refuse before anything is written where another program has the port, or another process the var folder.

    A service that already runs holds somebody's record: the demo must not enrol its people there.
    """
    refuse_owned(var_dir)
    with socket.socket() as probe:
        probe.settimeout(_PROBE_S)
        is_taken = probe.connect_ex(("127.0.0.1", port)) == 0
    if is_taken:
        raise CommandFailed(f"something already answers on port {port}", "address_unusable", advice=_OTHER_PORT)


@contextmanager
def running_service(port: int, folder: Path) -> Iterator[Child]:
    """Run `biodedup serve` as a child process, ready when the block begins and stopped when it ends."""
    log = folder / LOG
    environ = os.environ | {"BIODEDUP_VAR_DIR": str(folder.parent), "BIODEDUP_PORT": str(port)}
    # what it says on standard output may be a key, and has no place in the log
    with log.open("ab") as stream, tempfile.TemporaryFile() as output:  # the log of an earlier run is still somebody's
        earlier = stream.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve"], env=environ, stdout=output, stderr=stream
        )
        try:
            yield _wait_until_ready(process, port, output, log, earlier)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_ready(
    process: "subprocess.Popen[bytes]", port: int, output: IO[bytes], log: Path, earlier: int
) -> Child:
    """Return the child with the URL that it names when it is ready: what answers on a port may be a stranger.

    Args:
        process: the child.
        port: that it was given.
        output: its standard output.
        log: its standard error.
        earlier: bytes of the log that it did not write.

    Raises:
        CommandFailed: it ended, or takes too long.
    """
    ready = re.compile(rf"^biodedup listens on (http://\S+:{port}) ", re.MULTILINE)
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        has_ended = process.poll() is not None  # before reading: then all that it said is there
        said = os.pread(output.fileno(), _MOST_SAID, 0).decode(errors="replace")
        if has_ended:
            raise _not_started(log.read_bytes()[earlier:].decode(errors="replace"), log)
        found = ready.search(said)
        if found is not None:
            key = _KEY.search(said)
            return Child(process, found[1], key[0] if key else None)
        time.sleep(0.1)
    raise CommandFailed(f"the service is not ready after {_START_S:.0f} s; its log is in {log}", "not_ready")


def _not_started(said: str, log: Path) -> CommandFailed:
    """Return what the child's `error:` lines say, and its own advice unless the demo has one that fits better."""
    start = re.search(r"^error: ", said, re.MULTILINE)
    lines = [line.strip() for line in said[start.start() :].splitlines()] if start else []
    lines = [line for line in lines if not line.startswith("{")]
    errors = [re.fullmatch(r"error: (.*) \((\w+)\)", line) for line in lines]
    message = "; ".join(found[1] for found in errors if found) or "it ended without a word"
    code = next((found[2] for found in errors if found), "not_started")
    own = " ".join(line for line in lines if not line.startswith("error: "))
    advice = _OTHER_PORT if code == "address_unusable" else own
    return CommandFailed(
        f"the service did not start: {message}", code, advice=f"{advice} The whole log is in {log}.".lstrip()
    )
