"""The nouns of biodedup: frozen values without input or output (terms of ISO/IEC 2382-37).

Over 300 lines on purpose: all nouns in one place, nothing but declarations.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")

Embedding = npt.NDArray[np.float32]
"""(D,) float32, L2 norm 1."""

Embeddings = npt.NDArray[np.float32]
"""(n, D) float32, each row of L2 norm 1."""

Image = npt.NDArray[np.uint8]
"""(H, W, 3) uint8, RGB, upright."""


class OutcomeKind(StrEnum):
    """What an enrolment found. A human decides what follows from it."""

    UNIQUE = "UNIQUE"
    REVIEW = "REVIEW"
    DUPLICATE = "DUPLICATE"
    REJECTED = "REJECTED"
    NOT_COMPARED = "NOT_COMPARED"


class CaseKind(StrEnum):
    """Why a human must look: a possible duplicate, or an encounter that does not look like its own subject."""

    DUPLICATE = "DUPLICATE"
    CONTINUITY = "CONTINUITY"
    SWEEP = "SWEEP"  # a possible duplicate that a sweep found: one pair of subjects
    MIGRATION = "MIGRATION"  # one that an enrolment found in the standby pack alone, while the model changes


class CaseStatus(StrEnum):
    OPEN = "OPEN"
    DECIDED = "DECIDED"
    VOID = "VOID"  # every record it compared the person with was erased


class CaseVerdict(StrEnum):
    """What a human made of a case."""

    SAME_PERSON = "SAME_PERSON"
    DIFFERENT_PEOPLE = "DIFFERENT_PEOPLE"
    CANNOT_TELL = "CANNOT_TELL"


class EncounterStatus(StrEnum):
    ACTIVE = "active"
    INACTIVE = "inactive"  # kept, not searched, can be made active again
    WITHDRAWN = "withdrawn"  # templates and samples erased, only the fact of the encounter is left


class JobState(StrEnum):
    """How far a job in the background is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        return self not in {JobState.QUEUED, JobState.RUNNING}


class MigrationStage(StrEnum):
    """How far the change of a gallery's model pack is."""

    MAKING = "making"  # the new pack's templates are being made; the old one rules
    READY = "ready"  # all that can be made are; the old pack rules
    CUT_OVER = "cut_over"  # the new pack rules, the old one stands by
    DROPPING = "dropping"  # one pack was given up and its templates are being deleted
    FINISHED = "finished"  # only the new pack is left
    CANCELLED = "cancelled"  # only the old pack is left

    @property
    def needs_work(self) -> bool:
        return self in {MigrationStage.MAKING, MigrationStage.DROPPING}

    @property
    def has_ended(self) -> bool:
        return self in {MigrationStage.FINISHED, MigrationStage.CANCELLED}


class FacePolicy(StrEnum):
    """What to do when a sample shows several faces."""

    REFUSE = "refuse"
    LARGEST = "largest"
    CENTRAL = "central"


class QualityGate(StrEnum):
    """Which samples a gallery refuses for their quality (`service/quality_rule.py`)."""

    OFF = "off"
    STANDARD = "standard"
    STRICT = "strict"


class Advice(StrEnum):
    """What can be done about a photograph (`service/quality_rule.py` has the words)."""

    MOVE_CLOSER = "move_closer"
    HOLD_STILL = "hold_still"
    MORE_LIGHT = "more_light"
    LESS_LIGHT = "less_light"
    LIGHT_FROM_FRONT = "light_from_front"
    FACE_CAMERA = "face_camera"
    LEVEL_HEAD = "level_head"
    UPRIGHT = "upright"
    ALONE = "alone"
    TAKE_AGAIN = "take_again"


