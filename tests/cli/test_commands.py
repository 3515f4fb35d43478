"""The commands that ask a running service, and `serve` itself."""

import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from benchmarks.recapture import recapture
from service.domain import Gallery
from service.face.extractor import template_model_id
from service.face.model_packs import installed_pack
from service.store.sql_store import SqlStore
from tests.cli.conftest import run
from tests.faces import face_of, to_jpeg
from tests.records import record_of
from tests.server import Server, free_port
from tests.store.building import enrol, new_enrolment

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def people(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photographs; ada and bob are enrolled in the gallery `people`."""
    folder = tmp_path_factory.mktemp("people")
    for person, name in enumerate(("ada", "bob")):
        (folder / "enrolled" / name).mkdir(parents=True)
        (folder / "enrolled" / name / "1.jpg").write_bytes(to_jpeg(face_of(person)))
    (folder / "ada-again.jpg").write_bytes(recapture(face_of(0), seed=3))
    (folder / "stranger.jpg").write_bytes(to_jpeg(face_of(4)))
    (folder / "no-face.jpg").write_bytes(to_jpeg(face_of(0).crop((0, 0, 60, 60))))
    assert run("gallery", "create", "people", "--url", server.url).exit_code == 0
    arguments = ("-g", "people", "--url", server.url, "--journal", folder / "journal.jsonl")
    assert run("enrol", folder / "enrolled", *arguments).exit_code == 0
    return folder


@pytest.fixture
def here(server: Server, people: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BIODEDUP_URL", server.url)
    return people


def test_identify_names_an_enrolled_person_and_leaves_the_decision_to_a_human(here: Path) -> None:
    result = run("identify", here / "ada-again.jpg", "-g", "people")
    assert result.exit_code == 0
    for words in ("Candidates", "Possibly ada", "is at or above the threshold", "1 in", "A person must decide"):
        assert words in result.stdout


def test_identify_says_what_a_search_without_candidates_may_have_missed(here: Path) -> None:
    result = run("identify", here / "stranger.jpg", "-g", "people")
    assert result.exit_code == 0
    assert "Not found among 2 templates" in result.stdout
    assert "expected to miss" in result.stdout


def test_identify_is_judged_by_what_is_said_of_the_person(here: Path, server: Server) -> None:
    assert run("gallery", "create", "men", "--filter-by-sex").exit_code == 0
    url = f"{server.url}/v1/galleries/men/enrolments"
    for name in ("ada", "bob"):
        sample = (here / "enrolled" / name / "1.jpg").read_bytes()
        httpx.post(url, files={"sample": sample}, data={"sex": "male"}, timeout=60).raise_for_status()
    unknown = run("identify", here / "stranger.jpg", "-g", "men")
    woman = run("identify", here / "stranger.jpg", "-g", "men", "--sex", "female", "--birth-year", "1990")
    assert (unknown.exit_code, woman.exit_code) == (0, 0)
    scores = [re.findall(r"nobody scores ([\d.]+)", " ".join(each.stdout.split())) for each in (unknown, woman)]
    assert float(scores[0][0]) > float(scores[1][0])


def test_identify_says_when_there_was_nobody_to_compare_with(here: Path) -> None:
    result = run("identify", here / "ada-again.jpg")
    assert result.exit_code == 0
    assert "There was nobody to compare with" in result.stdout
    assert "gallery list" in result.stdout
    assert "Not found" not in result.stdout


def test_a_photograph_without_a_face_says_what_to_do(here: Path) -> None:
    result = run("identify", here / "no-face.jpg", "-g", "people")
    assert result.exit_code == 1
    assert "(no_face)" in result.stderr
    assert len(result.stderr.splitlines()) == 2


def test_verify_compares_with_a_subject_or_a_second_photograph(here: Path) -> None:
    again, first = here / "ada-again.jpg", here / "enrolled" / "ada" / "1.jpg"
    assert "Match with subject ada: score" in run("verify", again, "-s", "ada", "-g", "people").stdout
    assert "No match with subject bob: score" in run("verify", again, "-s", "bob", "-g", "people").stdout
    assert "Match with the second photograph" in run("verify", again, first, "-g", "people").stdout


def test_verify_takes_its_own_error_rate(here: Path) -> None:
    arguments = ("-s", "ada", "-g", "people", "--verification-fmr", "1e-5")
    assert "accepts 1 in 100,000 pairs" in run("verify", here / "ada-again.jpg", *arguments).stdout


def test_verify_with_an_unknown_subject_fails_with_its_code(here: Path) -> None:
    result = run("verify", here / "ada-again.jpg", "-s", "nobody", "-g", "people")
    assert result.exit_code == 1
    assert "(subject_not_found)" in result.stderr


@pytest.mark.usefixtures("here")
def test_stats_show_outcomes_thresholds_misses_and_the_index() -> None:
    result = run("stats")
    assert result.exit_code == 0
    assert "is ready." in result.stdout
    for words in ("Gallery people", "UNIQUE 2", "review from score", "expected misses", "in step with the record"):
        assert words in result.stdout


@pytest.mark.usefixtures("here")
def test_a_gallery_is_made_listed_shown_and_set(gallery: str) -> None:
    assert gallery in run("gallery", "list").stdout
    changed = run("gallery", "set", gallery, "--review-fpir", "0.05", "--keep-samples")
    assert changed.exit_code == 0
    shown = run("gallery", "show", gallery).stdout
    assert shown == changed.stdout
    assert "5 % false alarms" in shown
    assert [line.split()[-2] for line in shown.splitlines() if "photographs kept" in line] == ["yes"]
    again = run("gallery", "create", gallery)
    assert again.exit_code == 1
    assert "(gallery_exists)" in again.stderr


def test_check_beside_a_running_service_asks_it(here: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIODEDUP_MODELS_DIR", str(models_dir))
    result = run("check")
    assert result.exit_code == 0, result.stdout
    assert "the service says: in order" in result.stdout


def test_check_says_what_would_be_in_one_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIODEDUP_VAR_DIR", str(tmp_path / "var"))
    for name, value, said in [
        ("LEDGER_DIR", str(tmp_path / "ledger"), "the record, the key store, the master key lie in one folder"),
        ("MASTER_KEY_SOURCE", "env", "the record, the key store lie in one folder"),
        (
            "KEY_DATABASE_URL",
            f"sqlite:///{tmp_path}/keys.sqlite",
            "the record, its keys and the ledger of erasures lie apart",
        ),
    ]:
        monkeypatch.setenv(f"BIODEDUP_{name}", value)
        lines = run("check", "--url", "http://127.0.0.1:9").stdout.splitlines()
        assert [line for line in lines if " backups " in line and line.endswith(said)], lines


def test_check_leaves_a_database_alone_that_a_service_owns(
    server: Server, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    var_dir = server.log_path.parent / "var"
    monkeypatch.setenv("BIODEDUP_MODELS_DIR", str(models_dir))
    monkeypatch.setenv("BIODEDUP_VAR_DIR", str(var_dir))
    result = run("check", "--url", "http://127.0.0.1:9")
    assert result.exit_code == 0, result.stdout
    assert f"in use by process {server.process.pid}, which serves at {server.url}" in result.stdout
    assert "warn  service" in result.stdout


def test_check_fails_where_something_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIODEDUP_MODELS_DIR", str(tmp_path))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BIODEDUP_VAR_DIR", str(tmp_path / "file" / "var"))
    result = run("check", "--url", "http://127.0.0.1:9")
    assert result.exit_code == 1
    failed = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("fail")]
    assert failed == ["var", "model", "calibration"]


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models_dir: Path) -> Iterator[SqlStore]:
    """The record of a service that does not run."""
    (tmp_path / "var").mkdir(mode=0o700)
    monkeypatch.setenv("BIODEDUP_VAR_DIR", str(tmp_path / "var"))
    monkeypatch.setenv("BIODEDUP_MODELS_DIR", str(models_dir))
    with closing(SqlStore(f"sqlite:///{tmp_path / 'var' / 'biodedup.sqlite'}")) as store:
        store.migrate()
        yield store


def a_gallery(pack_id: str) -> Gallery:
    return Gallery("camp", pack_id, 0.01, 0.001, 1e-3, keep_samples=False, created_at=datetime.now(UTC))


def failed_lines(*, exit_code: int) -> list[str]:
    result = run("check", "--url", f"http://127.0.0.1:{free_port()}")
    assert result.exit_code == exit_code, result.stdout
    return [line for line in result.stdout.splitlines() if line.startswith("fail")]


def test_check_finds_the_licence_that_serve_would_refuse_a_gallery_for(
    record: SqlStore, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record.create_gallery(a_gallery("buffalo_s"))

    [line] = failed_lines(exit_code=1)

    with serve(tmp_path / "var", models_dir, 0) as process:
        _, errors = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "(pack_licence_not_accepted)" in deliberate(errors)[0]
    assert line.startswith("fail  model pack    buffalo_s: ")
    assert line.endswith("BIODEDUP_ACCEPTED_LICENCES=buffalo_s; needed by camp (pack_licence_not_accepted)")
    monkeypatch.setenv("BIODEDUP_ACCEPTED_LICENCES", "buffalo_s")
    assert failed_lines(exit_code=0) == []


def test_check_finds_the_standby_pack_of_a_gallery_that_is_not_there(record: SqlStore, models_dir: Path) -> None:
    own_model_id = template_model_id(installed_pack(models_dir, "opencv-zoo", accepted_licences=frozenset()))
    record.create_gallery(a_gallery("opencv-zoo"))
    with record.migrating("camp") as migrating:
        migrating.begin_migration("no-such-pack", "no-such-pack@1", own_model_id)
    pack, calibration = failed_lines(exit_code=1)
    assert pack.endswith("; needed by camp (pack_unknown)")
    assert calibration.startswith("fail  calibration   no-such-pack has none")


def test_check_finds_a_gallery_of_another_model(record: SqlStore, models_dir: Path, tmp_path: Path) -> None:
    record.create_gallery(a_gallery("opencv-zoo"))
    with closing(sqlite3.connect(tmp_path / "var" / "biodedup.sqlite")) as connection, connection:
        connection.execute("UPDATE galleries SET model_id = 'opencv-zoo@before'")

    [line] = failed_lines(exit_code=1)

    with serve(tmp_path / "var", models_dir, 0) as process:
        _, errors = process.communicate(timeout=90)
    assert "(pack_mismatch)" in deliberate(errors)[0]
    assert line.startswith("fail  gallery       camp holds templates of opencv-zoo@before")
    assert line.endswith("(pack_mismatch)")


def test_check_finds_that_a_start_would_lack_the_keys_and_makes_none(record: SqlStore, tmp_path: Path) -> None:
    record.close()
    var = tmp_path / "var"
    with record_of(var) as encrypted:
        encrypted.create_gallery(a_gallery("opencv-zoo"))
        assert encrypted.key_store_id() is not None
        enrol(encrypted, new_enrolment("a", templates=[]))
    result = run("check", "--url", f"http://127.0.0.1:{free_port()}")
    assert "fail" not in result.stdout
    for lost, code in (("master.key", "master_key_unusable"), ("keys", "keys_missing")):
        (var / lost).rename(tmp_path / lost)
        [line] = failed_lines(exit_code=1)
        assert line.startswith("fail  keys")
        assert f"({code})" in line
        assert not (var / lost).exists()
        (tmp_path / lost).rename(var / lost)
    (var / "ledger" / "erasures.jsonl").write_text("damaged\n")
    [line] = failed_lines(exit_code=1)
    assert line.startswith("fail  ledger")
    assert "(ledger_corrupt)" in line


def test_check_says_what_is_wrong_with_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIODEDUP_REVIEW_FPIR", "much")
    result = run("check")
    assert result.exit_code == 1
    assert result.stdout.startswith("fail  settings      BIODEDUP_REVIEW_FPIR")


def test_the_models_are_listed_and_verified(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIODEDUP_MODELS_DIR", str(models_dir))
    assert "opencv-zoo" in run("models", "list").stdout
    assert run("models", "verify").stdout.splitlines() == ["buffalo_s: intact", "opencv-zoo: intact"]
    assert run("models", "verify", "opencv-zoo").stdout.startswith(
        "opencv-zoo: intact, its templates are of opencv-zoo@"
    )
    assert run("models", "path", "opencv-zoo").stdout == f"{models_dir / 'opencv-zoo'}\n"
    assert "installed and intact" in run("models", "fetch", "opencv-zoo").stdout


def serve(var_dir: Path, models_dir: Path, port: int, **settings: str) -> "subprocess.Popen[str]":
    names = {"BIODEDUP_VAR_DIR": str(var_dir), "BIODEDUP_MODELS_DIR": str(models_dir), "BIODEDUP_PORT": str(port)}
    settings = {"BIODEDUP_AUTH": "off", **settings}
    command = [sys.executable, "-m", "service", "serve"]
    return subprocess.Popen(
        command, env={**names, **settings}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def deliberate(errors: str) -> list[str]:
    """Standard error without the log."""
    return [line for line in errors.splitlines() if not line.startswith("{")]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_serve_says_where_it_listens_and_ends_cleanly_on_a_signal(
    models_dir: Path, tmp_path: Path, how: signal.Signals
) -> None:
    with serve(tmp_path / "var", models_dir, 0) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(7)]
        process.send_signal(how)
        _, errors = process.communicate(timeout=90)
    assert said[0].startswith("biodedup listens on http://127.0.0.1:")
    assert "/docs" in said[1]
    assert "nobody is asked who they are" in said[-2]
    assert said[-1] == "Stop with Ctrl-C.\n"
    assert process.returncode == 0
    assert deliberate(errors) == []


def test_a_taken_port_is_said_in_one_line(models_dir: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with serve(tmp_path / "var", models_dir, port) as process:
            _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert deliberate(errors)[0] == f"error: 127.0.0.1 port {port} is taken by another program (address_unusable)"


def test_a_folder_that_another_service_owns_is_said_in_one_line(server: Server, models_dir: Path) -> None:
    var_dir = server.log_path.parent / "var"
    for port in (0, server.port):
        with serve(var_dir, models_dir, port) as process:
            _, errors = process.communicate(timeout=90)
        assert process.returncode == 1
        [line, advice] = deliberate(errors)
        assert line.startswith(f"error: process {server.process.pid} serves this folder at {server.url}")
        assert line.endswith("(var_in_use)")
        assert "BIODEDUP_VAR_DIR" in advice
        assert "BIODEDUP_VAR_DIR" not in line


def test_an_address_that_others_reach_is_warned_of(models_dir: Path, tmp_path: Path) -> None:
    with serve(tmp_path / "var", models_dir, 0, BIODEDUP_HOST="0.0.0.0", BIODEDUP_AUTH="on") as process:
        assert process.stdout is not None
        while "listens on" not in process.stdout.readline():
            assert process.poll() is None
        process.terminate()
        _, errors = process.communicate(timeout=90)
    assert deliberate(errors)[0].startswith("warning: listening on 0.0.0.0 without encryption.")


def test_whoever_asks_nobody_is_reached_from_this_machine_alone(models_dir: Path, tmp_path: Path) -> None:
    with serve(tmp_path / "var", models_dir, 0, BIODEDUP_HOST="0.0.0.0", BIODEDUP_AUTH="off") as process:
        _, errors = process.communicate(timeout=90)
    assert process.returncode == 1
    line, _ = deliberate(errors)
    assert line.startswith("error: BIODEDUP_AUTH=off asks nobody who they are, so BIODEDUP_HOST must be an address of")
    assert line.endswith("(settings_invalid)")
    assert not (tmp_path / "var").exists()


def test_a_gallery_s_filter_and_ages_are_set_and_shown(here: Path) -> None:
    assert run("gallery", "create", "camp-filter", "--filter-by-sex", "--min-duplicate-age", "12").exit_code == 0
    options = ("--filter-by-birth-year", "--birth-year-tolerance", "3", "--review-unknown-age")
    result = run("gallery", "set", "camp-filter", *options)
    assert result.exit_code == 0
    shown = run("gallery", "show", "camp-filter").stdout
    for words in ("by sex and year of birth, 3 years", "not known: of nobody", "age 12; unknown age: at most REVIEW"):
        assert words in shown
    assert run("gallery", "set", "camp-filter", "--no-filter-by-sex", "--no-filter-by-birth-year").exit_code == 0
    assert "off" in run("gallery", "show", "camp-filter").stdout
