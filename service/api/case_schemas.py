"""What the service answers about cases and sweeps."""

from datetime import datetime

from pydantic import Field

from service import domain
from service.api.sample_schemas import Out
from service.api.schemas import CandidateOut, PageOut
from service.domain import CaseKind, CaseStatus, CaseVerdict, JobState
from service.sweep import progress_of, seconds_left


class CaseCandidateOut(CandidateOut):
    """The other subject of a pair, which may be in another gallery. The ids are null once that subject was erased."""

    gallery_id: str

    @classmethod
    def in_case(cls, case: domain.Case, candidate: domain.Candidate) -> "CaseCandidateOut":
        return cls(**{**dict(CandidateOut.of(candidate)), "gallery_id": candidate.gallery_id or case.gallery_id})


class CaseOut(Out):
    """What a human must look at. `candidate` and `job_id` are those of a sweep's or a migration's case, else null."""

    case_id: int
    gallery_id: str
    kind: CaseKind
    status: CaseStatus
    enrolment_id: str
    subject_id: str
    encounter_id: str
    candidate: CaseCandidateOut | None = Field(
        description="The other subject of the pair that a sweep found, or an enrolment in the standby pack alone "
        "(`MIGRATION`); the candidates of the other kinds are in the "
        "enrolment."
    )
    job_id: int | None = Field(description="The sweep or migration that opened the case.")
    created_at: datetime
    verdict: CaseVerdict | None = Field(description="What a human decided last; null while nobody did.")
    decided_by: str | None = Field(description="The caller that decided, then whom it named: `client:hq/analyst-7`.")
    decided_at: datetime | None

    @classmethod
    def of(cls, case: domain.Case) -> "CaseOut":
        return cls(
            case_id=case.case_id,
            gallery_id=case.gallery_id,
            kind=case.kind,
            status=case.status,
            enrolment_id=case.enrolment_id,
            subject_id=case.subject_id,
            encounter_id=case.encounter_id,
            candidate=CaseCandidateOut.in_case(case, case.candidate) if case.candidate else None,
            job_id=case.job_id,
            created_at=case.created_at,
            verdict=case.verdict,
            decided_by=case.decided_by,
            decided_at=case.decided_at,
        )


class CasesOut(PageOut[CaseOut]):
    pass


class SweepPlanOut(Out):
    """What a sweep would do."""

    gallery_id: str
    other_gallery_id: str | None = Field(description="The gallery it is compared with; null: with itself.")
    templates: int
    comparisons: int = Field(
        description="Pairs of templates: N (N - 1) / 2, or N times the templates of the other gallery."
    )
    allowed_false_pairs: int
    fmr: float = Field(description="allowed_false_pairs / comparisons, and never above the gallery's verification_fmr.")
    threshold: float
    extrapolated: bool
    expected_fnir: float = Field(description="Share of duplicates that the threshold is expected to miss.")
    expected_fnir_population: str
    estimated_s: float = Field(description="Seconds of work, from a search of a few templates just now.")
    left_out: int = Field(
        description="While the gallery changes its model: templates of people whom only the standby pack knows; they "
        "are not compared."
    )


class SweepOut(Out):
    """A sweep, under way or ended."""

    job_id: int
    gallery_id: str
    other_gallery_id: str | None = Field(description="The gallery it is compared with; null: with itself.")
    state: JobState
    allowed_false_pairs: int
    threshold: float
    done: int = Field(description="Templates compared with all others, or with all of the other gallery.")
    total: int
    progress: float = Field(description="0 to 1.")
    seconds_left: float | None = Field(description="Seconds of work that are left; null before the first block.")
    found_pairs: int = Field(
        description="Pairs of templates of different subjects at or above the threshold; each once."
    )
    cases_opened: int = Field(description="One for each pair of subjects that had no case yet.")
    left_out: int = Field(description="Templates that only the standby pack had when it began: not compared.")
    error_code: str | None = Field(description="Why it failed.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, sweep: domain.Sweep) -> "SweepOut":
        return cls(
            job_id=sweep.job_id,
            gallery_id=sweep.gallery_id,
            other_gallery_id=sweep.other_gallery_id,
            state=sweep.state,
            allowed_false_pairs=sweep.allowed_false_pairs,
            threshold=sweep.threshold,
            done=sweep.done,
            total=sweep.total,
            progress=progress_of(sweep),
            seconds_left=seconds_left(sweep),
            found_pairs=sweep.found_pairs,
            cases_opened=sweep.cases_opened,
            left_out=sweep.left_out,
            error_code=sweep.error_code,
            created_at=sweep.created_at,
            updated_at=sweep.updated_at,
        )


class SweepsOut(PageOut[SweepOut]):
    pass
