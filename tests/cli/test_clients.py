"""`biodedup clients` beside a service that asks who calls: from the first key to the last."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import run
from tests.server import Server

KEY = re.compile(r"bdk_[0-9a-f]{16}_[\w-]{43}")

pytestmark = pytest.mark.models


class Service:
    """A real service in a folder of its own, and the key of its first client."""

    def __init__(self, var_dir: Path, server: Server) -> None:
        self.var_dir = var_dir
        self.server = server
        said = server.log_path.read_text()
        (self.admin_key,) = KEY.findall(said)
        # the log is JSON: the key stands on a line of its own, which is no part of it
        assert [line for line in said.splitlines() if self.admin_key in line] == [f"  {self.admin_key}"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Service]:
    var_dir = tmp_path_factory.mktemp("asking") / "var"
    with Server(var_dir, {"BIODEDUP_MODELS_DIR": str(models_dir), "BIODEDUP_AUTH": "on"}) as server:
        yield Service(var_dir, server)


@pytest.fixture
def as_admin(service: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setenv("BIODEDUP_URL", service.server.url)
    monkeypatch.setenv("BIODEDUP_API_KEY", service.admin_key)
    return service


def new_key(*arguments: str) -> str:
    result = run("clients", *arguments)
    assert result.exit_code == 0, result.stderr
    (key,) = KEY.findall(result.stdout)
    assert key not in result.stderr
    return str(key)


def status(service: Service, key: str, path: str = "/v1/galleries/default/cases") -> int:
    return httpx.get(f"{service.server.url}{path}", headers={"Authorization": f"Bearer {key}"}).status_code


def test_a_client_is_added_listed_rotated_and_revoked(as_admin: Service) -> None:
    first = new_key("add", "hq", "--role", "analyst:default", "--role", "auditor", "--expires", "90d")
    assert (status(as_admin, first), status(as_admin, first, "/v1/galleries/other/cases")) == (200, 403)

    second = new_key("rotate", "hq", "--overlap", "1h")
    assert (status(as_admin, first), status(as_admin, second)) == (200, 200)

    third = new_key("rotate", "hq", "--overlap", "0s")
    assert [status(as_admin, key) for key in (first, second, third)] == [401, 401, 200]

    listed = run("clients", "list").stdout
    for words in ("hq", "analyst:default", "auditor:*", "ended", "holds", third.split("_")[1]):
        assert words in listed
    assert third not in listed

    assert run("clients", "revoke", "hq", "--yes").exit_code == 0
    assert status(as_admin, third) == 401
    assert "revoked" in run("clients", "list").stdout


def test_a_role_in_a_gallery_that_is_not_there_is_given_with_a_warning(as_admin: Service) -> None:
    result = run("clients", "add", "early", "--role", "analyst:default", "--role", "analyst:later", "--role", "auditor")
    assert (result.exit_code, len(KEY.findall(result.stdout))) == (0, 1)
    assert result.stderr.count("warning:") == 1
    assert "there is no gallery `later`" in result.stderr


def test_a_client_without_a_role_may_nothing_but_what_agreements_say(as_admin: Service) -> None:
    key = new_key("add", "partner-agency")
    assert [status(as_admin, key, path) for path in ("/v1/agreements", "/v1/galleries")] == [200, 403]


def test_what_cannot_be_done_is_said_in_one_line(as_admin: Service) -> None:
    new_key("add", "taken", "--role", "operator")
    for arguments, code in (
        (["add", "taken", "--role", "operator"], "client_exists"),
        (["rotate", "nobody"], "client_not_found"),
        (["revoke", "nobody", "--yes"], "client_not_found"),
    ):
        result = run("clients", *arguments)
        assert result.exit_code == 1
        assert result.stderr.splitlines()[0].endswith(f"({code})")
    assert run("clients", "revoke", "taken").exit_code == 1  # nobody said yes


def test_without_a_key_a_command_says_where_to_put_one(service: Service, tmp_path: Path) -> None:
    at = ("--url", service.server.url)
    for result in (run("gallery", "list", *at), run("stats", *at), run("clients", "list", *at)):
        first, advice = result.stderr.splitlines()
        assert result.exit_code == 1
        assert first.endswith("(unauthenticated)")
        assert "BIODEDUP_API_KEY" in advice
        assert "--key-file" in advice


def test_a_key_comes_from_a_file_too(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, at = tmp_path / "key", ("--url", service.server.url)
    file.write_text(f"{service.admin_key}\n")
    monkeypatch.setenv("BIODEDUP_API_KEY", "bdk_of_somebody_else")
    assert run("--key-file", file, "gallery", "list", *at).exit_code == 0
    assert "(unauthenticated)" in run("gallery", "list", *at).stderr
    for content in (b"two words", b"a\x00b", b"\xff\xfe"):
        file.write_bytes(content)
        result = run("--key-file", file, "gallery", "list", *at)
        assert (result.exit_code, "(key_unreadable)" in result.stderr) == (1, True)
    result = run("--key-file", tmp_path / "none", "gallery", "list", *at)
    assert (result.exit_code, "(key_unreadable)" in result.stderr) == (1, True)


def test_what_a_role_does_not_allow_is_said_in_one_line(as_admin: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIODEDUP_API_KEY", new_key("add", "runner", "--role", "operator"))
    result = run("gallery", "create", "other")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == "error: your roles do not allow this here (forbidden)"
    assert run("stats").exit_code == 0


def test_a_recovery_waits_for_the_service_to_stop(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIODEDUP_VAR_DIR", str(service.var_dir))
    result = run("clients", "recover")
    assert result.exit_code == 1
    assert "(var_in_use)" in result.stderr


def test_every_lost_key_is_recovered_by_another_administrator(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    var_dir, environ = tmp_path / "var", {"BIODEDUP_MODELS_DIR": str(models_dir), "BIODEDUP_AUTH": "on"}
    monkeypatch.setenv("BIODEDUP_VAR_DIR", str(var_dir))
    assert "(record_not_ready)" in run("clients", "recover").stderr
    with Server(var_dir, environ) as server:
        (first,) = KEY.findall(server.log_path.read_text())
    result = run("clients", "recover")
    assert result.exit_code == 0, result.stderr
    assert "admin-2" in result.stdout
    (second,) = KEY.findall(result.stdout)
    with Server(var_dir, environ) as server:
        assert KEY.findall(server.log_path.read_text()) == [first]  # of the start before: a further start shows none
        for key in (first, second):
            found = httpx.get(f"{server.url}/v1/clients", headers={"Authorization": f"Bearer {key}"})
            assert [item["name"] for item in found.json()["items"]] == ["admin", "admin-2"]
