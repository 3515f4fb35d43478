"""Real places of a master key: a token of SoftHSM (Debian's softhsm2), a development server of OpenBao (its wheel)."""

import atexit
import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import httpx

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "4321"
TOKEN = "the-root-token"
_START_S = 30

_numbers = itertools.count(1)


@cache
def _softhsm_token() -> str:
    """Make a token once for this process: the module reads its settings when it is first loaded."""
    folder = Path(tempfile.mkdtemp(prefix="biodedup-hsm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\n")
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    command = ["softhsm2-util", "--init-token", "--free", "--label", "camp", "--pin", PIN, "--so-pin", "87654321"]
    subprocess.run(command, check=True, timeout=60, stdout=subprocess.DEVNULL)
    return "camp"


def new_pkcs11_address() -> str:
    """Return the address of a key that no other test has, in a token that is there."""
    return f"pkcs11:token={_softhsm_token()};object=master-{next(_numbers)}?module-path={MODULE}"


@cache
def _openbao() -> str:
    """Start the server once for this process; return its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="biodedup-bao-"))
    command = [str(Path(sys.executable).parent / "bao"), "server", "-dev", "-dev-no-store-token"]
    command += [f"-dev-listen-address=127.0.0.1:{port}", f"-dev-root-token-id={TOKEN}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HOME": str(folder)})
    atexit.register(_stop, process, folder)
    address = f"http://127.0.0.1:{port}"
    _wait(address, process, folder)
    mounted = httpx.post(
        f"{address}/v1/sys/mounts/transit", json={"type": "transit"}, headers={"X-Vault-Token": TOKEN}, timeout=10
    )
    mounted.raise_for_status()
    return address


def new_transit_address() -> str:
    """Return the address of a key that no other test has, on a server that runs."""
    return f"transit:{_openbao()}/transit/master-{next(_numbers)}"


def _wait(address: str, process: "subprocess.Popen[bytes]", folder: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{address}/v1/sys/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.05)
    raise RuntimeError(f"OpenBao did not start: {(folder / 'log').read_text()[-500:]}")


def _stop(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    process.terminate()
    process.wait(timeout=30)
    shutil.rmtree(folder, ignore_errors=True)