@dataclass(frozen=True, slots=True)
class Box:
    """Pixels of the upright image, origin top left, right and bottom exclusive."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top


@dataclass(frozen=True, slots=True)
class Quality:
    """Facts about a face and its photograph, by the names of ISO/IEC 29794-5 where it has one (`docs/quality.md`).

    What may be None is so in records of before it was measured.
    """

    face_width_px: float
    inter_eye_px: float
    detector_score: float  # 0..1, higher is surer
    sharpness: float  # variance of the Laplacian of the 112 x 112 grey crop, higher is sharper
    brightness: float  # mean grey level of the crop, 0..255
    yaw_deg: float  # estimated from five landmarks: positive when the face is turned to the image's right
    pitch_deg: float  # positive when the face looks up
    roll_deg: float  # in-plane; positive clockwise as seen in the upright image
    face_count: int  # faces seen in the image
    luminance_variance: float | None = None  # of the grey levels of the crop, 0..16256
    under_exposure: float | None = None  # share of the face in the grey levels 0..25
    over_exposure: float | None = None  # share of the face in the grey levels 247..255
    dynamic_range: float | None = None  # entropy of the face's grey levels, 0..8 bits
    illumination_uniformity: float | None = None  # how alike both sides of the face are lit, 0..1
    background_gradient: float | None = None  # mean Sobel gradient beside the head, 0 is even; None too: not seen
    head_size: float | None = None  # estimated distance from the eyes to the chin, share of the image's height
    second_face_share: float | None = None  # area of the next largest face, share of this one's; 0 where there is none
    embedding_norm: float | None = None  # L2 norm that the model gave the embedding, before it was made 1
    unified: int | None = None  # 0..100, higher compares better; None too: the pack has no scale for it


class AttackFinding(StrEnum):
    """What presentation attack detection makes of a sample, in the words of ISO/IEC 30107-3."""

    BONA_FIDE = "bona_fide"
    ATTACK = "attack"


class NotAssessed(StrEnum):
    """Why nothing is said of a presentation attack."""

    NO_MODEL = "no_model"
    NO_FACE = "no_face"  # the sample was refused before its face was looked at
    NOT_ENOUGH_IMAGE = "not_enough_image"  # around the face: the model would see what is not there
    MODEL_FAILED = "model_failed"  # it gave no probability


@dataclass(frozen=True, slots=True)
class PresentationAttack:
    """Whether a sample may show a print, a screen or a mask; a hint for a human, never a decision.

    Either `reason` says why it was not assessed, or the other three say what was found.
    """

    reason: NotAssessed | None = NotAssessed.NO_MODEL
    finding: AttackFinding | None = None
    score: float | None = None  # 0..1, higher: more surely bona fide
    threshold: float | None = None  # the finding is `bona_fide` from this score on

    @property
    def is_attack(self) -> bool:
        return self.finding is AttackFinding.ATTACK


NO_ATTACK_MODEL = PresentationAttack()


@dataclass(frozen=True, slots=True)
class Template:
    """What is stored of a face: the embedding, the pack that made it and the facts about its sample."""

    pack_id: str
    embedding: Embedding = field(repr=False)
    quality: Quality
    box: Box
    presentation_attack: PresentationAttack = NO_ATTACK_MODEL  # kept with the enrolment, not with the template


@dataclass(frozen=True, slots=True)
class CaptureFacts:
    """What is known of a capture that tells people, and their ages, apart."""

    sex: str | None = None
    birth_year: int | None = None
    captured_at: datetime | None = None
    recorded_at: datetime | None = None  # when it was enrolled: stands in where nobody says when it was captured


@dataclass(frozen=True, slots=True)
class Band:
    """The people among whom a filtered search looks: of one sex, or born in these years, or both."""

    sex: str | None
    birth_years: tuple[int, int] | None  # the first and the last

    def leaves_out(self, capture: CaptureFacts) -> bool:
        """Whether a capture is known to be of somebody else; what is not known leaves nobody out."""
        if self.sex is not None and capture.sex in FILTERED_SEXES and capture.sex != self.sex:
            return True
        if self.birth_years is None or capture.birth_year is None:
            return False
        return not self.birth_years[0] <= capture.birth_year <= self.birth_years[1]


FILTERED_SEXES = frozenset({"female", "male"})
"""`other` and `unknown` leave nobody out and are left out of no search."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """A set of references that are searched together, with its own pack and error rates."""

    gallery_id: str
    pack_id: str
    review_fpir: float
    duplicate_fpir: float
    verification_fmr: float
    keep_samples: bool
    created_at: datetime
    last_seq: int = 0
    template_count: int = 0  # templates that are searched now
    model_id: str | None = None  # of its templates, set by the first: templates of two models are never compared
    timeline_id: str = ""  # of the ruling pack's templates; a restore renews it, so that indexes of before are noticed
    calibration_id: str | None = None  # that judges its scores; None: the one that comes with the pack
    thresholds_key: str | None = (
        None  # what its thresholds followed from when they were last written to the audit trail
    )
    several_count: int = 0  # subjects with several samples that are searched now, by whichever of its packs
    quality_gate: QualityGate = QualityGate.OFF
    filter_by_sex: bool = False
    filter_by_birth_year: bool = False
    birth_year_tolerance: int = 5  # years: ages without papers are often told in fives and tens
    min_duplicate_age: int = 18  # years: below it nothing is DUPLICATE; who is younger is a child (CRC, article 1)
    review_unknown_age: bool = False  # whether somebody of unknown age counts as younger
    # while the model pack changes: the pack that does not rule, into which everything is written too
    standby_pack_id: str | None = None
    standby_model_id: str | None = None
    standby_timeline_id: str = ""  # new whenever a pack begins to stand by: the log tells of no dropped templates
    standby_calibration_id: str | None = None
    standby_template_count: int = 0
    paired_count: int = 0  # samples with a template of each pack that are searched now
    searched_seq: int = 0  # the last change that an enrolment into another gallery has seen, which searched this one

    @property
    def pack_ids(self) -> tuple[str, ...]:
        """The ruling pack, then the one that stands by."""
        return (self.pack_id,) if self.standby_pack_id is None else (self.pack_id, self.standby_pack_id)

    @property
    def standby_only_count(self) -> int:
        """Templates of the standby pack whose sample has none of the ruling one: searched there, or nowhere."""
        return self.standby_template_count - self.paired_count

    def swapped(self) -> "Gallery":
        """The same gallery as it would be if the standby pack ruled. It must have one."""
        assert self.standby_pack_id is not None
        return replace(
            self,
            pack_id=self.standby_pack_id,
            model_id=self.standby_model_id,
            timeline_id=self.standby_timeline_id,
            calibration_id=self.standby_calibration_id,
            template_count=self.standby_template_count,
            standby_pack_id=self.pack_id,
            standby_model_id=self.model_id,
            standby_timeline_id=self.timeline_id,
            standby_calibration_id=self.calibration_id,
            standby_template_count=self.template_count,
        )

    def sides(self) -> "tuple[Gallery, ...]":
        """The gallery as each of its packs sees it, the ruling one first."""
        return (self,) if self.standby_pack_id is None else (self, self.swapped())


GALLERY_SETTINGS = (
    "review_fpir",
    "duplicate_fpir",
    "verification_fmr",
    "keep_samples",
    "calibration_id",
    "quality_gate",
    "filter_by_sex",
    "filter_by_birth_year",
    "birth_year_tolerance",
    "min_duplicate_age",
    "review_unknown_age",
)
"""The fields of a gallery that its keepers set."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A stored template as the gallery searches it."""

    reference_id: int
    subject_id: str
    encounter_id: str
    embedding: Embedding = field(repr=False)
    verifies: bool  # false where the continuity check failed: searched, but never verifies anyone
    capture: CaptureFacts = CaptureFacts()


