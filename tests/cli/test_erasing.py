"""`biodedup subject erase`, `receipts` and `keys backup | restore`, against a running service."""

import itertools
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from service.cli.client import ServiceClient
from service.cli.failures import CommandFailed
from service.receipts import verified
from service.signing import PublicKey
from tests.api.live import fake_app, fake_settings, running, wait_until_ready
from tests.cli.conftest import run

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Live:
    url: str
    var: Path

    def enrol(self) -> str:
        """Enrol somebody of their own; return the id."""
        name = f"person-{next(_numbers)}"
        answer = httpx.post(
            f"{self.url}/v1/galleries/default/enrolments",
            files={"sample": f"{name}/1".encode()},
            data={"subject_id": name},
        )
        assert answer.status_code == 201, answer.text
        return name

    def is_there(self, subject_id: str) -> bool:
        return httpx.get(f"{self.url}/v1/galleries/default/subjects/{subject_id}").status_code == 200


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    var = tmp_path_factory.mktemp("erasing") / "var"
    with running(fake_app(fake_settings(var))) as url:
        with httpx.Client(base_url=url) as client:
            wait_until_ready(client)
        yield Live(url, var)


def erase(live: Live, name: str, receipt: Path, *options: str) -> str:
    result = run("subject", "erase", name, "--receipt", receipt, "--yes", "--url", live.url, *options)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_an_erased_person_is_gone_and_the_receipt_verifies_offline(live: Live, tmp_path: Path) -> None:
    name, receipt, pem = live.enrol(), tmp_path / "receipt.json", tmp_path / "receipts.pem"
    erase(live, name, receipt)
    assert not live.is_there(name)
    assert receipt.stat().st_mode & 0o077 == 0  # it names a person

    pem.write_text(run("receipts", "public-key", "--url", live.url).stdout)
    offline = run("receipts", "verify", receipt, "--public-key", pem, "--url", "http://127.0.0.1:1")
    asked = run("receipts", "verify", receipt, "--url", live.url)
    for result in (offline, asked):
        assert result.exit_code == 0, result.stderr
        assert name in result.stdout
    assert verified(receipt.read_bytes(), PublicKey.from_pem(pem.read_text()))["subject_id"] == name


def test_a_receipt_with_one_changed_byte_is_refused_by_the_command(live: Live, tmp_path: Path) -> None:
    name, receipt = live.enrol(), tmp_path / "receipt.json"
    erase(live, name, receipt)
    content = receipt.read_bytes()
    for changed in (content.replace(b"person-", b"Person-"), content + b"\n", content[:-2], b""):
        receipt.write_bytes(changed)
        result = run("receipts", "verify", receipt, "--url", live.url)
        assert result.exit_code == 1
        assert "receipt_invalid" in result.stderr


def test_a_key_that_is_none_is_told(live: Live, tmp_path: Path) -> None:
    name, receipt = live.enrol(), tmp_path / "receipt.json"
    erase(live, name, receipt)
    result = run("receipts", "verify", receipt, "--public-key", receipt)
    assert (result.exit_code, "source_unreadable" in result.stderr) == (1, True)


def test_a_lost_answer_is_asked_for_again_with_its_key(live: Live, tmp_path: Path) -> None:
    name = live.enrol()
    erase(live, name, tmp_path / "first.json", "--idempotency-key", "once-a8f1")
    erase(live, name, tmp_path / "again.json", "--idempotency-key", "once-a8f1")
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "again.json").read_bytes()


def test_nobody_is_erased_without_a_place_for_the_receipt_or_a_yes(live: Live, tmp_path: Path) -> None:
    name = live.enrol()
    (tmp_path / "taken.json").write_text("")
    for receipt in (tmp_path / "taken.json", tmp_path / "no-folder" / "receipt.json"):
        result = run("subject", "erase", name, "--receipt", receipt, "--yes", "--url", live.url)
        assert (result.exit_code, "report_unwritable" in result.stderr) == (1, True)
    declined = run("subject", "erase", name, "--receipt", tmp_path / "receipt.json", "--url", live.url)
    assert declined.exit_code == 1
    assert live.is_there(name)


