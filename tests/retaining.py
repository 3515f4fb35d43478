"""Galleries whose people are due or not, and a retention service over a store."""

from datetime import datetime
from pathlib import Path

from service.acting import Actor, acting_as
from service.domain import Enrolment, JobState, Lease, NewTemplate, Template
from service.job_runner import JobRunner
from service.retention import RetentionService
from service.retention_rule import RetentionReport, RetentionRule, RetentionRun
from service.store.sql_store import SqlStore
from tests import postgres
from tests.store.building import Clock, embedding_of, enrol, new_enrolment, new_ring
from tests.synthetic import BOX, PACK_ID, QUALITY, PersonEmbedder
from tests.world import GALLERY, World

RULE = RetentionRule(GALLERY, retain_days=100, retain_samples_days=30)
LEASE = Lease("tester", datetime(2100, 1, 1).astimezone())


def database_url(kind: str, folder: Path) -> str:
    return f"sqlite:///{folder}/record.sqlite" if kind == "sqlite" else postgres.fresh_database()


def encrypted_store(url: str, clock: Clock) -> SqlStore:
    store = SqlStore(url, clock, cipher=new_ring())
    store.migrate()
    return store


def see(store: SqlStore, name: str, subject_id: str | None = None, *, sample: bytes | None = b"image") -> Enrolment:
    """Enrol encounter `e-<name>`, of subject `s-<name>` unless another one is given, now."""
    template = Template(PACK_ID, embedding_of(name), QUALITY, BOX)
    templates = [NewTemplate(0, template, PersonEmbedder.model_id, verifies=True, sample=sample)]
    return enrol(store, new_enrolment(name, subject_id, templates=templates))


def fill(store: SqlStore, clock: Clock) -> None:
    """At the end: three people older than 100 days, one seen again, one of 50 days, one of today.

    All have a sample; `s-again` has two encounters, the second 60 days old.
    """
    for name in ("old", "older", "again", "held"):
        see(store, name)
    clock.pass_by(days=60)
    see(store, "again-2", "s-again")
    clock.pass_by(days=10)
    see(store, "mid")
    clock.pass_by(days=50)
    see(store, "new")


def retention_of(world: World, store: SqlStore) -> RetentionService:
    return RetentionService(store.retention, store.retention_runs, world.erasure, world.metrics, store._clock)


def runner_of(retention: RetentionService, clock: Clock) -> JobRunner[RetentionRun]:
    return JobRunner(retention, name="retention", is_alone=True, clock=clock, retry_s=0, on_look=retention.look)


def hold(store: SqlStore, subject_id: str | None = None, reason: str = "complaint 17") -> None:
    with acting_as(Actor("supervisor-1")):
        store.holds.place(GALLERY, subject_id, reason)


def lines_of(
    retention: RetentionService, report: RetentionReport
) -> dict[tuple[str, str | None], tuple[str, datetime]]:
    """Return the reason and date of each line that is not held, by subject and encounter."""
    items = retention.items(GALLERY, report.report_id, None, 200).items
    return {(each.due.subject_id, each.due.encounter_id): (each.due.reason.value, each.due.due_at) for each in items}


def people_in(store: SqlStore) -> set[str]:
    return {each.subject_id for each in store.subjects(GALLERY, None, 200).items}


def with_samples(store: SqlStore) -> set[str]:
    return {each.encounter_id for each in store.encounters(GALLERY, None, None, 200).items if each.has_samples}


def leased(store: SqlStore, report: RetentionReport) -> RetentionRun:
    """Begin the run of a report in the tester's hands."""
    store.retention_runs.begin_run(GALLERY, report.report_id)
    (waiting,) = store.retention_runs.unfinished_runs()
    taken = store.retention_runs.lease_run(waiting, LEASE)
    assert taken is not None
    assert taken.state is JobState.RUNNING
    return taken
