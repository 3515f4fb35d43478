"""Between rows and the nouns of the domain.

A little over 300 lines: each noun to its columns and back, nothing else.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Row

from service.ages import age_at_capture, years_between
from service.domain import (
    GALLERY_SETTINGS,
    NO_ATTACK_MODEL,
    AttackFinding,
    Box,
    Candidate,
    CaptureFacts,
    Case,
    CaseKind,
    CaseStatus,
    CaseVerdict,
    Continuity,
    Embedding,
    Encounter,
    EncounterFacts,
    EncounterStatus,
    Enrolment,
    FalseMatchRate,
    Gallery,
    JobState,
    Migration,
    MigrationStage,
    NewEnrolment,
    NewTemplate,
    NotAssessed,
    OutcomeKind,
    PresentationAttack,
    Quality,
    QualityGate,
    Reference,
    SampleFinding,
    Searched,
    SearchedGallery,
    SearchFilter,
    Sweep,
    TemplateFacts,
    Thresholds,
)

AnyRow = Row[*tuple[Any, ...]]

_NOTHING = CaptureFacts()


def flat(
    value: Quality | Box | PresentationAttack | Thresholds | Searched | SearchedGallery | SearchFilter | Continuity,
) -> dict[str, Any]:
    """Return the fields of a noun that holds no others; ten times as fast as `dataclasses.asdict`."""
    return {name: getattr(value, name) for name in value.__slots__}


def searched_json(searched: Searched) -> dict[str, Any]:
    values = flat(searched)
    values["galleries"] = [flat(each) for each in searched.galleries]
    if searched.filter is not None:
        values["filter"] = flat(searched.filter)
    return values


def to_searched(data: Mapping[str, Any]) -> Searched:
    # both are missing in what was recorded before they could be
    limited, galleries = data.get("filter"), data.get("galleries", ())
    several = tuple(SearchedGallery(**each) for each in galleries)
    return Searched(**{**data, "filter": SearchFilter(**limited) if limited else None, "galleries": several})


def to_capture(row: AnyRow) -> CaptureFacts:
    return CaptureFacts(row.sex, row.birth_year, row.captured_at, row.created_at)


def to_bytes(embedding: Embedding) -> bytes:
    return np.ascontiguousarray(embedding, dtype="<f4").tobytes()


def to_embedding(data: bytes) -> Embedding:
    return np.frombuffer(data, dtype="<f4").astype(np.float32, copy=False)


def to_gallery(row: AnyRow) -> Gallery:
    return gallery_of(row._asdict())


def gallery_of(columns: Mapping[str, Any]) -> Gallery:
    return Gallery(**{**columns, "quality_gate": QualityGate(columns["quality_gate"])})


def gallery_settings(gallery: Gallery) -> dict[str, float | int | bool | str | None]:
    settings = {name: getattr(gallery, name) for name in GALLERY_SETTINGS}
    return {**settings, "quality_gate": gallery.quality_gate.value}


def new_gallery_columns(gallery: Gallery) -> dict[str, Any]:
    """Return the columns of an empty gallery, with a timeline of its own."""
    return {
        "gallery_id": gallery.gallery_id,
        "pack_id": gallery.pack_id,
        **gallery_settings(gallery),
        "timeline_id": uuid.uuid4().hex,
        "model_id": None,
        "created_at": gallery.created_at,
        "last_seq": 0,
        "template_count": 0,
        "several_count": 0,
    }


def to_reference(row: AnyRow, embedding: Embedding) -> Reference:
    return Reference(
        reference_id=row.reference_id,
        subject_id=row.subject_id,
        encounter_id=row.encounter_id,
        embedding=embedding,
        verifies=row.verifies,
        capture=to_capture(row),
    )


def to_template_facts(row: AnyRow) -> TemplateFacts:
    return TemplateFacts(
        reference_id=row.reference_id,
        position=row.position,
        pack_id=row.pack_id,
        model_id=row.model_id,
        verifies=row.verifies,
        quality=Quality(**row.quality) if row.quality else None,
        box=Box(**row.box) if row.box else None,
    )


def template_columns(new: NewTemplate) -> dict[str, Any]:
    """Return the columns that a template brings itself, but for its embedding, which is sealed by its place."""
    return {
        "position": new.position,
        "pack_id": new.template.pack_id,
        "model_id": new.model_id,
        "verifies": new.verifies,
        "quality": flat(new.template.quality),
        "box": flat(new.template.box),
    }


def to_encounter(
    row: AnyRow, facts: EncounterFacts, templates: Sequence[TemplateFacts], *, has_samples: bool
) -> Encounter:
    return Encounter(
        encounter_id=row.encounter_id,
        gallery_id=row.gallery_id,
        subject_id=row.subject_id,
        status=EncounterStatus(row.status),
        facts=facts,
        biometric_exception=row.biometric_exception,
        templates=tuple(templates),
        has_samples=has_samples,
        created_at=row.created_at,
    )


def candidate_columns(candidate: Candidate) -> dict[str, Any]:
    return {
        "rank": candidate.rank,
        "subject_id": candidate.subject_id,
        "encounter_id": candidate.encounter_id,
        "reference_id": candidate.reference_id,
        # float(): the drivers do not know NumPy's numbers
        "score": float(candidate.score),
        "fmr": float(candidate.false_match.fmr),
        "fmr_upper": float(candidate.false_match.fmr_upper),
        "extrapolated": bool(candidate.false_match.extrapolated),
        "pair_score": None if candidate.pair_score is None else float(candidate.pair_score),
        "pack_id": candidate.pack_id,
    }


def to_candidate(row: AnyRow, probe: CaptureFacts = _NOTHING, gallery_id: str | None = None) -> Candidate:
    """Return the candidate with its age as its encounter says it now: nothing of it outlives an erasure.

    Args:
        row: of the candidate and of its encounter.
        probe: of the enrolment that found it.
        gallery_id: where it is, if elsewhere.
    """
    capture = CaptureFacts(None, row.birth_year, row.captured_at)
    return Candidate(
        rank=row.rank,
        subject_id=row.subject_id,
        encounter_id=row.encounter_id,
        reference_id=row.reference_id,
        score=row.score,
        false_match=FalseMatchRate(row.fmr, row.fmr_upper, row.extrapolated),
        gallery_id=gallery_id,
        pair_score=row.pair_score,
        age_at_capture=age_at_capture(capture),
        years_between=years_between(capture, probe),
        pack_id=row.pack_id,
    )


def findings_of(enrolment: NewEnrolment, reference_ids: Mapping[int, int]) -> list[SampleFinding]:
    """Return what became of each sample, in the order of their positions."""
    accepted = [
        SampleFinding(
            position=each.position,
            reference_id=reference_ids[each.position],
            rejection_code=None,
            quality=each.template.quality,
            box=each.template.box,
            presentation_attack=each.template.presentation_attack,
        )
        for each in enrolment.templates
    ]
    return sorted([*accepted, *enrolment.rejected_samples], key=lambda finding: finding.position)


def finding_json(finding: SampleFinding) -> dict[str, Any]:
    return {
        "position": finding.position,
        "reference_id": finding.reference_id,
        "rejection_code": finding.rejection_code,
        "quality": flat(finding.quality) if finding.quality else None,
        "box": flat(finding.box) if finding.box else None,
        "presentation_attack": flat(finding.presentation_attack),
    }


def to_finding(data: Mapping[str, Any]) -> SampleFinding:
    return SampleFinding(
        position=data["position"],
        reference_id=data["reference_id"],
        rejection_code=data["rejection_code"],
        quality=Quality(**data["quality"]) if data["quality"] else None,
        box=Box(**data["box"]) if data["box"] else None,
        presentation_attack=_to_attack(data.get("presentation_attack")),
    )


def _to_attack(data: Mapping[str, Any] | None) -> PresentationAttack:
    if data is None:  # recorded before any model was asked
        return NO_ATTACK_MODEL
    reason, finding = data["reason"], data["finding"]
    return PresentationAttack(
        NotAssessed(reason) if reason else None,
        AttackFinding(finding) if finding else None,
        data["score"],
        data["threshold"],
    )


def to_enrolment(row: AnyRow, candidates: Sequence[Candidate], case_ids: Sequence[int]) -> Enrolment:
    return Enrolment(
        enrolment_id=row.enrolment_id,
        gallery_id=row.gallery_id,
        subject_id=row.subject_id,
        encounter_id=row.encounter_id,
        outcome=OutcomeKind(row.outcome),
        candidates=tuple(candidates),
        thresholds=Thresholds(**row.thresholds) if row.thresholds else None,
        searched=to_searched(row.searched) if row.searched else None,
        continuity=Continuity(**row.continuity) if row.continuity else None,
        samples=tuple(to_finding(data) for data in row.samples),
        biometric_exception=row.biometric_exception,
        case_ids=tuple(case_ids),
        warnings=tuple(row.warnings),
        seq=row.seq,
        created_at=row.created_at,
    )


def to_case(row: AnyRow) -> Case:
    """Return the case of a row of `CASE_ROWS`."""
    candidate = None
    if row.job_id is not None:
        candidate = Candidate(
            rank=1,
            subject_id=row.other_subject_id,
            encounter_id=row.other_encounter_id,
            reference_id=row.other_reference_id,
            score=row.score,
            false_match=FalseMatchRate(row.fmr, row.fmr_upper, row.extrapolated),
            gallery_id=row.other_gallery_id if row.other_gallery_id != row.gallery_id else None,
            pair_score=row.pair_score,
            pack_id=row.score_pack_id,
        )
    return Case(
        case_id=row.case_id,
        gallery_id=row.gallery_id,
        kind=CaseKind(row.kind),
        status=CaseStatus(row.status),
        enrolment_id=row.enrolment_id,
        subject_id=row.subject_id,
        encounter_id=row.encounter_id,
        created_at=row.created_at,
        candidate=candidate,
        job_id=row.job_id,
        verdict=None if row.verdict is None else CaseVerdict(row.verdict),
        decided_by=row.decided_by,
        decided_at=row.decided_at,
    )


_OF_OTHERS = {"kind", "leased_by", "leased_until", "from_pack_id", "to_pack_id", "stage"}
_OF_MIGRATION = frozenset(Migration.__slots__)


def to_sweep(row: AnyRow) -> Sweep:
    columns = {name: value for name, value in row._mapping.items() if name not in _OF_OTHERS}
    return Sweep(**{**columns, "state": JobState(row.state), "left_out": row.left_out or 0})


def to_migration(row: AnyRow) -> Migration:
    columns = {name: value for name, value in row._mapping.items() if name in _OF_MIGRATION}
    return Migration(**{**columns, "stage": MigrationStage(row.stage)})