def test_a_refused_erasure_leaves_no_empty_receipt_and_says_what_to_do(live: Live, tmp_path: Path) -> None:
    held = live.enrol()
    assert (
        run("retention", "hold", "default", "--subject", held, "--reason", "appeal", "--url", live.url).exit_code == 0
    )
    for name, code, advice in [("nobody", "subject_not_found", ""), (held, "legal_hold", "biodedup retention lift")]:
        result = run("subject", "erase", name, "--receipt", tmp_path / "r.json", "--yes", "--url", live.url)
        assert (result.exit_code, code in result.stderr, advice in result.stderr) == (1, True, True)
        assert "--idempotency-key" not in result.stderr  # there is no receipt to ask for
        assert list(tmp_path.glob("r.json")) == []


def test_an_erasure_whose_answer_was_lost_says_how_to_ask_again(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> bytes:
        raise CommandFailed("no service answers", "no_service")

    name = live.enrol()
    monkeypatch.setattr(ServiceClient, "erase", lost)
    result = run("subject", "erase", name, "--receipt", tmp_path / "r.json", "--yes", "--url", live.url)
    assert (result.exit_code, "--idempotency-key" in result.stderr) == (1, True)
    assert list(tmp_path.glob("r.json")) == []


@pytest.mark.parametrize("met", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["disk", "ctrl-c"])
def test_a_receipt_that_could_not_be_kept_can_be_asked_for_again(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, met: BaseException
) -> None:
    name, erase_there = live.enrol(), ServiceClient.erase

    def erased_and_lost(client: ServiceClient, path: str, key: str) -> bytes:
        erase_there(client, path, key)
        raise met

    with monkeypatch.context() as broken:
        broken.setattr(ServiceClient, "erase", erased_and_lost)
        result = run("subject", "erase", name, "--receipt", tmp_path / "r.json", "--yes", "--url", live.url)
    assert result.exit_code != 0
    key = result.stderr.replace("\n", " ").split("--idempotency-key")[1].split()[0]
    erase(live, name, tmp_path / "again.json", "--idempotency-key", key)


def test_keys_are_backed_up_beside_the_running_service(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIODEDUP_VAR_DIR", str(live.var))
    live.enrol()
    (tmp_path / "backups").mkdir(mode=0o700)
    old = tmp_path / "backups" / "biodedup-keys-20200101T000000Z.sqlite"
    old.write_text("")
    result = run("keys", "backup", tmp_path / "backups")
    assert result.exit_code == 0, result.stderr
    (path,) = (tmp_path / "backups").iterdir()
    assert path != old
    with closing(sqlite3.connect(path)) as copy:
        assert copy.execute("SELECT count(*) FROM subject_keys").fetchone()[0] > 0

    inside = run("keys", "backup", live.var / "backups")
    assert (inside.exit_code, "folder_unfit" in inside.stderr) == (1, True)
    in_use = run("keys", "restore", path)
    assert (in_use.exit_code, "var_in_use" in in_use.stderr) == (1, True)

    monkeypatch.setenv("BIODEDUP_VAR_DIR", str(tmp_path / "other"))
    restored = run("keys", "restore", path)
    assert restored.exit_code == 0, restored.stderr
    assert (tmp_path / "other" / "keys" / "keys.sqlite").stat().st_mode & 0o777 == 0o600
    again = run("keys", "restore", path)
    assert (again.exit_code, "keys_missing" in again.stderr) == (1, True)


def test_without_a_key_store_there_is_nothing_to_back_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIODEDUP_VAR_DIR", str(tmp_path / "none"))
    result = run("keys", "backup", tmp_path / "backups")
    assert (result.exit_code, "keys_missing" in result.stderr) == (1, True)
    assert not (tmp_path / "none" / "keys" / "keys.sqlite").exists()


def test_a_backup_that_fails_deletes_what_is_too_old_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIODEDUP_VAR_DIR", str(tmp_path / "none"))
    (tmp_path / "backups").mkdir(mode=0o700)
    for year in (2020, 2021):
        (tmp_path / "backups" / f"biodedup-keys-{year}0101T000000Z.sqlite").write_text("")
    assert run("keys", "backup", tmp_path / "backups").exit_code == 1
    assert [each.name[14:18] for each in (tmp_path / "backups").iterdir()] == ["2021"]


def test_the_trail_tells_of_the_erasure_by_the_digest_of_its_receipt(live: Live, tmp_path: Path) -> None:
    name, receipt = live.enrol(), tmp_path / "receipt.json"
    erase(live, name, receipt)
    found = httpx.get(f"{live.url}/v1/galleries/default/audit", params={"event": "subject.erased", "limit": 200}).json()
    digests = [each["details"]["receipt_digest"] for each in found["items"]]
    assert json.loads(receipt.read_bytes())["digest"] in digests
