"""The cases of what an enrolment found in the standby pack alone, while a gallery changes its model."""

from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from service.domain import CaseKind, CaseStatus, MigrationStage, NewEnrolment
from service.store.rows import candidate_columns
from service.store.tables import case_pairs, cases, jobs

SWEEP_KIND, MIGRATION_KIND = "sweep", "migration"
"""The kinds of jobs."""

UNFINISHED_STAGES = tuple(stage.value for stage in MigrationStage if not stage.has_ended)


def open_standby_cases(connection: Connection, gallery_id: str, enrolment: NewEnrolment, now: datetime) -> None:
    """Open a case for each candidate of the standby pack, in the name of the migration that is under way."""
    of_gallery = (jobs.c.gallery_id == gallery_id, jobs.c.kind == MIGRATION_KIND, jobs.c.stage.in_(UNFINISHED_STAGES))
    job_id = connection.execute(select(jobs.c.job_id).where(*of_gallery)).scalar_one()
    case = {
        "gallery_id": gallery_id,
        "enrolment_id": enrolment.enrolment_id,
        "kind": CaseKind.MIGRATION.value,
        "status": CaseStatus.OPEN.value,
        "created_at": now,
    }
    for candidate in enrolment.standby_candidates:
        case_id = connection.execute(insert(cases).values(case).returning(cases.c.case_id)).scalar_one()
        other = candidate_columns(candidate)
        del other["rank"]  # a pair has one candidate
        connection.execute(insert(case_pairs).values(**other, case_id=case_id, gallery_id=gallery_id, job_id=job_id))
    opened = len(enrolment.standby_candidates)
    connection.execute(update(jobs).where(jobs.c.job_id == job_id).values(cases_opened=jobs.c.cases_opened + opened))
