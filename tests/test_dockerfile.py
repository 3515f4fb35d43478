"""The image is clean, runs without root, and its steps work outside Docker."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from service.settings import load_settings

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
SCRIPTS = ["deploy/image/build.sh", "deploy/image/runtime.sh"]


def instructions(name: str) -> list[str]:
    """What follows each instruction of this name, in order."""
    return re.findall(rf"^\s*{name} +(.+)$", DOCKERFILE, re.MULTILINE)


def image_environment() -> dict[str, str]:
    arguments = dict(argument.split("=", 1) for argument in instructions("ARG"))
    pairs = (pair.split("=", 1) for line in instructions("ENV") for pair in line.split())
    return {name: arguments.get(value.removeprefix("$"), value) for name, value in pairs}


def health_check_command() -> list[str]:
    (command,) = re.findall(r"HEALTHCHECK.* CMD (\[.+\])", DOCKERFILE)
    return [str(word) for word in json.loads(command)]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def answering() -> Iterator[tuple[HTTPServer, list[int]]]:
    """A server whose next answers have the statuses in the list."""
    statuses: list[int] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses.pop(0) if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server, statuses
    server.shutdown()
    thread.join()
    server.server_close()


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    found = subprocess.run([hadolint, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_every_step_is_a_script_that_runs_outside_docker() -> None:
    steps = instructions("RUN")
    assert [Path(step.split()[0]).name for step in steps] == [Path(script).name for script in SCRIPTS]
    for script in SCRIPTS:
        assert os.access(ROOT / script, os.X_OK)
        assert subprocess.run(["sh", "-n", ROOT / script], check=False).returncode == 0


def test_the_last_user_is_not_root() -> None:
    assert instructions("USER") == ["10001:10001"]
    assert instructions("RUN")[-1].split()[-1] == "10001"


def test_the_base_is_one_exact_version_in_both_stages() -> None:
    bases = {line.split()[0] for line in instructions("FROM")}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", bases.pop())


def test_the_settings_of_the_image_are_valid_and_its_data_is_in_the_volume() -> None:
    environment = image_environment()
    settings = load_settings({name: value for name, value in environment.items() if name.startswith("BIODEDUP_")})
    assert settings.host == "0.0.0.0"
    assert [str(settings.var_dir)] == instructions("VOLUME") == instructions("WORKDIR")
    assert [str(settings.port)] == instructions("EXPOSE")


def test_onnx_runtime_reports_to_nobody() -> None:
    assert image_environment()["ORT_DISABLE_TELEMETRY"] == "1"
    for script in ("Makefile", SCRIPTS[0]):
        assert re.search(r"^export ORT_DISABLE_TELEMETRY *:?= *1$", (ROOT / script).read_text(), re.MULTILINE)


def test_all_that_the_build_needs_is_sent_to_docker() -> None:
    sent = set((ROOT / ".dockerignore").read_text().split())
    parts = re.search(r"for part in (.+); do", (ROOT / SCRIPTS[0]).read_text())
    assert parts is not None
    assert {f"!{part}" for part in [*parts[1].split(), "deploy/image"]} - sent == set()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_follows_the_answer(
    status: int, healthy: bool, answering: tuple[HTTPServer, list[int]]
) -> None:
    server, statuses = answering
    statuses.append(status)
    _, *arguments = health_check_command()
    environment = {"BIODEDUP_PORT": str(server.server_address[1])}
    checked = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, check=False)
    assert (checked.returncode == 0) is healthy


def test_the_health_check_fails_when_nothing_listens() -> None:
    _, *arguments = health_check_command()
    checked = subprocess.run([sys.executable, *arguments], env={"BIODEDUP_PORT": "1"}, capture_output=True, check=False)
    assert checked.returncode != 0


def test_the_folder_of_the_record_belongs_to_the_service_alone(tmp_path: Path) -> None:
    state = tmp_path / "state"
    subprocess.run([ROOT / SCRIPTS[1], state, "10001"], check=True)
    assert state.stat().st_mode & 0o777 == 0o700
    assert state.stat().st_uid == (10001 if os.geteuid() == 0 else os.geteuid())


@pytest.mark.soak
def test_the_built_image_starts_from_its_own_files_and_is_healthy(tmp_path: Path) -> None:
    prefix, state = tmp_path / "opt", tmp_path / "state"
    subprocess.run([ROOT / SCRIPTS[0], ROOT, prefix], check=True)
    subprocess.run([ROOT / SCRIPTS[1], state, str(os.geteuid())], check=True)
    environment = {
        **image_environment(),
        "PATH": f"{prefix}/venv/bin:/usr/bin:/bin",
        "HOME": str(state),
        "BIODEDUP_VAR_DIR": str(state),
        "BIODEDUP_HOST": "127.0.0.1",
        "BIODEDUP_PORT": str(free_port()),
    }
    _, *health_check = health_check_command()
    with subprocess.Popen([prefix / "venv/bin/biodedup", "serve"], env=environment, cwd=state) as service:
        try:
            for _ in range(100):  # each attempt starts a Python, which takes long enough
                checked = subprocess.run([prefix / "venv/bin/python", *health_check], env=environment, check=False)
                if checked.returncode == 0:
                    break
        finally:
            service.terminate()
    assert checked.returncode == 0
    assert list(state.glob("*.sqlite"))
    assert not (state / ".cache").exists()  # where ONNX Runtime keeps the identifier that it reports
    assert (prefix / "app/models/opencv-zoo/installed.json").exists()
