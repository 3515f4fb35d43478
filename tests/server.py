"""A real biodedup in a process of its own, on loopback, with its data in a folder of the test."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

_START_S = 90


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """`biodedup serve` as a child process. Use as a context manager, or stop it yourself."""

    def __init__(
        self,
        var_dir: Path,
        environ: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        port: int | None = None,
    ) -> None:
        """`port`: of a server that was killed, to take its place; None: any free one."""
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = var_dir.parent / f"{var_dir.name}.log"
        settings = {"BIODEDUP_VAR_DIR": str(var_dir), "BIODEDUP_PORT": str(self.port), "BIODEDUP_AUTH": "off"}
        settings |= environ or {}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "service", "serve"],
                env={**_without_settings(), **settings},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> "Server":
        self.wait_until_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_until_ready(self) -> dict[str, Any]:
        """Return the answer of `/readyz` once it is 200; a server that dies or hangs fails the test with its log."""
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                answer = httpx.get(f"{self.url}/readyz", timeout=5)
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            if answer.status_code == 200:
                ready: dict[str, Any] = answer.json()
                return ready
            time.sleep(0.05)
        raise AssertionError(f"the service did not become ready:\n{self.log_path.read_text()[-4000:]}")

    def kill(self) -> None:
        """End it without warning, as a power cut would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Ask it to stop and return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def resident_mib(self) -> float:
        """Resident memory of the process in MiB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _without_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("BIODEDUP_")}
