"""Make or refresh `.venv` from a lock file, with a progress line; standard library only, called by the Makefile."""

import shutil
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
OLDEST = (3, 11)


def main() -> int:
    """Install the lock file named on the command line, and the project itself; return the exit status."""
    lock = ROOT / sys.argv[1]
    started = time.monotonic()
    if sys.version_info < OLDEST:
        return _fail(f"Python {OLDEST[0]}.{OLDEST[1]} or newer is needed; this is {sys.version.split()[0]}.")
    if not _venv_works() and not _make_venv():
        return _fail("Python cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv")
    total = sum(1 for line in lock.read_text().splitlines() if line[:1].isalnum())
    print(f"Installing what {lock.name} pins into .venv (up to {total} packages; minutes the first time)", flush=True)
    hashed = ["--require-hashes", "--no-deps", "-r", str(lock)]
    if not _pip(hashed, total) or not _pip(["--no-deps", "--no-build-isolation", "-q", "-e", str(ROOT)], 0):
        return _fail("Installing failed; the lines above say why. Is the package index reachable?")
    print(f"Installed in {time.monotonic() - started:.0f} s.", flush=True)
    return 0


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


def _venv_works() -> bool:
    """Whether `.venv` has a Python that starts and has pip; one of a removed or moved Python has not."""
    if not PYTHON.exists():
        return False
    check = f"import sys, pip; sys.exit(sys.version_info < {OLDEST})"
    return subprocess.run([PYTHON, "-c", check], capture_output=True, check=False).returncode == 0


def _make_venv() -> bool:
    if (VENV / "pyvenv.cfg").exists():  # only what venv itself made is thrown away
        shutil.rmtree(VENV)
    print(f"Making .venv with Python {sys.version.split()[0]}", flush=True)
    return subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=False).returncode == 0


def _pip(arguments: list[str], total: int) -> bool:
    """Run `pip install`, show how far it is, and its last lines where it fails. Returns whether it succeeded."""
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *arguments]
    last_lines: deque[str] = deque(maxlen=40)
    done = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            last_lines.append(line)
            words = line.split()
            if words[:1] == ["Collecting"] or words[:3] == ["Requirement", "already", "satisfied:"]:
                done += 1
                _progress(done, total, words[1 if words[0] == "Collecting" else 3].partition("==")[0])
            elif words[:1] == ["Installing"] and total:
                _progress(done, total, "unpacking")
    if total and sys.stdout.isatty():
        print()
    if pip.returncode != 0:
        print("".join(last_lines), file=sys.stderr)
    return pip.returncode == 0


def _progress(done: int, total: int, what: str) -> None:
    """One line that is overwritten on a terminal; every tenth package elsewhere."""
    if sys.stdout.isatty():
        filled = 30 * min(done, total) // total
        print(f"\r[{'#' * filled}{'.' * (30 - filled)}] {done:3} {what[:40]:40}", end="", flush=True)
    elif done % 10 == 0 or what == "unpacking":
        print(f"  {done} of up to {total}: {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
