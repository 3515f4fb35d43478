"""A real OpenID Connect provider in a process of its own, on loopback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from tests.api.credentials import AUDIENCE
from tests.server import free_port

_START_S = 60
_RETURN_TO = "http://127.0.0.1/back"


class Provider:
    """`oidc-provider-mock`; each start makes a new signing key. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        self._log = folder / f"provider-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Provider":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        # its own library warns of its age; it listens on loopback without TLS
        environ = {**os.environ, "AUTHLIB_INSECURE_TRANSPORT": "1", "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(self.port), "--token-max-age", "600"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                httpx.get(f"{self.issuer}/jwks", timeout=5).raise_for_status()
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError(f"the provider did not start:\n{self._log.read_text()[-2000:]}")

    def hang(self) -> None:
        """Let it answer nobody: whoever connects waits."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None:
            self.go_on()  # one that hangs would not end
            self._process.terminate()
            self._process.wait(timeout=30)
            self._process = None

    def rotate_key(self) -> None:
        self.stop()
        self.start()

    def token(self, subject: str = "jane", audience: str = AUDIENCE, **facts: Any) -> str:
        """Log somebody in by the code flow, as a browser would, and return the id token."""
        with httpx.Client(base_url=self.issuer, timeout=10) as http:
            http.put(f"/users/{subject}", json=facts).raise_for_status()
            asked = {
                "client_id": audience,
                "redirect_uri": _RETURN_TO,
                "response_type": "code",
                "scope": "openid",
                "nonce": "n",
            }
            back = http.post("/oauth2/authorize", params=asked, data={"sub": subject}).headers["location"]
            given = http.post(
                "/oauth2/token",
                data={
                    "grant_type": "authorization_code",
                    "code": httpx.URL(back).params["code"],
                    "redirect_uri": _RETURN_TO,
                    "client_id": audience,
                    "client_secret": "any",
                },
            )
            return str(given.raise_for_status().json()["id_token"])
