"""Whatever dies, and whichever backup is restored: who was erased stays erased, or is erased again at the start."""

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.erasure_ledger import LEDGER_FILE, ErasureLedger
from service.errors import IdempotencyKeyReused, LedgerCorrupt, SubjectNotFound
from service.retention_rule import ReportState, RetentionRule
from service.store.sql_store import SqlStore
from tests import postgres
from tests.records import record_of
from tests.retaining import retention_of
from tests.store.building import SQL_KINDS, enrol, new_enrolment, new_gallery, new_template
from tests.test_encrypted_store import bytes_in, keys_in
from tests.world import World

PEOPLE = 6
ERASED = ("s-1", "s-4")


@pytest.fixture(params=SQL_KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/var/biodedup.sqlite"
    return postgres.fresh_database(is_migrated=False)


@pytest.fixture
def var(tmp_path: Path, url: str) -> Path:
    """The folder of a record with some people in it."""
    with record_of(tmp_path / "var", url) as store:
        store.create_gallery(new_gallery())
        for number in range(PEOPLE):
            enrol(store, new_enrolment(f"{number}", templates=[new_template(f"{number}", 0, b"image")]))
    return tmp_path / "var"


def key_of(store: SqlStore, subject_id: str) -> str:
    with store._reading() as connection:
        found = connection.exec_driver_sql(f"SELECT key_id FROM subjects WHERE subject_id = '{subject_id}'")
        return str(found.scalar_one())


def timeline(store: SqlStore) -> str:
    with store.reading() as reading:
        return reading.gallery("camp").timeline_id


def erase(store: SqlStore, subject_id: str) -> None:
    with store.writing("camp") as writing:
        writing.erase_subject(subject_id)


def notes(store: SqlStore) -> int:
    with store._reading() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM key_destructions").scalar_one())


def people(store: SqlStore) -> list[str]:
    return [each.subject_id for each in store.subjects("camp", None, 100).items]


def ledger_of(var: Path) -> ErasureLedger:
    return ErasureLedger(var / "ledger")


@pytest.mark.parametrize("point", ["committed", "half-written", "written", "destroyed", "noted"])
def test_an_erasure_that_died_at_any_point_is_whole_after_the_next_start(url: str, var: Path, point: str) -> None:
    with record_of(var, url) as store:
        key_id = key_of(store, "s-1")
    arguments = [str(var), url, "s-1", point]
    died = subprocess.run([sys.executable, "-m", "tests.dying_erasure", *arguments], check=False, timeout=120)
    assert died.returncode == -signal.SIGKILL

    with record_of(var, url) as store:
        assert people(store) == [f"s-{number}" for number in range(PEOPLE) if number != 1]
        assert notes(store) == 0
        entries = [each for each in store.audit_block("camp", 0, 100) if each.event.startswith("subject.erased")]
        digests = [each.details["receipt_digest"] for each in entries]

    assert keys_in(var, key_id) == ([], [key_id])
    line = ledger_of(var).read()[key_id]
    assert (line.gallery, [line.digest]) == ("camp", digests)


def test_an_erasure_leaves_one_line_that_leads_to_nobody(url: str, var: Path) -> None:
    with record_of(var, url) as store:
        key_id = key_of(store, "s-1")
        with store.writing("camp") as writing:
            record = writing.erase_subject("s-1").record

    (line,) = ledger_of(var).read().values()
    assert (line.key_id, line.gallery, line.receipt_id, line.digest) == (
        key_id,
        "camp",
        record.receipt_id,
        record.digest,
    )
    assert line.time == record.erased_at
    assert "s-1" not in (var / "ledger" / LEDGER_FILE).read_text()


def test_a_key_is_not_destroyed_before_the_ledger_says_so(var: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise KeyboardInterrupt

    with record_of(var, url) as store:
        key_id = key_of(store, "s-1")
        with monkeypatch.context() as full:
            full.setattr(store, "_on_erased", refuse)
            with pytest.raises(KeyboardInterrupt):
                erase(store, "s-1")
        assert keys_in(var, key_id) == ([key_id], [])
        store.finish_erasures()
    assert keys_in(var, key_id) == ([], [key_id])


def back_up(var: Path, url: str, parts: str) -> Callable[[], None]:
    """Keep the record, the key store or both as they are; return what restores them."""
    kept = var.parent / "kept"
    kept.mkdir()
    if "keys" in parts:
        shutil.copytree(var / "keys", kept / "keys")
    is_sqlite = url.startswith("sqlite")
    dump = postgres.programs() / "pg_dump"
    if "record" in parts and is_sqlite:
        shutil.copy(var / "biodedup.sqlite", kept)
    elif "record" in parts:
        subprocess.run([dump, "-c", "-d", url, "-f", kept / "dump.sql"], check=True, timeout=60)

    def restore() -> None:
        if "keys" in parts:
            shutil.rmtree(var / "keys")
            shutil.copytree(kept / "keys", var / "keys")
        if "record" in parts and is_sqlite:
            shutil.copy(kept / "biodedup.sqlite", var)
        elif "record" in parts:
            command = [str(dump.with_name("psql")), "-q", "-d", url, "-f", str(kept / "dump.sql")]
            subprocess.run(command, check=True, timeout=60, stdout=subprocess.DEVNULL)

    return restore


@pytest.mark.parametrize("parts", ["record", "keys", "record and keys"])
def test_a_restore_brings_back_nobody_who_was_erased(url: str, var: Path, parts: str) -> None:
    restore = back_up(var, url, parts)
    with record_of(var, url) as store:
        keys = [key_of(store, each) for each in ERASED]
        for each in ERASED:
            erase(store, each)
        timeline = store.galleries()[0].timeline_id
    digests = {line.digest for line in ledger_of(var).read().values()}
    restore()
    with closing(sqlite3.connect(var / "keys" / "keys.sqlite")) as connection:
        back = connection.execute("SELECT count(*) FROM subject_keys WHERE key_id IN (?, ?)", keys).fetchone()
    assert back == ((2,) if "keys" in parts else (0,))

    with record_of(var, url) as store:
        assert people(store) == [f"s-{number}" for number in range(PEOPLE) if f"s-{number}" not in ERASED]
        with store.reading() as reading:
            assert len(reading.references_after("camp", 0, 10**9, 100)) == PEOPLE - 2
        assert (store.galleries()[0].timeline_id != timeline) == ("record" in parts)
        again = [each for each in store.audit_block("camp", 0, 100) if each.event == "subject.erased_again"]
        assert len(again) == (2 if "record" in parts else 0)
        assert {each.details["receipt_digest"] for each in again} <= digests
        assert notes(store) == 0
        with pytest.raises(SubjectNotFound):
            store.subject("camp", "s-1")
    assert [keys_in(var, each) for each in keys] == [([], [each]) for each in keys]

    with record_of(var, url) as store:
        events = [each.event for each in store.audit_block("camp", 0, 100)]
    assert events.count("subject.erased_again") == len(again)


def test_a_restore_is_replayed_where_the_process_dies_in_the_middle(
    url: str, var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore = back_up(var, url, "record and keys")
    with record_of(var, url) as store:
        for each in ERASED:
            erase(store, each)
        timeline = store.galleries()[0].timeline_id
    restore()
    with monkeypatch.context() as stopped:
        stopped.setattr(SqlStore, "erase_again", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt), record_of(var, url):
            pass

    with record_of(var, url) as store:
        assert set(people(store)).isdisjoint(ERASED)
        assert store.galleries()[0].timeline_id != timeline


def test_a_ledger_that_was_lost_is_made_again_of_the_key_store(url: str, var: Path) -> None:
    restore = back_up(var, url, "record")
    with record_of(var, url) as store:
        keys = [key_of(store, each) for each in ERASED]
        for each in ERASED:
            erase(store, each)
    (var / "ledger" / LEDGER_FILE).unlink()
    restore()

    with record_of(var, url) as store:
        assert set(people(store)).isdisjoint(ERASED)
    assert set(ledger_of(var).read()) == set(keys)


def test_with_a_damaged_ledger_nothing_starts_and_nothing_is_written(url: str, var: Path) -> None:
    with record_of(var, url) as store:
        erase(store, "s-1")
        erase(store, "s-4")
    path = var / "ledger" / LEDGER_FILE
    path.write_text(path.read_text().replace("camp", "cam", 1).replace("receipt_id", "receipt-id", 1))
    before = bytes_in(var)

    with pytest.raises(LedgerCorrupt, match="line 1"), record_of(var, url):
        pass

    assert bytes_in(var) == before


def test_who_is_enrolled_again_after_an_erasure_stays(url: str, var: Path) -> None:
    with record_of(var, url) as store:
        erase(store, "s-1")
        enrol(store, new_enrolment("again", "s-1"))
    for _ in range(2):
        with record_of(var, url) as store:
            assert "s-1" in people(store)


@pytest.mark.parametrize("enrolled", ["before the backup", "after the backup"])
def test_a_repeat_after_a_restore_gets_the_same_receipt_and_erases_nobody_anew(
    url: str, var: Path, enrolled: str
) -> None:
    with record_of(var, url) as store:
        world = World.beside(store)
        subject_id = "s-1" if enrolled == "before the backup" else "s-late"
        restore = back_up(var, url, "record")
        if enrolled == "after the backup":
            enrol(store, new_enrolment("late"))
        first = world.erasure.erase_subject("camp", subject_id, "once")
        erase(store, "s-4")  # without a key: nobody can repeat it
    restore()

    for _ in range(2):  # the second start finds what the first wrote
        with record_of(var, url) as store:
            if subject_id not in people(store):
                enrol(store, new_enrolment("anew", subject_id))
            again = World.beside(store).erasure.erase_subject("camp", subject_id, "once")
            assert again.receipt == first.receipt
            assert subject_id in people(store)
            with pytest.raises(IdempotencyKeyReused):
                World.beside(store).erasure.erase_subject("camp", "s-2", "once")


@pytest.mark.parametrize("is_begun", [False, True])
def test_a_retention_run_that_came_back_with_a_backup_is_withdrawn(url: str, var: Path, is_begun: bool) -> None:
    rule = RetentionRule("camp", campaign_ends_at=datetime(2026, 1, 1, tzinfo=UTC), automatic=True)
    with record_of(var, url) as store:
        retention = retention_of(World.beside(store), store)
        retention.set_rule(rule)
        retention.look()
        (report,) = retention.reports("camp", None, 9).items
        if is_begun:
            retention.run("camp", report.report_id)
    with record_of(var, url) as store:  # a start alone withdraws nothing
        retention = retention_of(World.beside(store), store)
        going_on = ReportState.RUNNING if is_begun else ReportState.MADE
        assert retention.report_of("camp", report.report_id).state is going_on
        restore = back_up(var, url, "record")
        enrol(store, new_enrolment("late"))  # of whom the restored record knows nothing
        erase(store, "s-late")
    restore()

    with record_of(var, url) as store:
        retention = retention_of(World.beside(store), store)
        withdrawn = ReportState.FAILED if is_begun else ReportState.SUPERSEDED
        assert retention.report_of("camp", report.report_id).state is withdrawn
        assert (retention.unfinished(), len(people(store))) == ([], PEOPLE)
        anew = retention.report("camp")
    with record_of(var, url) as store:  # and the next start finds nothing more
        assert retention_of(World.beside(store), store).report_of("camp", anew.report_id).state is ReportState.MADE


def test_a_restore_that_brings_nobody_back_begins_another_history_too(url: str, var: Path) -> None:
    with record_of(var, url) as store:
        restore = back_up(var, url, "record")
        before = timeline(store)
        enrol(store, new_enrolment("late"))  # in no backup, and its templates may be in an index
        erase(store, "s-late")
    restore()
    with record_of(var, url) as store:
        after = timeline(store)
    assert after != before
    with record_of(var, url) as store:
        assert timeline(store) == after


def test_two_erasures_by_one_request_in_joined_ledgers_do_not_stop_the_start(url: str, var: Path) -> None:
    ledger, parts = var / "ledger" / LEDGER_FILE, []
    with record_of(var, url):
        restore = back_up(var, url, "record")
    for _ in range(2):  # a ledger is lost with the record, and the request is repeated
        restore()
        ledger.unlink(missing_ok=True)
        with record_of(var, url) as store:
            enrol(store, new_enrolment("late"))
            World.beside(store).erasure.erase_subject("camp", "s-late", "once")
        parts.append(ledger.read_bytes())
    ledger.write_bytes(b"".join(parts))
    restore()
    for _ in range(2):
        with record_of(var, url) as store:
            assert len(people(store)) == PEOPLE


def test_of_two_processes_that_start_at_once_one_replays_and_the_other_finds_it_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, var = postgres.fresh_database(is_migrated=False), tmp_path / "var"
    with record_of(var, url) as store:
        store.create_gallery(new_gallery())
        enrol(store, new_enrolment("1"))
        restore = back_up(var, url, "record")
        erase(store, "s-1")
    restore()
    renewed: list[SqlStore] = []
    others: list[Future[list[str]]] = []
    renew = SqlStore.renew_timelines

    def start_another(store: SqlStore) -> None:
        renewed.append(store)
        if len(renewed) == 1:
            others.append(pool.submit(started, var, url))
            wait_until_one_waits(store)
        renew(store)

    monkeypatch.setattr(SqlStore, "renew_timelines", start_another)
    with ThreadPoolExecutor(1) as pool:
        assert started(var, url) == []
        assert others[0].result(timeout=60) == []
    assert len(renewed) == 1


def started(var: Path, url: str) -> list[str]:
    with record_of(var, url) as store:
        return people(store)


def wait_until_one_waits(store: SqlStore) -> None:
    for _ in range(100):
        with store._reading() as connection:
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            if connection.exec_driver_sql(waiting).scalar_one():
                return
        time.sleep(0.1)
    raise AssertionError("the other process does not wait")


def test_a_replay_leaves_alone_who_was_enrolled_anew_since_it_looked(url: str, var: Path) -> None:
    with record_of(var, url) as store:
        key_id = key_of(store, "s-1")
        erase(store, "s-1")
        enrol(store, new_enrolment("again", "s-1"))
        line = ledger_of(var).read()[key_id]
        store.erase_again("camp", "s-1", line)  # as another process does that had read the restored record before
        assert "s-1" in people(store)
