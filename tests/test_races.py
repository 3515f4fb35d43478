"""Two desks, one person, the same moment: at least one of the two enrolments is flagged, every time."""

from collections.abc import Callable
from pathlib import Path

import pytest

from service.store.sql_store import SqlStore
from tests.postgres import fresh_database
from tests.race import Race, Report, Trouble, gallery, run_processes, run_threads

Run = Callable[[Race], Report]


def prepared(url: str) -> str:
    store = SqlStore(url)
    store.migrate()
    store.create_gallery(gallery())
    store.close()
    return url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return prepared(f"sqlite:///{tmp_path}/race.db")


@pytest.fixture
def fresh_postgres() -> str:
    return prepared(fresh_database())


def assert_nobody_slipped_through(report: Report, pairs: int) -> None:
    assert len(report.pairs) == pairs
    assert report.failed == 0
    assert report.missed == 0


TROUBLE = [
    pytest.param(Trouble(), id="calm"),
    pytest.param(Trouble(unruly_index=True), id="index-updates-lost-late-and-reordered"),
    pytest.param(Trouble(erasures=True), id="erasures-between-search-and-commit"),
    pytest.param(Trouble(unruly_index=True, erasures=True), id="all-of-it"),
]


@pytest.mark.parametrize("trouble", TROUBLE)
def test_two_threads_on_sqlite_never_miss_each_other(sqlite_url: str, trouble: Trouble) -> None:
    assert_nobody_slipped_through(run_threads(Race(sqlite_url, 25, trouble)), 25)


@pytest.mark.postgres
@pytest.mark.parametrize("trouble", TROUBLE)
def test_two_threads_on_postgres_never_miss_each_other(fresh_postgres: str, trouble: Trouble) -> None:
    assert_nobody_slipped_through(run_threads(Race(fresh_postgres, 25, trouble)), 25)


@pytest.mark.postgres
@pytest.mark.parametrize("trouble", TROUBLE)
def test_two_processes_on_postgres_never_miss_each_other(fresh_postgres: str, trouble: Trouble) -> None:
    assert_nobody_slipped_through(run_processes(Race(fresh_postgres, 25, trouble)), 25)


def test_the_race_catches_a_missing_comparison_inside_the_transaction(sqlite_url: str) -> None:
    assert run_threads(Race(sqlite_url, 10, blind=True)).missed == 10


@pytest.mark.postgres
def test_the_race_catches_a_missing_comparison_between_processes(fresh_postgres: str) -> None:
    assert run_processes(Race(fresh_postgres, 10, blind=True)).missed == 10


@pytest.mark.postgres
def test_the_race_catches_another_isolation_level(fresh_postgres: str) -> None:
    report = run_threads(Race(fresh_postgres, 10, isolation_level="REPEATABLE READ"))
    assert report.missed + report.failed >= 10


@pytest.mark.soak
@pytest.mark.postgres
@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize("run", [run_threads, run_processes])
def test_a_thousand_pairs_never_miss_each_other(fresh_postgres: str, run: Run, trouble: Trouble) -> None:
    assert_nobody_slipped_through(run(Race(fresh_postgres, 1000, trouble)), 1000)


@pytest.mark.soak
@pytest.mark.parametrize("trouble", TROUBLE)
def test_a_thousand_pairs_of_threads_on_sqlite_never_miss_each_other(sqlite_url: str, trouble: Trouble) -> None:
    assert_nobody_slipped_through(run_threads(Race(sqlite_url, 1000, trouble)), 1000)
