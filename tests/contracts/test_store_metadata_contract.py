"""What every store knows of sexes, years of birth and ages: right counts, and nothing that outlives people."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select

from service.domain import (
    Band,
    CaptureFacts,
    EncounterFacts,
    EncounterStatus,
    MetadataAgreement,
    SearchFilter,
)
from service.store.sql_store import SqlStore
from service.store.tables import metadata_counts
from tests.importing import block_of, source_of
from tests.store.building import (
    KINDS,
    SQL_KINDS,
    AnyStore,
    Clock,
    candidate_of,
    enrol,
    new_enrolment,
    new_gallery,
    new_template,
    open_store,
)

WOMEN = Band("female", None)
BORN_1990 = Band(None, (1985, 1995))


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyStore]:
    yield from open_store(request.param, tmp_path, Clock())


def of(sex: str | None = None, birth_year: int | None = None) -> EncounterFacts:
    return EncounterFacts(sex=sex, birth_year=birth_year)


def left_out(store: AnyStore, band: Band) -> int:
    with store.reading() as tx:
        return tx.left_out("camp", band)


def set_status(store: AnyStore, encounter_id: str, status: EncounterStatus) -> None:
    with store.writing("camp") as tx:
        tx.set_encounter_status(encounter_id, status)


def erase(store: AnyStore, subject_id: str) -> None:
    with store.writing("camp") as tx:
        tx.erase_subject(subject_id)


def rows(store: AnyStore) -> int:
    """Rows of counts; a fake has none."""
    if not isinstance(store, SqlStore):
        return 0
    with store._engine.connect() as connection:
        return len(connection.execute(select(metadata_counts)).all())


def test_only_who_is_known_to_be_outside_is_left_out(store: AnyStore) -> None:
    people = [
        of("male", 1990), of("female", 1990), of(None, 1990), of("other", 1990), of("unknown"),
        of("male"), of("female", 1984), of("male", 1996), of("female", 1985), of(None, 1995), of(),
    ]  # fmt: skip
    for number, facts in enumerate(people):
        enrol(store, new_enrolment(f"{number}", facts=facts))

    assert left_out(store, WOMEN) == 3
    assert left_out(store, BORN_1990) == 2
    assert left_out(store, Band("male", (1985, 1995))) == 4
    assert left_out(store, Band("male", None)) == 3


def test_every_template_of_an_encounter_counts(store: AnyStore) -> None:
    enrol(store, new_enrolment("a", templates=[new_template("a", 0), new_template("a2", 1)], facts=of("male")))
    enrol(store, new_enrolment("b", templates=[], facts=of("male"), biometric_exception="no hands"))

    assert left_out(store, WOMEN) == 2


def test_galleries_are_counted_apart(store: AnyStore) -> None:
    store.create_gallery(new_gallery("other"))
    enrol(store, new_enrolment("a", facts=of("male")), "other")

    assert left_out(store, WOMEN) == 0


def test_counts_follow_each_encounter_out_of_the_search_and_back(store: AnyStore) -> None:
    enrol(store, new_enrolment("a", facts=of("male", 1970)))
    counts = [left_out(store, WOMEN)]
    for status in (EncounterStatus.INACTIVE, EncounterStatus.ACTIVE, EncounterStatus.WITHDRAWN):
        set_status(store, "e-a", status)
        counts.append(left_out(store, WOMEN))

    assert counts == [1, 0, 1, 0]
    assert rows(store) == 0


def test_nothing_is_counted_twice_where_an_inactive_encounter_goes(store: AnyStore) -> None:
    for name in ("a", "b", "c"):
        enrol(store, new_enrolment(name, facts=of("male", 1970)))
    set_status(store, "e-a", EncounterStatus.INACTIVE)
    set_status(store, "e-a", EncounterStatus.WITHDRAWN)
    set_status(store, "e-b", EncounterStatus.INACTIVE)
    erase(store, "s-b")

    assert left_out(store, BORN_1990) == 1
    erase(store, "s-c")
    assert left_out(store, BORN_1990) == 0
    assert rows(store) == 0


@pytest.mark.parametrize("store", SQL_KINDS, indirect=True)
def test_an_imported_template_is_of_nobody_known(store: AnyStore) -> None:
    assert isinstance(store, SqlStore)
    enrol(store, new_enrolment("a", facts=of("male", 1970)))
    store.import_block("camp", source_of(), block_of("x", "y"))

    assert left_out(store, WOMEN) == left_out(store, BORN_1990) == 1


def test_a_reference_knows_the_capture_it_comes_from(store: AnyStore) -> None:
    at = datetime(2026, 2, 1, tzinfo=UTC)
    enrolled = enrol(store, new_enrolment("a", facts=EncounterFacts(captured_at=at, sex="female", birth_year=2001)))

    with store.reading() as tx:
        (reference,) = tx.subject_references("camp", "s-a")
    assert reference.capture == CaptureFacts("female", 2001, at, enrolled.created_at)


def test_the_settings_of_a_gallery_come_back(store: AnyStore) -> None:
    wanted = replace(
        new_gallery("other"),
        filter_by_sex=True,
        filter_by_birth_year=True,
        birth_year_tolerance=2,
        min_duplicate_age=12,
        review_unknown_age=True,
    )
    updated = store.update_gallery("camp", lambda _: wanted)
    created = store.create_gallery(wanted)

    for found in (updated, created):
        settings = (found.filter_by_sex, found.filter_by_birth_year, found.birth_year_tolerance)
        assert (*settings, found.min_duplicate_age, found.review_unknown_age) == (True, True, 2, 12, True)


def test_a_filtered_finding_is_read_as_it_was_answered(store: AnyStore) -> None:
    limit = SearchFilter(True, 5, 30, 10, 0.4, 0.017, 0.05, None, None)
    new = new_enrolment("a")
    assert new.searched is not None

    answered = enrol(store, replace(new, searched=replace(new.searched, filter=limit)))

    assert answered.searched is not None
    assert answered.searched.filter == limit
    assert store.enrolment("camp", "n-a") == answered


def test_the_age_of_a_candidate_is_read_again_and_goes_with_its_encounter(store: AnyStore) -> None:
    at, then = datetime(2026, 2, 1, tzinfo=UTC), datetime(2016, 2, 1, tzinfo=UTC)
    seen = [enrol(store, new_enrolment(name, facts=EncounterFacts(captured_at=then, birth_year=2001))) for name in "ab"]
    dated = [
        replace(candidate_of(one, rank), age_at_capture=15, years_between=10.0) for rank, one in enumerate(seen, 1)
    ]
    answered = enrol(store, new_enrolment("c", candidates=dated, facts=EncounterFacts(captured_at=at)))
    assert store.enrolment("camp", "n-c") == answered

    set_status(store, "e-a", EncounterStatus.WITHDRAWN)
    erase(store, "s-b")

    for candidate in store.enrolment("camp", "n-c").candidates:
        assert (candidate.age_at_capture, candidate.years_between) == (None, None)


def test_the_years_between_go_with_the_probe_s_encounter_too(store: AnyStore) -> None:
    at, then = datetime(2026, 2, 1, tzinfo=UTC), datetime(2016, 2, 1, tzinfo=UTC)
    seen = enrol(store, new_enrolment("a", facts=EncounterFacts(captured_at=then, birth_year=2001)))
    dated = replace(candidate_of(seen), age_at_capture=15, years_between=10.0)
    enrol(store, new_enrolment("c", candidates=[dated], facts=EncounterFacts(captured_at=at)))

    set_status(store, "e-c", EncounterStatus.WITHDRAWN)

    (candidate,) = store.enrolment("camp", "n-c").candidates
    assert (candidate.age_at_capture, candidate.years_between) == (15, None)


def test_people_whose_facts_disagree_are_counted(store: AnyStore) -> None:
    seen = {
        "same": [of("female", 1990), of("female", 1993)],
        "sex": [of("female"), of("male")],
        "years": [of("female", 1990), of("female", 1996)],
        "once": [of("female", 1990), of()],
        "other": [of("other"), of("female")],
    }
    for name, encounters in seen.items():
        for number, facts in enumerate(encounters):
            enrol(store, new_enrolment(f"{name}-{number}", f"s-{name}", facts=facts))

    def agreement(*, by_sex: bool, birth_year_tolerance: int | None) -> MetadataAgreement:
        return store.metadata_agreement("camp", by_sex=by_sex, birth_year_tolerance=birth_year_tolerance)

    assert agreement(by_sex=True, birth_year_tolerance=5) == MetadataAgreement(3, 2)
    assert agreement(by_sex=True, birth_year_tolerance=None) == MetadataAgreement(3, 1)
    assert agreement(by_sex=False, birth_year_tolerance=2) == MetadataAgreement(2, 2)
    assert agreement(by_sex=False, birth_year_tolerance=3) == MetadataAgreement(2, 1)
    assert store.metadata_agreement("nowhere", by_sex=True, birth_year_tolerance=5) == MetadataAgreement(0, 0)
