"""What ages change in a finding: no DUPLICATE for a child; plain words where a face had time to change (pure)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from service.ages import CHILD, RecaptureAdvice, age_at_capture, least_age, years_between
from service.domain import Candidate, CaptureFacts, Continuity, Decision, Gallery, OutcomeKind, Reference


def with_ages(
    decision: Decision,
    gallery: Gallery,
    probe: CaptureFacts,
    references: Mapping[int, Reference],
    youngest: Mapping[str, int],
) -> Decision:
    """Return the decision with the candidates' ages, and REVIEW where only children, or unknown ages, are DUPLICATE.

    Args:
        decision: by scores alone.
        gallery: with the age below which nothing is DUPLICATE.
        probe: of whom the sample is.
        references: of the candidates.
        youngest: the last year of birth that any encounter gives, by subject: one that gives none is as young.
    """
    known = {reference.reference_id: reference.capture for reference in references.values()}
    captures = [known.get(each.reference_id or 0, CaptureFacts()) for each in decision.candidates]
    candidates = tuple(
        replace(each, age_at_capture=age_at_capture(capture), years_between=years_between(capture, probe))
        for each, capture in zip(decision.candidates, captures, strict=True)
    )
    decision = replace(decision, candidates=candidates)
    limit = decision.thresholds.duplicate
    if decision.outcome is not OutcomeKind.DUPLICATE or limit is None:
        return decision
    proven = [
        replace(capture, birth_year=youngest.get(each.subject_id or "", capture.birth_year))
        for each, capture in zip(candidates, captures, strict=True)
        if pair_score(each) >= limit
    ]
    if _is_grown_up(gallery, probe) and any(_is_grown_up(gallery, capture) for capture in proven):
        return decision
    return replace(decision, outcome=OutcomeKind.REVIEW, warnings=(*decision.warnings, _why(gallery, [probe, *proven])))


def pair_score(candidate: Candidate) -> float:
    """Return the score of the best single pair: only a pair makes a DUPLICATE."""
    return candidate.score if candidate.pair_score is None else candidate.pair_score


def _is_grown_up(gallery: Gallery, capture: CaptureFacts) -> bool:
    age = least_age(capture)
    return not gallery.review_unknown_age if age is None else age >= gallery.min_duplicate_age


def _why(gallery: Gallery, captures: Sequence[CaptureFacts]) -> str:
    is_young = any((age := least_age(each)) is not None and age < gallery.min_duplicate_age for each in captures)
    who = f"somebody who may have been under {gallery.min_duplicate_age}" if is_young else "somebody of unknown age"
    return (
        f"REVIEW, although the score is that of a DUPLICATE: one of the two samples shows {who}, "
        "and faces of children are told apart less surely."
    )


def age_warnings(
    advice: RecaptureAdvice,
    now: datetime,
    probe: CaptureFacts,
    own: Sequence[Reference],
    continuity: Continuity | None,
) -> tuple[str, ...]:
    """Say where samples are too old to tell much.

    Args:
        advice: after how many years somebody is to be captured anew.
        now: time zone aware.
        probe: of whom the sample is.
        own: the subject's earlier references.
        continuity: whether the sample looks like them.
    """
    found = []
    due = advice.due(probe)
    if due is not None and due < now:
        found.append(f"This sample is old: the person was due to be captured anew on {due.date().isoformat()}.")
    earlier = max(
        (each.capture for each in own if each.capture.captured_at is not None),
        key=lambda capture: capture.captured_at or now,
        default=None,
    )
    if earlier is None:
        return tuple(found)
    years = years_between(earlier, probe)
    age = least_age(earlier)
    if years is None or years < advice.interval(age):
        return tuple(found)
    is_child = age is not None and age < CHILD
    if continuity is not None and not continuity.passed:
        grown = " of a growing child" if is_child else ""
        found.append(
            f"The samples{grown} lie {years:g} years apart: the face may have changed, "
            "and that they do not match proves little. Look at other evidence."
        )
    elif is_child:
        found.append(f"The last sample of this growing child is {years:g} years older than this one: it was overdue.")
    return tuple(found)