@dataclass(frozen=True, slots=True)
class Probes:
    """References that act as probes, in the order of their ids."""

    reference_ids: tuple[int, ...]
    embeddings: Embeddings = field(repr=False)  # (n, D) float32, a row for each id; (0, 0) where there is none

    def __len__(self) -> int:
        return len(self.reference_ids)


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a gallery's change log. Sequence numbers start at 1 and have no gaps.

    `added` holds only templates that still exist: one that was erased later is in a later `removed`.
    """

    seq: int
    added: tuple[tuple[int, Embedding], ...]
    removed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Hit:
    """A reference at or above a search threshold, before it is known whose it is."""

    reference_id: int
    score: float


@dataclass(frozen=True, slots=True)
class FalseMatchRate:
    """Chance that two different people score this high, with its upper 95 % bound."""

    fmr: float
    fmr_upper: float
    extrapolated: bool


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Score thresholds that follow from the wanted error rates and the number of comparisons."""

    comparisons: int
    review_fpir: float
    duplicate_fpir: float
    review: float
    duplicate: float | None  # None: no score meets the target with its upper bound
    review_fmr: float
    duplicate_fmr: float
    extrapolated: bool
    expected_fnir: float
    expected_fnir_population: str
    # both are missing in what was recorded before thresholds had stated sizes
    calibration_id: str | None = None  # by which a score became a false match rate
    stated_comparisons: int | None = None  # the next stated size above `comparisons`, for which the thresholds hold


