"""Retention on both databases: what is due, the report before the act, the run, and what stops it."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from service.audit_chain import AuditEvent
from service.domain import EncounterStatus, JobState, Lease
from service.errors import (
    ClockDoubtful,
    EncounterNotFound,
    GalleryNotFound,
    HoldNotFound,
    InvalidRequest,
    LegalHold,
    RetentionReportExpired,
    RetentionReportNotFound,
    RetentionRuleChanged,
    RetentionUnderway,
    SampleNotFound,
    SubjectNotFound,
    VarUnusable,
)
from service.retention import LOOK_EVERY, RetentionService
from service.retention_rule import (
    REPORT_HOLDS,
    ReportState,
    RetentionRule,
    RunLost,
    SeenAgain,
    SkipReason,
)
from service.store.sql_store import SqlStore
from service.store.tables import legal_holds
from tests.retaining import (
    LEASE,
    RULE,
    database_url,
    encrypted_store,
    fill,
    hold,
    leased,
    lines_of,
    people_in,
    retention_of,
    runner_of,
    see,
    with_samples,
)
from tests.store.building import SQL_KINDS, START, Clock
from tests.test_metrics import value
from tests.world import GALLERY, World


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=SQL_KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[SqlStore]:
    store = encrypted_store(database_url(request.param, tmp_path), clock)
    yield store
    store.close()


@pytest.fixture(autouse=True)
def world(store: SqlStore) -> World:
    return World(store, keep_samples=True)


@pytest.fixture
def retention(world: World, store: SqlStore) -> RetentionService:
    return retention_of(world, store)


def days(number: float) -> datetime:
    return START + timedelta(days=number)


def events(store: SqlStore, event: AuditEvent) -> list[dict[str, object]]:
    return [each.details for each in store.audit(GALLERY, None, 1000, event).items]


# rules


def test_a_gallery_keeps_all_until_a_rule_is_set(retention: RetentionService, store: SqlStore, clock: Clock) -> None:
    fill(store, clock)
    clock.pass_by(days=36_000)
    assert retention.rule(GALLERY) == RetentionRule(GALLERY)
    report = retention.report(GALLERY)
    assert (report.due_subjects, report.due_encounters, report.state) == (0, 0, ReportState.MADE)
    with pytest.raises(GalleryNotFound):
        retention.rule("nowhere")
    with pytest.raises(GalleryNotFound):
        retention.report("nowhere")


def test_each_change_of_a_rule_is_another_version_and_written_down(
    retention: RetentionService, store: SqlStore
) -> None:
    first = retention.set_rule(RULE)
    again = retention.set_rule(RULE)
    second = retention.set_rule(replace(RULE, campaign_ends_at=datetime(2027, 1, 1, tzinfo=UTC), automatic=True))
    assert (first.version, again.version, second.version) == (1, 1, 2)
    assert (second.changed_at, retention.rule(GALLERY)) == (START, second)
    assert events(store, AuditEvent.RETENTION_CHANGED) == [
        {"retain_days": 100, "retain_samples_days": 30, "campaign_ends_at": None, "automatic": False},
        {
            "retain_days": 100,
            "retain_samples_days": 30,
            "campaign_ends_at": "2027-01-01T00:00:00.000000Z",
            "automatic": True,
        },
    ]


@pytest.mark.parametrize("samples_days", [100, 101])
def test_samples_are_not_kept_longer_than_their_subject(retention: RetentionService, samples_days: int) -> None:
    with pytest.raises(InvalidRequest, match="retain_samples_days"):
        retention.set_rule(replace(RULE, retain_samples_days=samples_days))


# reports


def test_a_report_says_who_is_due_why_and_since_when(
    retention: RetentionService, store: SqlStore, clock: Clock
) -> None:
    fill(store, clock)
    hold(store, "s-held")
    retention.set_rule(RULE)
    report = retention.report(GALLERY)
    assert (report.due_subjects, report.due_encounters, report.held) == (2, 3, 1)
    assert lines_of(retention, report) == {
        ("s-old", None): ("age", days(100)),
        ("s-older", None): ("age", days(100)),
        ("s-held", None): ("age", days(100)),
        ("s-again", "e-again"): ("samples_age", days(30)),
        ("s-again", "e-again-2"): ("samples_age", days(90)),
        ("s-mid", "e-mid"): ("samples_age", days(100)),
    }
    held = [each.due.subject_id for each in retention.items(GALLERY, report.report_id, None, 99).items if each.is_held]
    assert held == ["s-held"]
    assert people_in(store) == {"s-old", "s-older", "s-again", "s-held", "s-mid", "s-new"}
    assert len(with_samples(store)) == 7
    assert events(store, AuditEvent.RETENTION_REPORTED) == [
        {"report_id": report.report_id, "automatic": False, "due_subjects": 2, "due_encounters": 3, "held": 1}
    ]


def test_a_subject_is_due_to_the_microsecond(retention: RetentionService, store: SqlStore, clock: Clock) -> None:
    see(store, "a")
    retention.set_rule(RetentionRule(GALLERY, retain_days=100))
    clock.now = days(100) - timedelta(microseconds=1)
    assert retention.report(GALLERY).due_subjects == 0
    clock.now = days(100)
    assert retention.report(GALLERY).due_subjects == 1


def test_after_the_end_of_a_campaign_everybody_is_due(
    retention: RetentionService, store: SqlStore, clock: Clock
) -> None:
    fill(store, clock)
    end = clock.now + timedelta(days=1)
    retention.set_rule(RetentionRule(GALLERY, retain_days=130, campaign_ends_at=end))
    assert retention.report(GALLERY).due_subjects == 0
    clock.now = end
    lines = lines_of(retention, retention.report(GALLERY))
    assert {subject_id for subject_id, _ in lines} == people_in(store)
    assert set(lines.values()) == {("campaign_ended", end)}


def test_the_reason_is_what_came_first(retention: RetentionService, store: SqlStore, clock: Clock) -> None:
    see(store, "a")
    clock.pass_by(days=200)
    retention.set_rule(RetentionRule(GALLERY, retain_days=100, campaign_ends_at=days(150)))
    assert lines_of(retention, retention.report(GALLERY)) == {("s-a", None): ("age", days(100))}


def test_a_report_is_made_block_by_block(store: SqlStore, world: World, clock: Clock) -> None:
    store.retention._block_size = 2
    retention = retention_of(world, store)
    for number in range(7):
        see(store, str(number))
    clock.pass_by(days=101)
    retention.set_rule(RULE)
    report = retention.report(GALLERY)
    found = [each.due.subject_id for each in retention.items(GALLERY, report.report_id, None, 99).items]
    assert (found, report.due_subjects) == ([f"s-{number}" for number in range(7)], 7)


def test_a_newer_report_takes_the_place_of_an_earlier_one(
    retention: RetentionService, store: SqlStore, clock: Clock
) -> None:
    fill(store, clock)
    retention.set_rule(RULE)
    first, second = retention.report(GALLERY), retention.report(GALLERY)
    assert [each.report_id for each in retention.reports(GALLERY, None, 10).items] == [
        second.report_id,
        first.report_id,
    ]
    assert retention.report_of(GALLERY, first.report_id).state is ReportState.SUPERSEDED
    assert lines_of(retention, first) == {}
    with pytest.raises(RetentionReportExpired):
        retention.run(GALLERY, first.report_id)


def test_the_lines_of_an_earlier_report_are_dropped_in_parts(
    retention: RetentionService, store: SqlStore, clock: Clock
) -> None:
    for number in range(7):
        see(store, f"{number}")
    clock.pass_by(days=200)
    retention.set_rule(RULE)
    first = retention.report(GALLERY)
    store.retention._block_size = 3
    dropped: list[int] = []

    @event.listens_for(store._engine, "after_cursor_execute")
    def note(_connection: object, cursor: Any, statement: str, *_: object) -> None:
        if statement.startswith("DELETE FROM retention_items"):
            dropped.append(cursor.rowcount)

    assert retention.report(GALLERY).due_subjects == 7
    assert dropped == [3, 3, 1]
    assert lines_of(retention, first) == {}


def test_a_report_that_was_begun_twice_is_finished_once(store: SqlStore, world: World) -> None:
    first = store.retention.begin_report(GALLERY, automatic=False)
    store.retention.begin_report(GALLERY, automatic=False)
    with pytest.raises(RetentionReportExpired):
        store.retention.extend_report(first, "")
    with pytest.raises(RetentionReportExpired):
        store.retention.finish_report(first)
    with pytest.raises(RetentionReportExpired):
        store.retention_runs.begin_run(world.gallery().gallery_id, first.report_id)


def test_reports_come_in_pages(retention: RetentionService) -> None:
    made = [retention.report(GALLERY).report_id for _ in range(3)]
    page = retention.reports(GALLERY, None, 2)
    assert [each.report_id for each in page.items] == made[:0:-1]
    rest = retention.reports(GALLERY, page.next_after, 2)
    assert ([each.report_id for each in rest.items], rest.next_after) == (made[:1], None)


# runs


def test_a_run_erases_what_its_report_names_and_nothing_else(
    retention: RetentionService, store: SqlStore, world: World, clock: Clock
) -> None:
    fill(store, clock)
    hold(store, "s-held")
    retention.set_rule(RULE)
    report = retention.report(GALLERY)
    clock.pass_by(hours=23)
    see(store, "later")
    retention.run(GALLERY, report.report_id)
    runner_of(retention, clock).work()

    ended = retention.report_of(GALLERY, report.report_id)
    assert (ended.state, ended.done, ended.total) == (ReportState.DONE, 5, 5)
    assert (ended.erased_subjects, ended.erased_samples, ended.held, ended.already_gone) == (2, 3, 1, 0)
    assert people_in(store) == {"s-again", "s-held", "s-mid", "s-new", "s-later"}
    assert with_samples(store) == {"e-held", "e-new", "e-later"}
    with pytest.raises(SampleNotFound):
        store.kept_sample(GALLERY, "e-mid", 0)
    # templates of erased samples are searched as before
    assert world.gallery().template_count == 6
    assert len(store.encounter(GALLERY, "e-mid").templates) == 1
    assert world.matcher.state(GALLERY).in_step
    assert set(lines_of(retention, report)) == {("s-held", None)}
    assert value(world.metrics, "biodedup_retention_erased_total", kind="subjects") == 2
    assert value(world.metrics, "biodedup_retention_erased_total", kind="samples") == 3
    assert value(world.metrics, "biodedup_retention_runs_ended_total", state="done") == 1


def test_a_run_is_written_down_with_each_erasure(retention: RetentionService, store: SqlStore, clock: Clock) -> None:
    fill(store, clock)
    retention.set_rule(RULE)
    report = retention.report(GALLERY)
    retention.run(GALLERY, report.report_id)
    runner_of(retention, clock).work()
    assert events(store, AuditEvent.RETENTION_BEGUN) == [{"report_id": report.report_id, "lines": 6}]
    (ended,) = store.audit(GALLERY, None, 100, AuditEvent.RETENTION_ENDED).items
    assert (ended.outcome, ended.client_id, ended.purpose) == ("done", "service", "retention")
    assert ended.details["erased_subjects"] == 3
    assert len(events(store, AuditEvent.SUBJECT_ERASED)) == 3
    assert events(store, AuditEvent.SAMPLES_ERASED) == [{"samples": 1}] * 3
    looks = store.audit_about(GALLERY, "s-mid")
    assert [(each.entry.event, each.encounter_id) for each in looks] == [
        ("enrolment.recorded", "e-mid"),
        ("samples.erased", "e-mid"),
    ]


def test_what_became_due_after_the_report_waits_for_the_next(
    retention: RetentionService, store: SqlStore, clock: Clock
) -> None:
    see(store, "a")
    clock.pass_by(hours=12)
    see(store, "b")
    clock.pass_by(days=99.6)
    retention.set_rule(RetentionRule(GALLERY, retain_days=100))
    report = retention.report(GALLERY)
    clock.pass_by(hours=23)
    retention.run(GALLERY, report.report_id)
    runner_of(retention, clock).work()
    assert people_in(store) == {"s-b"}
    assert retention.report(GALLERY).due_subjects == 1


def test_who_was_held_or_seen_again_since_the_report_is_left_alone_and_named(
    retention: RetentionService, store: SqlStore, world: World, clock: Clock
) -> None:
    fill(store, clock)
    retention.set_rule(RULE)
    report = retention.report(GALLERY)
    hold(store, "s-old")
    hold(store, "s-mid")
    see(store, "older-2", "s-older")
    retention.run(GALLERY, report.report_id)
    runner_of(retention, clock).work()
    ended = retention.report_of(GALLERY, report.report_id)
    assert (ended.erased_subjects, ended.erased_samples) == (1, 2)
    assert (ended.skipped_held, ended.skipped_seen_again, ended.done) == (2, 1, 6)
    assert people_in(store) == {"s-old", "s-older", "s-again", "s-mid", "s-new"}
    left = {each.due.subject_id: each.skipped for each in retention.items(GALLERY, report.report_id, None, 99).items}
    assert left == {"s-old": SkipReason.HELD, "s-older": SkipReason.SEEN_AGAIN, "s-mid": SkipReason.HELD}
    assert value(world.metrics, "biodedup_retention_skipped_total", reason="legal_hold") == 2
    assert value(world.metrics, "biodedup_retention_skipped_total", reason="seen_again") == 1


def test_who_was_held_when_reported_is_left_alone_though_the_hold_was_lifted(
    retention: RetentionService, store: SqlStore, clock: Clock
) -> None:
    fill(store, clock)
    hold(store, "s-held")
    retention.set_rule(RULE)
    report = retention.report(GALLERY)
    store.holds.lift(GALLERY, "s-held")
    retention.run(GALLERY, report.report_id)
    runner_of(retention, clock).work()
    assert "s-held" in people_in(store)
    assert retention.report(GALLERY).due_subjects == 1


def test_who_was_erased_meanwhile_is_counted_as_gone(
    retention: RetentionService, store: SqlStore, world: World, clock: Clock
) -> None:
    fill(store, clock)
    retention.set_rule(RULE)
    report = retention.report(GALLERY)
    world.erasure.erase_subject(GALLERY, "s-old")
    retention.run(GALLERY, report.report_id)
    runner_of(retention, clock).work()
    ended = retention.report_of(GALLERY, report.report_id)
    assert (ended.state, ended.erased_subjects, ended.already_gone) == (ReportState.DONE, 2, 1)


def test_a_subject_that_is_erased_between_the_reading_and_the_erasure_is_no_fault(
    retention: RetentionService, store: SqlStore, world: World, clock: Clock
) -> None:
    fill(store, clock)
    retention.set_rule(RULE)
    run = leased(store, retention.report(GALLERY))
    lines = store.retention_runs.lines_left(run, 99)
    world.erasure.erase_subject(GALLERY, lines[0].due.subject_id)
    retention._deal_with(run, lines[0], LEASE)
    assert store.retention_runs.run(run).done == 0


def test_samples_of_somebody_who_was_erased_and_enrolled_anew_stay(
    retention: RetentionService, store: SqlStore, world: World, clock: Clock
) -> None:
    see(store, "a")
    clock.pass_by(days=50)
    retention.set_rule(RULE)
    run = leased(store, retention.report(GALLERY))
    (line,) = store.retention_runs.lines_left(run, 99)
    world.erasure.erase_subject(GALLERY, "s-a")
    see(store, "a")
    retention._deal_with(run, line, LEASE)
    assert with_samples(store) == {"e-a"}
    assert store.retention_runs.run(run).done == 0


def test_a_report_is_acted_on_for_a_day(retention: RetentionService, store: SqlStore, clock: Clock) -> None:
    fill(store, clock)
    retention.set_rule(RULE)
    report = retention.report(GALLERY)
    assert report.expires_at == clock.now + timedelta(hours=24)
    clock.pass_by(hours=24)
    with pytest.raises(RetentionReportExpired):
        retention.run(GALLERY, report.report_id)
    clock.pass_by(microseconds=-1)
    assert retention.run(GALLERY, report.report_id).state is ReportState.RUNNING


def test_a_report_of_another_rule_is_not_acted_on(retention: RetentionService, store: SqlStore, clock: Clock) -> None:
    fill(store, clock)
    retention.set_rule(RULE)
    report = retention.report(GALLERY)
    retention.set_rule(replace(RULE, retain_days=101))
    retention.set_rule(RULE)  # the same again is another rule all the same
    with pytest.raises(RetentionRuleChanged):
        retention.run(GALLERY, report.report_id)
    assert len(people_in(store)) == 6


def test_a_report_of_another_gallery_is_none(retention: RetentionService, store: SqlStore) -> None:
    store.create_gallery(replace(store.galleries()[0], gallery_id="abroad"))
    report = retention.report(GALLERY)
    for gallery_id, number in (("abroad", report.report_id), (GALLERY, report.report_id + 1)):
        with pytest.raises(RetentionReportNotFound):
            retention.run(gallery_id, number)
        with pytest.raises(RetentionReportNotFound):
            retention.items(gallery_id, number, None, 10)
    with pytest.raises(GalleryNotFound):
        retention.run("nowhere", report.report_id)


def test_the_same_run_asked_for_twice_is_one(retention: RetentionService, store: SqlStore, clock: Clock) -> None:
    fill(store, clock)
    retention.set_rule(RULE)
    report = retention.report(GALLERY)
    first, again = (retention.run(GALLERY, report.report_id) for _ in range(2))
    assert first == again
    assert len(retention.unfinished()) == 1
    with pytest.raises(RetentionUnderway):
        retention.run(GALLERY, retention.report(GALLERY).report_id)
    runner_of(retention, clock).work()
    assert retention.run(GALLERY, report.report_id).state is ReportState.DONE


def test_a_run_stops_when_the_rule_changes(retention: RetentionService, store: SqlStore, clock: Clock) -> None:
    fill(store, clock)
    retention.set_rule(RULE)
    report = retention.report(GALLERY)
    run = leased(store, report)
    (line, *_) = store.retention_runs.lines_left(run, 1)
    retention._deal_with(run, line, LEASE)
    store.retention_runs.release_run(run, LEASE.owner)
    retention.set_rule(replace(RULE, retain_days=500))
    runner_of(retention, clock).work()
    ended = retention.report_of(GALLERY, report.report_id)
    assert (ended.state, ended.error_code, ended.erased_subjects) == (ReportState.FAILED, "retention_rule_changed", 1)
    assert len(people_in(store)) == 5


def test_a_run_that_was_interrupted_for_days_does_not_go_on(
    retention: RetentionService, store: SqlStore, clock: Clock
) -> None:
    fill(store, clock)
    retention.set_rule(RULE)
    report = retention.report(GALLERY)
    retention.run(GALLERY, report.report_id)
    clock.pass_by(hours=24 + 48, microseconds=1)
    runner_of(retention, clock).work()
    ended = retention.report_of(GALLERY, report.report_id)
    assert (ended.state, ended.error_code, ended.erased_subjects) == (ReportState.FAILED, "retention_report_expired", 0)
    assert len(people_in(store)) == 6


def test_a_run_that_rested_for_hours_does_not_go_on(retention: RetentionService, store: SqlStore, clock: Clock) -> None:
    fill(store, clock)
    retention.set_rule(RULE)
    run = leased(store, retention.report(GALLERY))
    lines = store.retention_runs.lines_left(run, 3)
    for line in lines[:2]:
        clock.pass_by(hours=6)
        retention._deal_with(run, line, LEASE)
    clock.pass_by(hours=6, microseconds=1)
    with pytest.raises(RetentionReportExpired):
        retention._deal_with(run, lines[2], LEASE)


def test_a_run_waits_while_the_ledger_cannot_be_written(
    retention: RetentionService, store: SqlStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, clock)
    retention.set_rule(RULE)
    report = retention.report(GALLERY)
    retention.run(GALLERY, report.report_id)
    left: list[int] = []

    def full_twice(_lines: object) -> None:
        left.append(len(people_in(store)))
        if len(left) < 3:
            raise VarUnusable("the ledger of erasures cannot be written: the disk is full")

    monkeypatch.setattr(store, "_on_erased", full_twice)
    runner_of(retention, clock).work()
    ended = retention.report_of(GALLERY, report.report_id)
    assert (ended.state, ended.erased_subjects) == (ReportState.DONE, 3)
    assert left == [5, 5, 5, 4, 3]  # the second line only once the first is in the ledger


def test_a_hold_on_the_gallery_stops_a_run(retention: RetentionService, store: SqlStore, clock: Clock) -> None:
    fill(store, clock)
    retention.set_rule(RULE)
    report = retention.report(GALLERY)
    retention.run(GALLERY, report.report_id)
    hold(store)
    runner_of(retention, clock).work()
    ended = retention.report_of(GALLERY, report.report_id)
    assert (ended.state, ended.error_code, ended.erased_subjects) == (ReportState.FAILED, "legal_hold", 0)
    assert len(people_in(store)) == 6
    (entry,) = store.audit(GALLERY, None, 100, AuditEvent.RETENTION_ENDED).items
    assert (entry.outcome, entry.details["error_code"]) == ("failed", "legal_hold")


def test_no_run_begins_in_a_held_gallery_and_its_report_says_so(
    retention: RetentionService, store: SqlStore, clock: Clock
) -> None:
    fill(store, clock)
    retention.set_rule(RULE)
    hold(store)
    report = retention.report(GALLERY)
    assert (report.due_subjects, report.due_encounters, report.held) == (0, 0, 6)
    with pytest.raises(LegalHold, match="the gallery is under legal hold since 20"):
        retention.run(GALLERY, report.report_id)


def test_a_run_in_other_hands_is_left_to_them(retention: RetentionService, store: SqlStore, clock: Clock) -> None:
    fill(store, clock)
    retention.set_rule(RULE)
    run = leased(store, retention.report(GALLERY))
    other = Lease("somebody else", clock.now + timedelta(minutes=1))
    assert store.retention_runs.lease_run(run, other) is None
    assert retention.advance(run, other) is None
    lines = store.retention_runs.lines_left(run, 99)
    for line in lines:
        with pytest.raises(RunLost):
            retention._erase(run, line, other)
    with pytest.raises(RunLost):
        store.retention_runs.finish_run(run, other)
    assert len(people_in(store)) == 6
    assert len(with_samples(store)) == 7


def test_an_encounter_that_comes_before_the_erasure_is_seen_under_the_lock(
    retention: RetentionService, store: SqlStore, world: World, clock: Clock
) -> None:
    see(store, "a")
    clock.pass_by(days=200)
    retention.set_rule(RULE)
    run = leased(store, retention.report(GALLERY))
    (line,) = store.retention_runs.lines_left(run, 99)
    see(store, "a-2", "s-a")  # after the line was read

    def claim(writing: object) -> None:
        store.retention_runs.claim(writing, run, line, LEASE)  # type: ignore[arg-type]  # of this store

    with pytest.raises(SeenAgain):
        world.erasure.erase_subject(GALLERY, "s-a", before=claim)
    assert people_in(store) == {"s-a"}
    assert store.retention_runs.run(run).done == 0


# by itself


def test_an_automatic_rule_is_reported_first_and_acted_on_a_day_later(
    retention: RetentionService, store: SqlStore, world: World, clock: Clock
) -> None:
    fill(store, clock)
    retention.set_rule(replace(RULE, automatic=True))
    runner = runner_of(retention, clock)

    def pass_by(**duration: float) -> None:
        clock.pass_by(**duration)
        retention.look()
        runner.work()

    pass_by(minutes=1)
    (report,) = retention.reports(GALLERY, None, 10).items
    assert (report.automatic, report.state, report.due_subjects) == (True, ReportState.MADE, 3)
    assert (report.acts_at, report.expires_at) == (clock.now + REPORT_HOLDS, clock.now + 2 * REPORT_HOLDS)
    figures = retention.figures(GALLERY)
    assert (figures.due_subjects, figures.due_encounters, figures.acts_at) == (3, 3, report.acts_at)
    assert events(store, AuditEvent.RETENTION_REPORTED)[0]["automatic"] is True
    for _ in range(3):
        pass_by(hours=7)
    pass_by(hours=2.9)
    assert len(people_in(store)) == 6
    assert len(retention.reports(GALLERY, None, 10).items) == 1
    pass_by(hours=0.1)
    assert people_in(store) == {"s-again", "s-mid", "s-new"}
    ended = retention.report_of(GALLERY, report.report_id)
    assert (ended.state, ended.erased_subjects, ended.erased_samples) == (ReportState.DONE, 3, 3)
    assert (retention.figures(GALLERY).due_subjects, retention.figures(GALLERY).acts_at) == (0, None)
    pass_by(days=2)
    assert len(retention.reports(GALLERY, None, 10).items) == 1  # nobody is due: no report is kept


def test_nothing_is_erased_by_the_clock_unless_asked(
    retention: RetentionService, store: SqlStore, clock: Clock
) -> None:
    fill(store, clock)
    retention.set_rule(RULE)
    for _ in range(5):
        clock.pass_by(days=100)
        retention.look()
        runner_of(retention, clock).work()
    assert len(people_in(store)) == 6
    assert retention.reports(GALLERY, None, 10).items == ()


@pytest.mark.parametrize("stop", ["rule", "hold", "subject"])
def test_an_automatic_report_can_be_stopped_within_its_day(
    retention: RetentionService, store: SqlStore, clock: Clock, stop: str
) -> None:
    see(store, "a")
    clock.pass_by(days=200)
    retention.set_rule(replace(RULE, automatic=True))
    retention.look()
    if stop == "rule":
        retention.set_rule(RULE)
    else:
        hold(store, None if stop == "hold" else "s-a")
    for _ in range(8):
        clock.pass_by(hours=12)
        retention.look()
        runner_of(retention, clock).work()
        if stop == "hold":  # else the log would tell of it every few seconds
            assert store.retention.reports_to_act_on() == []
    assert people_in(store) == {"s-a"}


def test_an_automatic_report_that_nobody_could_act_on_in_time_is_made_anew(
    retention: RetentionService, store: SqlStore, clock: Clock
) -> None:
    see(store, "a")
    clock.pass_by(days=200)
    retention.set_rule(replace(RULE, automatic=True))
    retention.look()
    clock.pass_by(hours=48)  # as if the service had been down
    retention.look()
    runner_of(retention, clock).work()
    assert people_in(store) == {"s-a"}
    new, old = retention.reports(GALLERY, None, 10).items
    assert (new.state, old.state) == (ReportState.MADE, ReportState.SUPERSEDED)
    assert new.acts_at == clock.now + REPORT_HOLDS


def test_a_report_asked_for_puts_no_automatic_one_aside(
    retention: RetentionService, store: SqlStore, clock: Clock
) -> None:
    see(store, "a")
    clock.pass_by(days=200)
    retention.set_rule(replace(RULE, automatic=True))
    retention.look()
    retention.report(GALLERY)
    clock.pass_by(hours=24)
    retention.look()
    runner_of(retention, clock).work()
    assert people_in(store) == set()


def test_a_gallery_is_looked_at_four_times_a_day(retention: RetentionService, store: SqlStore, clock: Clock) -> None:
    retention.set_rule(replace(RULE, automatic=True))
    assert store.retention.claim_look(clock.now - LOOK_EVERY) == [GALLERY]
    assert store.retention.claim_look(clock.now - LOOK_EVERY) == []
    clock.pass_by(hours=6)
    assert store.retention.claim_look(clock.now - LOOK_EVERY) == [GALLERY]


# clocks


def test_a_clock_before_the_last_change_makes_no_report_and_begins_no_run(
    retention: RetentionService, store: SqlStore, clock: Clock
) -> None:
    fill(store, clock)
    retention.set_rule(RULE)
    report = retention.report(GALLERY)
    clock.pass_by(minutes=-5)
    retention.report(GALLERY)
    clock.pass_by(microseconds=-1)
    with pytest.raises(ClockDoubtful):
        retention.report(GALLERY)
    with pytest.raises(ClockDoubtful):
        retention.run(GALLERY, report.report_id + 1)


def test_a_run_stops_where_the_clock_goes_back(retention: RetentionService, store: SqlStore, clock: Clock) -> None:
    fill(store, clock)
    retention.set_rule(RULE)
    report = retention.report(GALLERY)
    retention.run(GALLERY, report.report_id)
    clock.pass_by(days=-1)
    runner_of(retention, clock).work()
    ended = retention.report_of(GALLERY, report.report_id)
    assert (ended.state, ended.error_code, ended.erased_subjects) == (ReportState.FAILED, "clock_doubtful", 0)


@pytest.mark.parametrize("said_by", ["a run", "a rule"])
@pytest.mark.parametrize("jump_days", [9_500, 31, -60])
def test_after_a_jump_of_the_clock_nothing_is_erased_before_a_human_has_said_so(
    retention: RetentionService,
    store: SqlStore,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    jump_days: int,
    said_by: str,
) -> None:
    def pass_by(hours: float) -> None:
        clock.pass_by(hours=hours)
        retention.look()
        runner_of(retention, clock).work()

    rule = RetentionRule(GALLERY, retain_days=10, automatic=True)
    retention.set_rule(rule)
    if jump_days > 0:
        see(store, "a")
    pass_by(0)
    clock.pass_by(days=jump_days)
    if jump_days < 0:  # the look was in the future, and is so for weeks
        see(store, "a")
        clock.pass_by(days=11)
    for _ in range(9):
        pass_by(6)
    assert (people_in(store), retention.reports(GALLERY, None, 9).items) == ({"s-a"}, ())
    assert [each.message for each in caplog.records].count("retention.clock_doubtful") == 1

    report = retention.report(GALLERY)
    for _ in range(3):  # it says what is due, and nobody said that this is right
        pass_by(6)
    assert people_in(store) == {"s-a"}
    assert [each.automatic for each in retention.reports(GALLERY, None, 9).items] == [False]

    if said_by == "a run":
        retention.run(GALLERY, report.report_id)
        see(store, "b")
        clock.pass_by(days=11)
    else:
        retention.set_rule(replace(rule, retain_days=9))
    for _ in range(9):
        pass_by(6)
    assert people_in(store) == set()


# holds


def test_a_held_subject_is_erased_by_no_way(store: SqlStore, world: World) -> None:
    see(store, "a")
    hold(store, "s-a")
    for _ in range(2):
        with pytest.raises(LegalHold, match="this subject is under legal hold since 2026-03-01T12:00:00"):
            world.erasure.erase_subject(GALLERY, "s-a")
        with pytest.raises(LegalHold):
            world.erasure.set_encounter_status(GALLERY, "e-a", EncounterStatus.WITHDRAWN)
    assert store.kept_sample(GALLERY, "e-a", 0).image == b"image"
    # taking it out of the search erases nothing
    assert world.erasure.set_encounter_status(GALLERY, "e-a", EncounterStatus.INACTIVE).templates
    store.holds.lift(GALLERY, "s-a")
    assert world.erasure.set_encounter_status(GALLERY, "e-a", EncounterStatus.WITHDRAWN).templates == ()
    hold(store, "s-a")
    # what is withdrawn already stays so, and loses nothing
    assert world.erasure.set_encounter_status(GALLERY, "e-a", EncounterStatus.WITHDRAWN).templates == ()
    store.holds.lift(GALLERY, "s-a")
    world.erasure.erase_subject(GALLERY, "s-a")
    assert people_in(store) == set()


def test_a_hold_on_a_gallery_holds_everybody_in_it_and_nobody_else(store: SqlStore, world: World) -> None:
    store.create_gallery(replace(store.galleries()[0], gallery_id="abroad"))
    see(store, "a")
    hold(store)
    with pytest.raises(LegalHold, match="the gallery is under legal hold"):
        world.erasure.erase_subject(GALLERY, "s-a")
    with pytest.raises(LegalHold):
        world.erasure.set_encounter_status(GALLERY, "e-a", EncounterStatus.WITHDRAWN)
    with pytest.raises(SubjectNotFound):
        world.erasure.erase_subject("abroad", "s-a")
    with pytest.raises(EncounterNotFound):
        world.erasure.set_encounter_status("abroad", "e-a", EncounterStatus.WITHDRAWN)
    see(store, "b")  # enrolments go on
    store.holds.lift(GALLERY, None)
    world.erasure.erase_subject(GALLERY, "s-a")


def test_a_hold_says_who_and_when_and_the_reason_where_it_is_asked_for(store: SqlStore, clock: Clock) -> None:
    see(store, "a")
    see(store, "b")
    hold(store, "s-a", "asked by the ombudsperson")
    clock.pass_by(hours=1)
    hold(store, "s-a", "again")
    hold(store)
    found = store.holds.hold(GALLERY, "s-a")
    assert (found.set_by, found.set_at, found.reason) == ("supervisor-1", START, "asked by the ombudsperson")
    covering = store.holds.covering(GALLERY, "s-a")
    assert covering is not None
    assert (covering.subject_id, covering.reason) == ("s-a", None)
    whole = store.holds.covering(GALLERY, "s-b")
    assert whole is not None
    assert (whole.subject_id, whole.set_at) == (None, clock.now)
    assert [each.subject_id for each in store.holds.held(GALLERY)] == [None, "s-a"]
    store.holds.lift(GALLERY, None)
    assert store.holds.covering(GALLERY, "s-b") is None
    outcomes = [
        (each.outcome, len(each.references)) for each in store.audit(GALLERY, None, 99, AuditEvent.HOLD_SET).items
    ]
    assert outcomes == [("subject", 1), ("gallery", 0)]
    assert len(events(store, AuditEvent.HOLD_LIFTED)) == 1


def test_a_hold_that_a_restore_brought_back_holds_without_its_reason(store: SqlStore) -> None:
    see(store, "a")
    hold(store)
    with store._write_transaction() as connection:
        key_id = connection.execute(select(legal_holds.c.key_id)).scalar_one()
    store._cipher.destroy([key_id])  # as lifting it did, after the backup
    assert store.holds.hold(GALLERY, None).reason is None
    hold(store)
    store.holds.lift(GALLERY, None)
    assert store.holds.held(GALLERY) == []


def test_lifting_a_hold_on_a_gallery_destroys_the_key_of_its_reason(store: SqlStore) -> None:
    hold(store)
    with store._write_transaction() as connection:
        row = connection.execute(select(legal_holds)).one()
    store.holds.lift(GALLERY, None)
    context = f"legal hold\0{GALLERY}\0".encode()
    assert store._cipher.open_all(GALLERY, [(row.reason, context)]) == [None]


def test_what_is_not_held_cannot_be_lifted(store: SqlStore, world: World) -> None:
    see(store, "a")
    hold(store)
    for gallery_id, subject_id, expected in (
        (GALLERY, "s-a", HoldNotFound),
        (GALLERY, "nobody", HoldNotFound),
        ("nowhere", None, GalleryNotFound),
    ):
        with pytest.raises(expected):
            store.holds.lift(gallery_id, subject_id)
        with pytest.raises(expected):
            store.holds.hold(gallery_id, subject_id)
    with pytest.raises(SubjectNotFound):
        hold(store, "nobody")
    with pytest.raises(GalleryNotFound):
        store.holds.place("nowhere", None, "why")
    assert world.gallery().gallery_id == GALLERY


def test_a_run_that_ended_is_not_ended_again(retention: RetentionService, store: SqlStore, clock: Clock) -> None:
    report = retention.report(GALLERY)
    retention.run(GALLERY, report.report_id)
    (run,) = retention.unfinished()
    runner_of(retention, clock).work()
    retention.fail(run, "late")
    ended = retention.report_of(GALLERY, report.report_id)
    assert (ended.state, ended.error_code) == (ReportState.DONE, None)
    assert store.retention_runs.run(run).state is JobState.DONE
