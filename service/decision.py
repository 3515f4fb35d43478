"""Candidates and thresholds to an outcome (pure). A human decides what follows from it."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import numpy as np

from service.calibration import Calibration, fmr_for_fpir
from service.domain import (
    Candidate,
    Continuity,
    Decision,
    Embeddings,
    Gallery,
    Hit,
    OutcomeKind,
    Reference,
    ThresholdChange,
    Thresholds,
)
from service.fusion import FusedScore

_SIZES_A_DECADE = 20  # 12 % apart: the threshold moves by a few thousandths from one to the next
STATED_SIZES = tuple(
    sorted({math.ceil(10 ** (step / _SIZES_A_DECADE) - 1e-6) for step in range(14 * _SIZES_A_DECADE + 1)})
)
"""Numbers of comparisons for which thresholds are computed: 1, 2, 3, ... 10, 12, 13, ... 1,000, 1,123, ..."""


@dataclass(frozen=True, slots=True)
class DecisionRule:
    """How the candidates of a gallery are judged: its pack's calibration and the share of misses that must shout."""

    calibration: Calibration
    fnir_warning: float

    def thresholds(self, gallery: Gallery, comparisons: int) -> Thresholds:
        """Return the score thresholds that follow from the gallery's error rates and the templates compared.

        They hold for the next stated size, so that they change at sizes that can be told beforehand and not with every
        person. DUPLICATE asks for the upper 95 % bound of the false match rate, REVIEW for the expected rate.
        """
        size = stated_size(comparisons)
        review_fmr = fmr_for_fpir(gallery.review_fpir, size)
        duplicate_fmr = fmr_for_fpir(gallery.duplicate_fpir, size)
        review = self.calibration.threshold(review_fmr)
        duplicate = self.calibration.threshold_by_upper_bound(duplicate_fmr)
        return Thresholds(
            comparisons=comparisons,
            review_fpir=gallery.review_fpir,
            duplicate_fpir=gallery.duplicate_fpir,
            review=review,
            # never below the review threshold, whatever rates were asked for
            duplicate=None if duplicate is None else max(duplicate, review),
            review_fmr=review_fmr,
            duplicate_fmr=duplicate_fmr,
            extrapolated=self.calibration.is_extrapolated(review if duplicate is None else max(duplicate, review)),
            expected_fnir=self.calibration.expected_fnir(review),
            expected_fnir_population=self.calibration.mated_population,
            calibration_id=self.calibration.calibration_id,
            stated_comparisons=size,
        )

    def review_threshold(self, gallery: Gallery, comparisons: int) -> float:
        """Return the review threshold alone, for a search whose comparisons are not counted yet."""
        return self.calibration.threshold(fmr_for_fpir(gallery.review_fpir, stated_size(comparisons)))

    def threshold_change(
        self, gallery: Gallery, reason: Literal["size", "rates", "calibration", "model"] = "size"
    ) -> ThresholdChange | None:
        """Return the thresholds of a gallery of this size where they are not those last written to the audit trail."""
        size = stated_size(gallery.template_count)
        key = f"{self.calibration.calibration_id} {size} {gallery.review_fpir!r} {gallery.duplicate_fpir!r}"
        if key == gallery.thresholds_key:
            return None
        return ThresholdChange(key, self.thresholds(gallery, gallery.template_count), reason)

    def warnings(self, thresholds: Thresholds) -> tuple[str, ...]:
        """Say in plain words what a reader of the answer must know about its thresholds."""
        found = []
        if thresholds.expected_fnir > self.fnir_warning:
            found.append(
                f"This threshold is expected to miss {percent(thresholds.expected_fnir)} of the duplicates: "
                "use a better model pack, a smaller gallery or a higher review_fpir."
            )
        if thresholds.duplicate is None:
            found.append("No score proves a duplicate at the wanted duplicate_fpir: all findings are REVIEW.")
        return tuple(found)

    def continuity(
        self, probes: Embeddings, own: Sequence[Reference], verification_fmr: float
    ) -> tuple[Continuity | None, tuple[bool, ...]]:
        """Return whether the probes look like the subject's earlier samples, and which of them may verify.

        The probes of a first encounter are compared with the first of them. A template that fails is searched but
        never verifies anyone: someone else may be using this registration.

        Args:
            probes: (n, D) float32, rows of L2 norm 1, the samples of one encounter.
            own: all references of the subject, those not searched now too. Those that failed themselves prove nothing:
                where only such are left, the probes fail, so that nobody becomes the subject by coming again.
        """
        proven = [reference.embedding for reference in own if reference.verifies]
        earlier = proven or [reference.embedding for reference in own]
        compared = probes if earlier else probes[1:]
        if not len(compared):
            return None, (True,) * len(probes)
        threshold = self.calibration.threshold(verification_fmr)
        scores = (compared @ np.stack(earlier or [probes[0]]).T).max(axis=1)
        can_pass = bool(proven) or not own
        passed = tuple(can_pass and bool(score >= threshold) for score in scores)
        continuity = Continuity(score=float(scores.min()), threshold=threshold, passed=all(passed))
        return continuity, passed if earlier else (True, *passed)

    def decide(
        self,
        hits: Iterable[Hit],
        references: Mapping[int, Reference],
        own_subject_id: str | None,
        thresholds: Thresholds,
        fused: Mapping[str, FusedScore] = MappingProxyType({}),
    ) -> Decision:
        """Return the outcome with one candidate a subject, by its best reference, best first.

        Args:
            hits: of all probes of one encounter; those below the review threshold are left out.
            references: of the hits that still exist; others were erased meanwhile and are dropped.
            own_subject_id: whose encounter this is; a person is no duplicate of themselves.
            fused: by subject. Who reaches the review threshold by the best pair is a candidate whatever the fused
                score, and the other way round. Only a pair makes a DUPLICATE: the calibration is of pairs.
        """
        best: dict[str, tuple[float, Reference]] = {
            subject_id: (each.pair_score, each.best)
            for subject_id, each in fused.items()
            if each.score >= thresholds.review and subject_id != own_subject_id
        }
        for hit in hits:
            reference = references.get(hit.reference_id)
            if reference is None or reference.subject_id == own_subject_id or hit.score < thresholds.review:
                continue
            known = best.get(reference.subject_id)
            if known is None or hit.score > known[0]:
                best[reference.subject_id] = (hit.score, reference)
        found = [self._candidate(reference, score, fused) for score, reference in best.values()]
        ordered = sorted(found, key=lambda each: (-each.score, each.reference_id or 0))
        candidates = tuple(replace(each, rank=rank) for rank, each in enumerate(ordered, start=1))
        return Decision(_outcome(candidates, thresholds), candidates, thresholds, self.warnings(thresholds))

    def _candidate(self, reference: Reference, pair_score: float, fused: Mapping[str, FusedScore]) -> Candidate:
        together = fused.get(reference.subject_id)
        return Candidate(
            rank=0,
            subject_id=reference.subject_id,
            encounter_id=reference.encounter_id,
            reference_id=reference.reference_id,
            score=pair_score if together is None else max(pair_score, together.score),
            false_match=self.calibration.false_match_rate(pair_score),
            pair_score=None if together is None else pair_score,
        )


def percent(share: float) -> str:
    """Return a share (0..1) in per cent with two digits that count."""
    return f"{float(f'{share * 100:.2g}'):g} %"  # 100 in two digits alone would be 1e+02


def stated_size(comparisons: int) -> int:
    """Return the next of `STATED_SIZES`: never fewer comparisons than there are."""
    return STATED_SIZES[min(bisect_left(STATED_SIZES, comparisons), len(STATED_SIZES) - 1)]


def _outcome(candidates: tuple[Candidate, ...], thresholds: Thresholds) -> OutcomeKind:
    if not candidates:
        return OutcomeKind.UNIQUE
    best_pair = max(each.score if each.pair_score is None else each.pair_score for each in candidates)
    if thresholds.duplicate is not None and best_pair >= thresholds.duplicate:
        return OutcomeKind.DUPLICATE
    return OutcomeKind.REVIEW
