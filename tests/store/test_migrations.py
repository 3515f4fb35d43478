"""The migrations make the tables that the code expects, once, on both databases."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from service.access import Client, ClientKey, Grant, Role
from service.agreement import UseOutcome
from service.audit_chain import AuditEvent, NewEntry
from service.audit_check import check_chain
from service.domain import (
    Band,
    CaseKind,
    CaseStatus,
    EncounterFacts,
    EncounterStatus,
    QualityGate,
    Searched,
    SearchedGallery,
)
from service.errors import StoreUnavailable
from service.store.sql_store import SqlStore
from service.store.tables import metadata
from tests import postgres
from tests.store.building import (
    QUALITY,
    SQL_KINDS,
    START,
    Clock,
    candidate_of,
    enrol,
    new_enrolment,
    new_gallery,
    new_template,
)
from tests.store.older import copy_rows, migrate_to

BEFORE_PARTNERS = "0014"
_FIRST_MEASURES = (
    "face_width_px", "inter_eye_px", "detector_score", "sharpness", "brightness", "yaw_deg", "pitch_deg", "roll_deg",
    "face_count",
)  # fmt: skip


@pytest.fixture(params=SQL_KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/100%/record.sqlite"
    return postgres.fresh_database(is_migrated=False)


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    store = SqlStore(url, Clock())
    yield store
    store.close()


def test_the_migrations_and_the_tables_agree(store: SqlStore) -> None:
    store.migrate()

    with store._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_a_store_knows_whether_it_is_migrated(store: SqlStore) -> None:
    assert not store.is_migrated()

    store.migrate()

    assert store.is_migrated()


def test_an_unmigrated_store_is_unavailable_and_says_no_sql(store: SqlStore) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        store.galleries()

    assert caught.value.message == "the record does not answer"


def test_migrating_again_changes_nothing(store: SqlStore) -> None:
    store.migrate()
    gallery = store.create_gallery(new_gallery())
    enrolled = enrol(store, new_enrolment("a"))

    store.migrate()

    assert store.galleries()[0].timeline_id == gallery.timeline_id
    assert store.enrolment("camp", "n-a") == enrolled


@pytest.fixture
def newest(tmp_path: Path) -> Iterator[SqlStore]:
    """A record of today with the gallery `camp`, to copy rows from."""
    store = SqlStore(f"sqlite:///{tmp_path}/newest.sqlite", Clock())
    store.migrate()
    store.create_gallery(new_gallery())
    yield store
    store.close()


def _run(store: SqlStore, *statements: str) -> None:
    with store._engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
        connection.commit()


def test_a_record_of_the_first_version_keeps_its_cases_and_can_be_swept(store: SqlStore, newest: SqlStore) -> None:
    first = enrol(newest, new_enrolment("a"))
    flagged = enrol(newest, new_enrolment("b", candidates=[candidate_of(first)], cases=[CaseKind.DUPLICATE]))
    migrate_to(store, "0001")
    copy_rows(newest, store)
    given_out = (
        "UPDATE sqlite_sequence SET seq = 7 WHERE name = 'templates'"
        if store._is_sqlite
        else "ALTER TABLE templates ALTER COLUMN reference_id RESTART WITH 8"
    )
    _run(store, given_out)
    assert not store.is_migrated()

    store.migrate()

    assert store.is_migrated()
    assert store.enrolment("camp", "n-b") == flagged
    assert store.encounter("camp", "e-b") == newest.encounter("camp", "e-b")
    assert (store.galleries()[0].pack_ids, store.galleries()[0].paired_count) == (("opencv-zoo",), 0)
    # the number of a template that was erased is never given again
    assert enrol(store, new_enrolment("c")).samples[0].reference_id == 8
    (case,) = store.cases("camp", None, 10).items
    assert (case.case_id, case.kind, case.candidate) == (flagged.case_ids[0], CaseKind.DUPLICATE, None)
    with store.sweeping("camp") as tx:
        assert tx.begin_sweep(10, 0.4).total == 3
    with store.writing("camp") as tx:
        tx.set_encounter_status("e-a", EncounterStatus.WITHDRAWN)
    with store.writing("camp") as tx:
        tx.erase_subject("s-b")


def test_a_record_that_was_swept_keeps_its_sweep_and_whom_its_case_names(store: SqlStore, newest: SqlStore) -> None:
    earlier, later = (enrol(newest, new_enrolment(name)) for name in ("earlier", "later"))
    migrate_to(store, "0002")
    copy_rows(newest, store)
    reference_id = earlier.samples[0].reference_id
    _run(
        store,
        "INSERT INTO jobs VALUES (1, 'camp', 'sweep', 'running', 10, 0.4, 0, 2, 2, 0, 2, 0, 0, 0.0, NULL, NULL, "
        "NULL, '2026-03-01 12:00:00', '2026-03-01 12:00:00')",
        "INSERT INTO cases VALUES (1, 'camp', 'n-later', 'SWEEP', 'OPEN', '2026-03-01 12:00:00')",
        f"INSERT INTO case_pairs VALUES (1, 'camp', 1, 's-earlier', 'e-earlier', {reference_id}, "
        "0.512345678901, 1.2e-5, 3.4e-5, true)",
    )

    store.migrate()

    sweep = store.sweep("camp", 1)
    assert (sweep.other_gallery_id, sweep.total, sweep.left_out) == (None, 2, 0)
    (case,) = store.cases("camp", None, 10, job_id=1).items
    assert (case.subject_id, case.candidate) == (later.subject_id, candidate_of(earlier))


def test_a_record_learns_who_has_several_templates(store: SqlStore, newest: SqlStore) -> None:
    enrol(newest, new_enrolment("a", templates=[new_template("a-0", 0), new_template("a-1", 1)]))
    enrol(newest, new_enrolment("b", "s-b"))
    enrol(newest, new_enrolment("c", "s-b"))
    enrol(newest, new_enrolment("d", "s-d"))
    enrol(newest, new_enrolment("e", "s-d"))
    with newest.writing("camp") as tx:
        tx.set_encounter_status("e-e", EncounterStatus.INACTIVE)
    newest.create_gallery(new_gallery("empty"))
    migrate_to(store, "0005")
    copy_rows(newest, store)

    store.migrate()

    assert {each.gallery_id: each.several_count for each in store.galleries()} == {"camp": 2, "empty": 0}


def test_a_gallery_of_before_the_quality_gate_refuses_nothing_and_its_templates_are_read(
    store: SqlStore, newest: SqlStore
) -> None:
    enrol(newest, new_enrolment("a"))
    migrate_to(store, "0004")
    copy_rows(newest, store)
    # as it was written before there were more measures
    measures = json.dumps({name: getattr(QUALITY, name) for name in _FIRST_MEASURES})
    _run(store, f"UPDATE templates SET quality = '{measures}'")

    store.migrate()

    (gallery,) = store.galleries()
    assert gallery.quality_gate is QualityGate.OFF
    assert store.encounter("camp", "e-a").templates[0].quality == QUALITY
    assert store.update_gallery("camp", lambda each: replace(each, quality_gate=QualityGate.STRICT)).quality_gate is (
        QualityGate.STRICT
    )


def test_templates_enrolled_before_there_were_filters_are_counted(store: SqlStore, newest: SqlStore) -> None:
    people = [EncounterFacts(sex="male"), EncounterFacts(sex="F", birth_year=1990), EncounterFacts(sex="unknown")]
    for number, facts in enumerate(people):
        enrol(newest, new_enrolment(f"{number}", facts=facts))
    migrate_to(store, "0007")
    copy_rows(newest, store)

    store.migrate()

    with store.reading() as tx:
        gallery = tx.gallery("camp")
        assert tx.left_out("camp", Band("female", None)) == 1
        assert tx.left_out("camp", Band(None, (2000, 2010))) == 1
    assert (gallery.filter_by_sex, gallery.birth_year_tolerance, gallery.min_duplicate_age) == (False, 5, 18)


def test_indexes_of_galleries_whose_model_changed_before_packs_had_timelines_are_filled_anew(
    store: SqlStore, newest: SqlStore
) -> None:
    for gallery_id in ("changed", "unchanged"):
        newest.create_gallery(new_gallery(gallery_id))
    for gallery_id in ("camp", "changed"):
        with newest.migrating(gallery_id) as tx:
            job_id = tx.begin_migration("buffalo_s", "buffalo_s@1", "opencv-zoo@1").job_id
    with newest.migrating("changed") as tx:
        tx.give_up_standby(job_id)
    migrate_to(store, "0010")
    copy_rows(newest, store)
    before = {each.gallery_id: each for each in newest.galleries()}

    store.migrate()

    after = {each.gallery_id: each for each in store.galleries()}
    assert after["unchanged"] == before["unchanged"]
    camp, changed = after["camp"], after["changed"]
    assert changed.standby_timeline_id == ""
    different = {each.timeline_id for each in (*before.values(), camp, changed)} | {camp.standby_timeline_id, ""}
    assert len(different) == 7


def test_a_record_of_before_there_were_clients_keeps_its_people_and_gets_clients(
    store: SqlStore, newest: SqlStore
) -> None:
    enrolled = enrol(newest, new_enrolment("a"))
    migrate_to(store, "0012")
    copy_rows(newest, store)

    store.migrate()

    assert store.enrolment("camp", "n-a") == enrolled
    assert store.clients.all() == []
    key = ClientKey("k1", bytes(32), START, START + timedelta(days=1))
    client = Client("desk", (Grant(Role.ENROLLER, frozenset({"camp"})),), START, keys=(key,))
    store.clients.add(client)
    assert store.clients.of_key("k1") == client


def test_a_record_of_before_partners_is_searched_by_others_from_now_on(store: SqlStore, newest: SqlStore) -> None:
    first = enrol(newest, new_enrolment("a"))
    found = enrol(newest, new_enrolment("b", candidates=[candidate_of(first)]))
    inactive = enrol(newest, new_enrolment("c"))
    with newest.writing("camp") as writing:
        writing.set_encounter_status(inactive.encounter_id, EncounterStatus.INACTIVE)
    migrate_to(store, BEFORE_PARTNERS)
    copy_rows(newest, store)

    store.migrate()

    assert store.enrolment("camp", found.enrolment_id) == found
    with store.writing("camp") as writing:  # nobody elsewhere was compared with the gallery meanwhile
        writing.set_encounter_status(inactive.encounter_id, EncounterStatus.ACTIVE)
    store.create_gallery(new_gallery("abroad"))
    elsewhere = replace(candidate_of(first), gallery_id="camp")
    with store.writing("abroad", ["camp"]) as writing:
        wide = replace(Searched(3, 0, complete=True), galleries=(SearchedGallery("camp", 3, 4, True, 0.0),))
        # without a template or an earlier case: copied rows do not move PostgreSQL's numbers on
        new = new_enrolment("d", templates=[], candidates=[elsewhere], cases=[CaseKind.DUPLICATE])
        new = replace(new, searched=wide)
        enrolled = writing.insert_enrolment(new)
    assert store.enrolment("abroad", enrolled.enrolment_id).candidates == (elsewhere,)
    with store.writing("camp") as writing:
        writing.erase_subject(first.subject_id)
    assert store.case("abroad", enrolled.case_ids[0]).status is CaseStatus.VOID


def test_uses_that_were_numbered_over_all_agreements_keep_their_numbers(store: SqlStore) -> None:
    migrate_to(store, "0018")
    _run(
        store,
        "INSERT INTO galleries (gallery_id, pack_id, review_fpir, duplicate_fpir, verification_fmr, keep_samples, "
        "timeline_id, created_at, last_seq, template_count) VALUES ('camp', 'opencv-zoo', 0.01, 0.001, 0.001, false, "
        "'t', '2026-03-01 12:00:00.000000', 0, 0)",
        *(
            "INSERT INTO agreements (agreement_id, gallery_id, partner_id, purpose, disclosure, starts_at, ends_at, "
            f"searches_per_day, created_by, created_at) VALUES ('{name}', 'camp', 'client:p', 'x', 'full', "
            "'2026-03-01 12:00:00.000000', '2027-03-01 12:00:00.000000', 9, 'client:a', '2026-03-01 12:00:00.000000')"
            for name in "ab"
        ),
        *(
            "INSERT INTO agreement_uses (agreement_id, used_by, used_at, request_id, outcome, complete) VALUES "
            f"('{name}', 'client:p', '2026-03-02 12:00:00.000000', '{number}', 'hit', true)"
            for number, name in enumerate("abaab")
        ),
    )

    store.migrate()

    # the numbers by which audit trails name them
    for name, uses_of in (("a", [(1, "0"), (3, "2"), (4, "3")]), ("b", [(2, "1"), (5, "4")])):
        uses = store.agreements.uses(name, None, 9, gallery_id="camp").items
        assert [(each.use_id, each.request_id) for each in uses] == uses_of
        assert {(each.outcome, each.complete, each.used_at) for each in uses} == {
            (UseOutcome.HIT, True, datetime(2026, 3, 2, 12, tzinfo=UTC))
        }


def test_several_that_start_at_once_migrate_once(url: str) -> None:
    def start(_: int) -> bool:
        store = SqlStore(url, Clock())
        store.migrate()
        is_migrated = store.is_migrated()
        store.close()
        return is_migrated

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(start, range(4))) == [True] * 4


def test_a_record_of_a_newer_version_is_refused(store: SqlStore) -> None:
    store.migrate()
    with store._engine.connect() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.commit()

    assert not store.is_migrated()
    with pytest.raises(StoreUnavailable, match="newer version"):
        store.migrate()


def test_a_moment_without_a_time_zone_is_not_stored(store: SqlStore) -> None:
    store.migrate()

    with pytest.raises(StoreUnavailable):
        store.create_gallery(replace(new_gallery(), created_at=datetime(2026, 1, 1)))  # noqa: DTZ001


def test_the_audit_trail_of_before_becomes_chains_in_its_order(store: SqlStore) -> None:
    migrate_to(store, "0012")
    gallery = "'opencv-zoo', 0.01, 0.001, 0.001, false, 't', '2026-03-01 12:00:00.000000', 0, 0"
    names = (
        "gallery_id, pack_id, review_fpir, duplicate_fpir, verification_fmr, keep_samples, timeline_id, created_at, "
        "last_seq, template_count"
    )
    _run(
        store,
        *(f"INSERT INTO galleries ({names}) VALUES ('{name}', {gallery})" for name in ("camp", "village")),
        *(
            "INSERT INTO audit (gallery_id, event, details, created_at) VALUES "
            f"('{'village' if number == 3 else 'camp'}', 'thresholds.changed', "
            f'\'{{"reason": "size", "review": 0.{number}}}\', \'2026-03-0{number} 12:00:00.000007\')'
            for number in range(1, 6)
        ),
    )

    store.migrate()

    entries = store.audit_block("camp", 0, 10)
    assert [(each.seq, each.details["review"]) for each in entries] == [(1, 0.1), (2, 0.2), (3, 0.4), (4, 0.5)]
    assert {each.client_id for each in entries} == {"unknown"}
    assert entries[0].created_at == datetime(2026, 3, 1, 12, 0, 0, 7, tzinfo=UTC)
    heads = store.audit_heads()
    assert {chain: head.seq for chain, head in heads.items()} == {":service": 0, "camp": 4, "village": 1}
    store.record(NewEntry(AuditEvent.AUDIT_VIEWED), "camp")
    assert check_chain(store.audit_block("camp", 0, 10), end=store.audit_heads()["camp"]).fault is None
    assert check_chain(store.audit_block("village", 0, 10), end=heads["village"]).fault is None
