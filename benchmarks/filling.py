"""Fills a record with templates that nobody compared, as an import leaves them: for benchmarks and tests."""

from collections.abc import Iterable

from service.domain import (
    Box,
    Embeddings,
    EncounterFacts,
    NewEnrolment,
    NewTemplate,
    OutcomeKind,
    Quality,
    Template,
)
from service.ports import Store

QUALITY = Quality(90.0, 45.0, 0.9, 300.0, 120.0, 0.0, 0.0, 0.0, 1)
BOX = Box(10.0, 10.0, 100.0, 110.0)


def fill(
    store: Store,
    gallery_id: str,
    subjects: Iterable[tuple[str, Embeddings]],
    *,
    pack_id: str,
    model_id: str,
    prefix: str = "",
) -> None:
    """Enrol each subject with all its templates in one encounter; that of the n-th is called `e-{prefix}{n}`.

    Args:
        store: the record; the gallery is there.
        gallery_id: the gallery.
        subjects: identifiers, each with its templates, (n, D) float32, rows of L2 norm 1.
        pack_id: that made the templates.
        model_id: that made them.
        prefix: of the names of encounters and enrolments.
    """
    for number, (subject_id, rows) in enumerate(subjects):
        templates = tuple(
            NewTemplate(position, Template(pack_id, row, QUALITY, BOX), model_id, verifies=True, sample=None)
            for position, row in enumerate(rows)
        )
        with store.writing(gallery_id) as writing:
            writing.insert_enrolment(_not_compared(f"{prefix}{number}", subject_id, templates))


def _not_compared(name: str, subject_id: str, templates: tuple[NewTemplate, ...]) -> NewEnrolment:
    return NewEnrolment(
        enrolment_id=f"n-{name}",
        subject_id=subject_id,
        encounter_id=f"e-{name}",
        facts=EncounterFacts(),
        biometric_exception=None,
        content_digest="",
        idempotency_key=None,
        outcome=OutcomeKind.NOT_COMPARED,
        candidates=(),
        thresholds=None,
        searched=None,
        continuity=None,
        templates=templates,
        rejected_samples=(),
        cases=(),
        warnings=(),
    )
