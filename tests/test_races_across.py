"""Two desks of two galleries, one person, the same moment: where each names the other's gallery, one is flagged."""

from pathlib import Path

import pytest

from service.store.sql_store import SqlStore
from tests.postgres import fresh_database
from tests.race import Race, Report, Trouble, gallery, run_processes, run_threads
from tests.test_races import TROUBLE

MUTUAL = (("south",), ("north",))
# three galleries, named in an order that is not that of the locks
THREE = (("south", "east"), ("north", "east"))
NAMED = [pytest.param(MUTUAL, id="two-galleries"), pytest.param(THREE, id="three-galleries")]
CALM_AND_ALL = [TROUBLE[0], TROUBLE[-1]]
Also = tuple[tuple[str, ...], tuple[str, ...]]


def prepared(url: str) -> str:
    store = SqlStore(url)
    store.migrate()
    for name in ("north", "south", "east"):
        store.create_gallery(gallery(name))
    store.close()
    return url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return prepared(f"sqlite:///{tmp_path}/race.db")


@pytest.fixture
def fresh_postgres() -> str:
    return prepared(fresh_database())


def race(url: str, pairs: int, trouble: Trouble = Trouble(), *, also: Also = MUTUAL, blind: bool = False) -> Race:  # noqa: B008  frozen
    return Race(url, pairs, trouble, blind=blind, galleries=("north", "south"), also=also)


def assert_nobody_slipped_through(report: Report, pairs: int) -> None:
    assert len(report.pairs) == pairs
    assert report.failed == 0
    assert report.missed == 0


@pytest.mark.parametrize("also", NAMED)
@pytest.mark.parametrize("trouble", CALM_AND_ALL)
def test_two_galleries_on_sqlite_never_miss_each_other(sqlite_url: str, trouble: Trouble, also: Also) -> None:
    assert_nobody_slipped_through(run_threads(race(sqlite_url, 15, trouble, also=also)), 15)


@pytest.mark.postgres
@pytest.mark.parametrize("also", NAMED)
@pytest.mark.parametrize("trouble", CALM_AND_ALL)
def test_two_galleries_on_postgres_never_miss_each_other(fresh_postgres: str, trouble: Trouble, also: Also) -> None:
    assert_nobody_slipped_through(run_threads(race(fresh_postgres, 15, trouble, also=also)), 15)


@pytest.mark.postgres
def test_two_processes_on_postgres_never_miss_each_other(fresh_postgres: str) -> None:
    trouble = Trouble(unruly_index=True, erasures=True)
    assert_nobody_slipped_through(run_processes(race(fresh_postgres, 15, trouble, also=THREE)), 15)


def test_the_race_catches_a_missing_comparison(sqlite_url: str) -> None:
    assert run_threads(race(sqlite_url, 5, blind=True)).missed == 5


@pytest.mark.postgres
def test_the_race_catches_that_nobody_names_the_other(fresh_postgres: str) -> None:
    assert run_threads(race(fresh_postgres, 5, also=((), ()))).missed == 5


@pytest.mark.soak
@pytest.mark.postgres
@pytest.mark.parametrize("also", NAMED)
def test_a_thousand_pairs_of_two_galleries_never_miss_each_other(fresh_postgres: str, also: Also) -> None:
    trouble = Trouble(unruly_index=True, erasures=True)
    assert_nobody_slipped_through(run_threads(race(fresh_postgres, 1000, trouble, also=also)), 1000)
