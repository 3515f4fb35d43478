"""How long a gallery keeps whom: its rule, what is due by it, legal holds, and the report that a run acts on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from service.domain import JobState

REPORT_HOLDS = timedelta(hours=24)
"""How long a report may be acted on; and how long an automatic one is shown before it is."""

RUN_ENDS_WITHIN = timedelta(hours=48)
"""After the last moment at which a report could be acted on: a run that was interrupted for longer does not go on."""

RUN_RESTS_WITHIN = timedelta(hours=6)
"""Between two lines of a run, or before the first. What rested for longer may have come back with a backup."""

CLOCK_TOLERANCE = timedelta(minutes=5)
"""By how much the clocks of several processes may differ."""

LONGEST_PAUSE = timedelta(days=30)
"""Between two looks at an automatic rule. After a longer one the service was off, or its clock jumped: a human says."""


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """What a gallery keeps no longer. None: not limited so."""

    gallery_id: str
    retain_days: int | None = None  # from a subject's latest encounter, as the record dates it
    retain_samples_days: int | None = None  # from the encounter of the samples; templates stay
    campaign_ends_at: datetime | None = None  # from then on everybody in the gallery is due
    automatic: bool = False  # reported and, a day later, acted on by the service itself
    version: int = 0  # of the rule: each change is another
    changed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """That nothing of a subject, or of a whole gallery, may be erased."""

    gallery_id: str
    subject_id: str | None  # None: the whole gallery
    set_by: str  # the client
    set_at: datetime
    reason: str | None = None  # None where it was not asked for, or is forgotten


@dataclass(frozen=True, slots=True)
class RetentionFigures:
    """What a scrape shows of one gallery."""

    gallery_is_held: bool
    held_subjects: int
    due_subjects: int  # by its last report, until that was acted on
    due_encounters: int
    acts_at: datetime | None  # when the service acts on an automatic report


class DueReason(StrEnum):
    """Why something is due."""

    AGE = "age"
    CAMPAIGN_ENDED = "campaign_ended"
    SAMPLES_AGE = "samples_age"


class SkipReason(StrEnum):
    """Why a run left somebody alone whom its report named."""

    HELD = "legal_hold"
    SEEN_AGAIN = "seen_again"


@dataclass(frozen=True, slots=True)
class SeenAt:
    """A subject and when its latest encounter was recorded."""

    subject_id: str
    last_seen_at: datetime


@dataclass(frozen=True, slots=True)
class KeptSamples:
    """An encounter of which samples are kept, and when it was recorded."""

    subject_id: str
    encounter_id: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Due:
    """A subject that is to be erased or, with an encounter, samples that are."""

    subject_id: str
    encounter_id: str | None
    reason: DueReason
    due_at: datetime


@dataclass(frozen=True, slots=True)
class RetentionItem:
    """One line of a report."""

    item_id: int
    due: Due
    is_held: bool  # when the report was made: the run leaves it alone
    skipped: SkipReason | None = None


class ReportState(StrEnum):
    """How far a report is."""

    MAKING = "making"
    MADE = "made"
    SUPERSEDED = "superseded"  # a newer one took its place
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """What would be erased by a rule as it was, and what became of it. Its lines are listed apart."""

    report_id: int
    gallery_id: str
    rule: RetentionRule  # it was made from
    automatic: bool  # the service made it and will act on it
    state: ReportState
    made_at: datetime
    made_seq: int  # the gallery's last change then: who was seen later is not erased
    acts_at: datetime | None  # when the service acts on it by itself
    expires_at: datetime  # from then on nobody can
    due_subjects: int
    due_encounters: int  # of which the samples alone are due
    held: int  # lines that are due and under legal hold: listed, not touched
    erased_subjects: int
    erased_samples: int
    skipped_held: int  # put on hold between the report and the run
    skipped_seen_again: int
    already_gone: int  # erased by somebody else meanwhile
    job_id: int | None
    done: int  # lines that the run is through with
    total: int  # lines that the run is to go through
    error_code: str | None  # why the run stopped


@dataclass(frozen=True, slots=True)
class RetentionRun:
    """The job that acts on a report."""

    job_id: int
    gallery_id: str
    report_id: int
    state: JobState
    cursor: int  # the last line that was dealt with, 0 before the first
    done: int
    total: int

    @property
    def needs_work(self) -> bool:
        return not self.state.has_ended

    @property
    def cases_opened(self) -> int:
        """What a job in the background tells of itself; a run opens none."""
        return 0


class SeenAgain(Exception):
    """A subject that was due got an encounter since the report was made."""


class RunLost(Exception):
    """The run ended, or is another process's."""


def due_lines(rule: RetentionRule, seen: Iterable[SeenAt], kept: Sequence[KeptSamples], as_of: datetime) -> list[Due]:
    """Return what is due at `as_of`: whole subjects first, then samples of those who stay."""
    subjects = [each for each in (_due_subject(rule, person, as_of) for person in seen) if each is not None]
    leaving = {each.subject_id for each in subjects}
    if rule.retain_samples_days is None:
        return subjects
    period = timedelta(days=rule.retain_samples_days)
    samples = [
        Due(each.subject_id, each.encounter_id, DueReason.SAMPLES_AGE, each.recorded_at + period)
        for each in kept
        if each.subject_id not in leaving and each.recorded_at + period <= as_of
    ]
    return subjects + samples


def _due_subject(rule: RetentionRule, person: SeenAt, as_of: datetime) -> Due | None:
    dates = []
    if rule.retain_days is not None:
        dates.append((person.last_seen_at + timedelta(days=rule.retain_days), DueReason.AGE))
    if rule.campaign_ends_at is not None:
        dates.append((rule.campaign_ends_at, DueReason.CAMPAIGN_ENDED))
    due_at, reason = min(dates, default=(None, DueReason.AGE))
    if due_at is None or due_at > as_of:
        return None
    return Due(person.subject_id, None, reason, due_at)