@dataclass(frozen=True, slots=True)
class ThresholdChange:
    """That the thresholds of a gallery are others than those last written to the audit trail, and which."""

    key: str
    thresholds: Thresholds
    reason: Literal["size", "rates", "calibration", "model"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A subject that the gallery returned, by its best reference. Rank counts from 1.

    `false_match` is the rate of the best single pair: the calibration is of single pairs.
    """

    rank: int
    subject_id: str | None  # None once that subject was erased
    encounter_id: str | None
    reference_id: int | None
    score: float
    false_match: FalseMatchRate
    gallery_id: str | None = None  # where it is another gallery's, which a sweep or an enrolment searched too
    # of the best single pair, where several samples were fused: then `score` is that or the fused one, the higher
    pair_score: float | None = None
    age_at_capture: int | None = None  # of the candidate: the year of capture less that of birth; perhaps one less
    years_between: float | None = None  # between the candidate's capture and the probe's
    pack_id: str | None = None  # where its score is of another pack than the one that ruled: the standby pack


@dataclass(frozen=True, slots=True)
class SearchFilter:
    """How a search was limited, and what became of those outside.

    All templates are compared. Inside the band a candidate needs the review threshold of so many templates, outside
    that of the whole gallery: nobody is lost whom an unfiltered search would have found. What it was limited to is not
    repeated here: it follows from the facts of the encounter.
    """

    by_sex: bool
    birth_year_tolerance: int | None  # years, None: not limited by the year of birth
    left_out: int  # templates known to be outside
    comparisons: int  # within the band
    review_outside: float  # threshold for those outside
    expected_fpir: float  # of both together, if people of one sex and age are alike no more than others are
    fpir_upper: float  # if all false matches are within the band
    expected_fnir: float | None  # with wrong metadata counted in; None: nobody was enrolled twice to tell
    wrong_metadata: float | None  # share of people of several encounters whose metadata put one out of the other's band


@dataclass(frozen=True, slots=True)
class MetadataAgreement:
    """How often what is recorded of one person at several encounters would put one out of the other's band."""

    people: int  # with the same fact known at two encounters or more
    disagreeing: int


@dataclass(frozen=True, slots=True)
class SearchedGallery:
    """What a search of several galleries covered in one of them; its numbers are None where they may not be told."""

    gallery_id: str
    gallery_size: int | None  # templates compared
    high_water_mark: int | None
    complete: bool
    miss_bound: float | None


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search covered. `complete` means that every segment and shard was searched.

    Of several galleries: `gallery_size` is the sum, `high_water_mark` that of the gallery which asked, and it is
    complete where all of them are.
    """

    gallery_size: int  # templates compared
    high_water_mark: int
    complete: bool
    # upper 95 % bound on the share of pairs at or above the threshold that the index misses; 0 when all were compared;
    # None where it may not be told
    miss_bound: float | None = 0.0
    filter: SearchFilter | None = None  # None: nobody was outside
    galleries: tuple[SearchedGallery, ...] = ()  # each of several, the one that asked first; none where it was alone


@dataclass(frozen=True, slots=True)
class Continuity:
    """Whether a further encounter looks like the earlier ones of the same subject."""

    score: float
    threshold: float
    passed: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """The finding of one enrolment or search."""

    outcome: OutcomeKind
    candidates: tuple[Candidate, ...]
    thresholds: Thresholds
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EncounterFacts:
    """What the registration system says of one encounter. Everything is optional."""

    captured_at: datetime | None = None
    site: str | None = None
    operator_ref: str | None = None
    birth_year: int | None = None
    sex: str | None = None
    labels: tuple[tuple[str, str], ...] = ()

    def capture(self, recorded_at: datetime | None = None) -> CaptureFacts:
        """Return what tells people and ages apart, with moments in UTC: a year begins everywhere at once."""
        captured_at = self.captured_at.astimezone(UTC) if self.captured_at is not None else None
        return CaptureFacts(self.sex, self.birth_year, captured_at, recorded_at)


@dataclass(frozen=True, slots=True)
class SampleFinding:
    """What became of one submitted sample: a template, or a rejection code."""

    position: int  # from 0, in the order submitted
    reference_id: int | None
    rejection_code: str | None
    quality: Quality | None
    box: Box | None
    presentation_attack: PresentationAttack = NO_ATTACK_MODEL


@dataclass(frozen=True, slots=True)
class Enrolment:
    """The recorded answer to one enrolment, with every candidate that was shown."""

    enrolment_id: str
    gallery_id: str
    subject_id: str
    encounter_id: str
    outcome: OutcomeKind
    candidates: tuple[Candidate, ...]
    thresholds: Thresholds | None  # None where nothing was compared
    searched: Searched | None
    continuity: Continuity | None
    samples: tuple[SampleFinding, ...]
    biometric_exception: str | None
    case_ids: tuple[int, ...]
    warnings: tuple[str, ...]
    seq: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class NewTemplate:
    """A template on its way into the record."""

    position: int
    template: Template
    model_id: str
    verifies: bool
    sample: bytes | None = field(repr=False)  # the submitted bytes, where the gallery keeps samples


@dataclass(frozen=True, slots=True)
class NewEnrolment:
    """All that one enrolment writes, in one transaction."""

    enrolment_id: str
    subject_id: str
    encounter_id: str
    facts: EncounterFacts
    biometric_exception: str | None
    content_digest: str  # SHA-256 hex over the canonical fields and the digests of the samples
    idempotency_key: str | None
    outcome: OutcomeKind
    candidates: tuple[Candidate, ...]
    thresholds: Thresholds | None
    searched: Searched | None
    continuity: Continuity | None
    templates: tuple[NewTemplate, ...]
    rejected_samples: tuple[SampleFinding, ...]
    cases: tuple[CaseKind, ...]
    warnings: tuple[str, ...]
    threshold_change: ThresholdChange | None = None
    standby_templates: tuple[NewTemplate, ...] = ()  # of the same samples, made by the standby pack
    standby_candidates: tuple[Candidate, ...] = ()  # found by that pack alone: a case of kind MIGRATION each


@dataclass(frozen=True, slots=True)
class EarlierRequest:
    """What is remembered of an earlier request under the same `Idempotency-Key` or `encounter_id`."""

    content_digest: str
    enrolment: Enrolment | None
    rejection_code: str | None = None
    rejection_message: str | None = None


@dataclass(frozen=True, slots=True)
class TemplateFacts:
    """A stored template without its embedding."""

    reference_id: int
    position: int
    pack_id: str
    model_id: str
    verifies: bool
    quality: Quality | None  # None of both where the template was imported
    box: Box | None


@dataclass(frozen=True, slots=True)
class Encounter:
    encounter_id: str
    gallery_id: str
    subject_id: str
    status: EncounterStatus
    facts: EncounterFacts
    biometric_exception: str | None
    templates: tuple[TemplateFacts, ...]
    has_samples: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Subject:
    subject_id: str
    gallery_id: str
    encounter_ids: tuple[str, ...]  # in the order of enrolment
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Case:
    """A pair, or a set of pairs, that a human must look at.

    The case of a sweep belongs to the later of the two encounters, or to that in the swept gallery where the other is
    in another one, and names the other as `candidate`; those of the other kinds have their candidates in the enrolment.
    """

    case_id: int
    gallery_id: str
    kind: CaseKind
    status: CaseStatus
    enrolment_id: str
    subject_id: str
    encounter_id: str
    created_at: datetime
    candidate: Candidate | None = None
    job_id: int | None = None  # of the sweep that opened it
    verdict: CaseVerdict | None = None
    decided_by: str | None = None  # a code, not a name
    decided_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CaseDecision:
    """What a human says of a case; `decided_by` is a code, not a name."""

    verdict: CaseVerdict | None  # None: it is open again
    decided_by: str


@dataclass(frozen=True, slots=True)
class Sweep:
    """The comparison of a whole gallery with itself or with another, as a job that goes on where it stopped."""

    job_id: int
    gallery_id: str
    state: JobState
    allowed_false_pairs: int
    threshold: float
    cursor: int  # the last reference that was compared, 0 before the first
    last_reference_id: int  # the sweep ends with it: who came later was compared when enrolled
    started_seq: int  # the last change of the searched gallery when the sweep began
    done: int  # references compared
    total: int  # references to compare
    found_pairs: int  # pairs of templates of different subjects at or above the threshold
    cases_opened: int
    worked_s: float  # seconds spent on it, without interruptions
    error_code: str | None  # why it failed
    created_at: datetime
    updated_at: datetime
    other_gallery_id: str | None = None  # whose references are searched; None: the gallery's own

    left_out: int = 0  # templates of the standby pack alone when it began: their people were not compared

    @property
    def searched_gallery_id(self) -> str:
        return self.other_gallery_id or self.gallery_id

    @property
    def needs_work(self) -> bool:
        return not self.state.has_ended


@dataclass(frozen=True, slots=True)
class FoundPair:
    """A possible duplicate: an encounter of one subject, and the reference of another that looks like it.

    The reference is earlier, or in another gallery.
    """

    subject_id: str
    encounter_id: str
    candidate: Candidate
    is_counted: bool = True  # among the found pairs of its step; else it counts where it opens a case


@dataclass(frozen=True, slots=True)
class SweepStep:
    """What one block of a sweep found. It is written only where the sweep still stands at `after`."""

    after: int
    cursor: int
    done: int
    found_pairs: int
    pairs: tuple[FoundPair, ...]  # one a pair of subjects
    worked_s: float
    is_last: bool


@dataclass(frozen=True, slots=True)
class Migration:
    """The change of a gallery from one model pack to another, as a job that goes on where it stopped."""

    job_id: int
    gallery_id: str
    from_pack_id: str
    to_pack_id: str
    stage: MigrationStage
    cursor: int  # while templates are made: the last reference of the old pack that was looked at
    last_reference_id: int  # making ends with it: who is enrolled later gets templates of both packs at once
    done: int  # references looked at, or deleted while a pack is dropped
    total: int
    cases_opened: int  # pairs that enrolments found in the standby pack alone
    worked_s: float
    error_code: str | None  # why it gets no further now
    created_at: datetime
    updated_at: datetime

    @property
    def needs_work(self) -> bool:
        return self.stage.needs_work


@dataclass(frozen=True, slots=True)
class KeptSample:
    """A sample as it was sent, and of whom it is."""

    subject_id: str
    image: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Held:
    """All that a gallery holds of a subject."""

    subject: Subject
    encounters: tuple[Encounter, ...]
    enrolments: tuple[Enrolment, ...]
    samples: tuple[tuple[str, int], ...]
    """Encounter and position of each kept image."""
    own_cases: tuple[Case, ...]
    other_cases: tuple[Case, ...]
    """Of others, with this subject as the candidate."""


@dataclass(frozen=True, slots=True)
class StoredSample:
    """A template of the old pack, and the sample it was made from, None where that was not kept."""

    reference_id: int
    sample: bytes | None = field(repr=False)
    box: Box | None = None  # of the face in it, None where nobody knows


@dataclass(frozen=True, slots=True)
class MigratedTemplate:
    """A new template, made from the sample of an old one."""

    reference_id: int  # of the old one
    template: Template
    model_id: str


@dataclass(frozen=True, slots=True)
class MigrationStep:
    """What one block of a migration made. It is written only where the migration still stands at `after`."""

    after: int
    cursor: int
    done: int
    templates: tuple[MigratedTemplate, ...]
    worked_s: float
    is_last: bool


@dataclass(frozen=True, slots=True)
class PairedTemplate:
    """The templates of one sample by two packs."""

    subject_id: str
    encounter_id: str
    verifies: bool
    first: Embedding = field(repr=False)
    second: Embedding = field(repr=False)


@dataclass(frozen=True, slots=True)
class MissingSubject:
    """A person who has no template of a certain pack, or none that is searched: to be captured again."""

    subject_id: str
    has_sample: bool  # a sample was kept, and that pack finds no usable face in it


@dataclass(frozen=True, slots=True)
class Lease:
    """Who works on a job, and until when nobody else may."""

    owner: str
    until: datetime


@dataclass(frozen=True, slots=True)
class GalleryCounts:
    """What a gallery holds now."""

    subjects: int
    encounters: int
    templates: int  # searched now
    biometric_exceptions: int
    open_cases: int
    outcomes: tuple[tuple[OutcomeKind, int], ...]


@dataclass(frozen=True, slots=True)
class ErasedParts:
    """How much of a subject was erased, by kind."""

    data_keys: int  # 1; 0 where nothing is encrypted
    encounters: int
    enrolments: int
    templates: int
    index_places: int  # of the templates, those that were searched
    samples: int
    candidates: int  # that were found for the subject
    cases: int
    mentions: int  # among what was found for others, where the score stays and the ids went


@dataclass(frozen=True, slots=True)
class ErasureRecord:
    """What the record keeps of an erasure for good: nothing that leads to the person."""

    receipt_id: str
    gallery_id: str
    seq: int  # the change that it was
    key_id: str | None
    erased_at: datetime
    compacted_by: datetime
    key_backups_until: datetime
    parts: ErasedParts
    public_key_id: str
    digest: str  # SHA-256 of the receipt, hexadecimal
    repeat_digest: str | None  # by which a repeated request is known again


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was erased of a subject, and the signed receipt of it."""

    record: ErasureRecord
    receipt: bytes = b""

    @property
    def encounters(self) -> int:
        return self.record.parts.encounters

    @property
    def templates(self) -> int:
        return self.record.parts.templates

    @property
    def samples(self) -> int:
        return self.record.parts.samples

    @property
    def seq(self) -> int:
        return self.record.seq


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a listing. `next_after` is the cursor of the next page, None on the last."""

    items: tuple[T, ...]
    next_after: str | None
