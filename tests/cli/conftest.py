"""A running service for the commands, and a way to call them."""

import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from service.__main__ import commands
from tests.server import Server


def run(*arguments: object) -> Result:
    """Call `biodedup` in this process; standard output and standard error are kept apart."""
    return CliRunner().invoke(commands, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The journal of a test goes into the folder of the test."""
    monkeypatch.setenv("BIODEDUP_VAR_DIR", str(tmp_path / "client-var"))
    monkeypatch.delenv("BIODEDUP_URL", raising=False)
    monkeypatch.delenv("BIODEDUP_API_KEY", raising=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Server]:
    var_dir = tmp_path_factory.mktemp("service") / "var"
    with Server(var_dir, {"BIODEDUP_MODELS_DIR": str(models_dir)}) as running:
        yield running


@pytest.fixture
def gallery(server: Server, request: pytest.FixtureRequest) -> str:
    """A gallery of the test's own."""
    name = f"g{zlib.crc32(request.node.nodeid.encode())}"
    result = run("gallery", "create", name, "--url", server.url)
    assert result.exit_code == 0, result.stderr
    return name
