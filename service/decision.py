"""Candidates and thresholds to an outcome (pure). A human decides what follows from it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from service.calibration import Calibration, fmr_for_fpir
from service.domain import Candidate, Continuity, Decision, Embeddings, Gallery, Hit, OutcomeKind, Reference, Thresholds


@dataclass(frozen=True, slots=True)
class DecisionRule:
    """How the candidates of a gallery are judged: its pack's calibration and the share of misses that must shout."""

    calibration: Calibration
    fnir_warning: float

    def thresholds(self, gallery: Gallery, comparisons: int) -> Thresholds:
        """Return the score thresholds that follow from the gallery's error rates and the templates compared.

        DUPLICATE asks for the upper 95 % bound of the false match rate, REVIEW for the central estimate.
        """
        review_fmr = fmr_for_fpir(gallery.review_fpir, comparisons)
        duplicate_fmr = fmr_for_fpir(gallery.duplicate_fpir, comparisons)
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
            expected_fnir_population=self.calibration.population,
        )

    def review_threshold(self, gallery: Gallery, comparisons: int) -> float:
        """Return the review threshold alone, for a search whose comparisons are not counted yet."""
        return self.calibration.threshold(fmr_for_fpir(gallery.review_fpir, comparisons))

    def warnings(self, thresholds: Thresholds) -> tuple[str, ...]:
        """Say in plain words what a reader of the answer must know about its thresholds."""
        found = []
        if thresholds.expected_fnir > self.fnir_warning:
            found.append(
                f"This threshold is expected to miss {thresholds.expected_fnir:.0%} of the duplicates: "
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
    ) -> Decision:
        """Return the outcome with one candidate a subject, by its best reference, best first.

        Args:
            hits: of all probes of one encounter; those below the review threshold are left out.
            references: of the hits that still exist; others were erased meanwhile and are dropped.
            own_subject_id: whose encounter this is; a person is no duplicate of themselves.
        """
        best: dict[str, tuple[float, Reference]] = {}
        for hit in hits:
            reference = references.get(hit.reference_id)
            if reference is None or reference.subject_id == own_subject_id or hit.score < thresholds.review:
                continue
            known = best.get(reference.subject_id)
            if known is None or hit.score > known[0]:
                best[reference.subject_id] = (hit.score, reference)
        ordered = sorted(best.values(), key=lambda pair: (-pair[0], pair[1].reference_id))
        candidates = tuple(
            Candidate(
                rank=rank,
                subject_id=reference.subject_id,
                encounter_id=reference.encounter_id,
                reference_id=reference.reference_id,
                score=score,
                false_match=self.calibration.false_match_rate(score),
            )
            for rank, (score, reference) in enumerate(ordered, start=1)
        )
        return Decision(_outcome(candidates, thresholds), candidates, thresholds, self.warnings(thresholds))


def _outcome(candidates: tuple[Candidate, ...], thresholds: Thresholds) -> OutcomeKind:
    if not candidates:
        return OutcomeKind.UNIQUE
    if thresholds.duplicate is not None and candidates[0].score >= thresholds.duplicate:
        return OutcomeKind.DUPLICATE
    return OutcomeKind.REVIEW
