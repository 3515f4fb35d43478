"""Who works on a job: one process at a time, until its lease runs out."""

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, or_, update

from service.domain import JobState, Lease
from service.store.rows import AnyRow
from service.store.tables import jobs


def take_lease(
    connection: Connection, job_id: int, lease: Lease, needs_work: ColumnElement[bool], now: datetime
) -> AnyRow | None:
    """Take a job to work on it and return its row; None where it needs no work or somebody else is at it."""
    is_free = or_(jobs.c.leased_by.is_(None), jobs.c.leased_by == lease.owner, jobs.c.leased_until < now)
    return connection.execute(
        update(jobs)
        .where(jobs.c.job_id == job_id, needs_work, is_free)
        .values(state=JobState.RUNNING.value, leased_by=lease.owner, leased_until=lease.until)
        .returning(*jobs.c)
    ).one_or_none()


def release_lease(connection: Connection, gallery_id: str, job_id: int, owner: str) -> None:
    """Let somebody else go on with a job, if it is this owner's."""
    connection.execute(
        update(jobs)
        .where(jobs.c.gallery_id == gallery_id, jobs.c.job_id == job_id, jobs.c.leased_by == owner)
        .values(leased_by=None, leased_until=None)
    )
