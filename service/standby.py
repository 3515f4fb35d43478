"""The second comparison while a gallery changes its model: with the pack that does not rule."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from service import fusion, searching
from service.domain import Candidate, CaptureFacts, Continuity, Decision, Gallery, OutcomeKind, Reference
from service.enrolment_samples import Probes
from service.filters import Filters, Limits
from service.matching import Matcher, SearchAgain
from service.packs import Packs
from service.ports import Reading
from service.searching import Finding, Probed, Search, Together

STRENGTH = {OutcomeKind.UNIQUE: 0, OutcomeKind.REVIEW: 1, OutcomeKind.DUPLICATE: 2}
"""Of outcomes: of two searches for one person, the stronger one counts."""


class PacksChanged(Exception):
    """The gallery has other packs, or another one rules, than when the samples were embedded: begin again."""


@dataclass(frozen=True, slots=True)
class BothSearches:
    """What the indexes of both packs found, before the answer is given."""

    ruling: Search
    standby: Search | None  # None where that pack made no template of any sample, or was not asked
    pack_ids: tuple[str, ...]
    was_asked: bool  # the standby pack

    @property
    def rows(self) -> int:
        """That each template is compared with at most, by either pack."""
        return max(len(each.probes) for each in (self.ruling, self.standby) if each is not None)


@dataclass(frozen=True, slots=True)
class StandbyFinding:
    """What the standby pack says of a probe."""

    alone: Decision | None  # of the samples that only it has templates of; None where it could not be asked
    others: tuple[Candidate, ...]  # of the samples that both packs have templates of
    miss_bound: float


class StandbyMatcher:
    """Compares with both packs: with the one that stands by for those whom only it knows, and for when it rules."""

    def __init__(self, matcher: Matcher, packs: Packs, filters: Filters) -> None:
        self._matcher = matcher
        self._packs = packs
        self._filters = filters

    def begin(self, gallery: Gallery, probes: Probes, capture: CaptureFacts, *, ask_standby: bool) -> BothSearches:
        """Search the indexes.

        Args:
            gallery: as just read from the record.
            probes: by its packs.
            capture: what is known of the person.
            ask_standby: also with the standby pack, if the gallery has one.

        Raises:
            PacksChanged, IndexUnavailable
        """
        if gallery.pack_ids != probes.pack_ids:
            raise PacksChanged
        return self._begin(gallery, gallery, probes, self._filters.limits(gallery, capture), capture, ask=ask_standby)

    def begin_elsewhere(self, asking: Gallery, gallery: Gallery, probes: Probes, capture: CaptureFacts) -> BothSearches:
        """Search the indexes of a gallery of the same ruling pack, in the name of another.

        People whom its standby pack alone knows are compared where the gallery that asks has the same one.

        Args:
            asking: the gallery whose packs made the probes, and whose calibrations judge.
            gallery: that is searched, with the settings of the one that asks.
            probes: by the packs of the one that asks.
            capture: what is known of the person.

        Raises:
            IndexUnavailable
        """
        limits = self._filters.limits_elsewhere(gallery, capture)
        return self._begin(asking, gallery, probes, limits, capture, ask=True)

    def _begin(
        self, asking: Gallery, gallery: Gallery, probes: Probes, limits: Limits, capture: CaptureFacts, *, ask: bool
    ) -> BothSearches:
        rule, of = self._packs.rule(asking), (probes.embeddings, capture)
        ruling = searching.begin(self._matcher, rule, gallery, limits, of=of)
        is_asked = ask and len(gallery.pack_ids) > 1
        standby = None
        if is_asked and probes.standby and gallery.pack_ids == asking.pack_ids:
            side = gallery.swapped()
            rule, of = self._packs.rule(asking.swapped()), (probes.standby_embeddings, capture)
            standby = searching.begin(self._matcher, rule, side, limits, of=of)
        return BothSearches(ruling, standby, gallery.pack_ids, is_asked)

    def finish(
        self,
        searches: BothSearches,
        reading: Reading,
        gallery: Gallery,
        own_subject_id: str | None = None,
        together: Together | None = None,
    ) -> tuple[Finding, tuple[Candidate, ...]]:
        """Compare with the newcomers and decide over all people of the gallery.

        Args:
            searches: that `begin` made before.
            reading: the transaction that goes on.
            gallery: as it is in that transaction.
            own_subject_id: whose samples these are, in the gallery that asks; a person is no duplicate of themselves.
            together: the galleries that are searched as one; None: this one alone.

        Returns:
            The answer, and whom the standby pack alone would have named.

        Raises:
            SearchAgain: what was searched no longer stands, or is not enough for the gallery as it is now.
            PacksChanged
        """
        if gallery.pack_ids != searches.pack_ids:
            raise PacksChanged
        if gallery.standby_only_count and not searches.was_asked:
            raise SearchAgain  # there was nobody yet whom that pack alone knows
        # the standby pack may have fused samples that the ruling one did not
        rows = searches.rows
        rule = self._packs.rule(together.asking if together else gallery)
        finding = searching.finish(
            searches.ruling, rule, reading, gallery, own_subject_id, rows=rows, together=together
        )
        beside = None
        if searches.was_asked:
            size = finding.searched.gallery_size, rows
            beside = self._compare(searches.standby, reading, gallery, own_subject_id, size, together=together)
        decision, is_complete = united(finding.decision, gallery, beside)
        searched = replace(
            finding.searched,
            complete=is_complete,
            miss_bound=max(finding.searched.miss_bound or 0.0, beside.miss_bound if beside is not None else 0.0),
        )
        return replace(finding, decision=decision, searched=searched), found_in_standby_alone(decision, beside)

    def _compare(
        self,
        search: Search | None,
        reading: Reading,
        gallery: Gallery,
        own_subject_id: str | None,
        size: tuple[int, int],
        *,
        together: Together | None,
    ) -> StandbyFinding:
        """Judge what the standby pack found. Raises SearchAgain.

        Args:
            search: of this gallery's standby pack; None: it made no template of the samples.
            reading: the transaction that goes on.
            gallery: as it is in that transaction.
            own_subject_id: whose samples these are.
            size: templates and rows of both packs together, from which the thresholds of the answer follow. If this
                pack ruled they would be the same.
            together: the galleries that are searched as one; None: this one alone.
        """
        if search is None:
            return StandbyFinding(None, (), 0.0)
        side = gallery.swapped()
        asking = together.asking if together else gallery
        rule, of_probe = self._packs.rule(asking.swapped()), Probed(reading, gallery, own_subject_id, asking.gallery_id)
        compared = searching.compare(search, reading, side)
        judged = searching.judge_now(search, rule, reading, gallery, size, together=together)
        own = searching.references_of(search, reading, side, compared.subject_ids(of_probe.own_subject_id))
        alone = _known_to_it_alone(reading, gallery, {*compared.references, *(each.reference_id for each in own)})
        known_alone = [hit for hit in compared.pairs if hit.reference_id in alone]
        known_to_both = [hit for hit in compared.pairs if hit.reference_id not in alone]
        fused_alone = fusion.fused_scores(search.embeddings, [each for each in own if each.reference_id in alone])
        # as this pack would fuse them if it ruled: with those that only it has
        in_both_packs = {each.subject_id for each in own if each.reference_id not in alone}
        fused = fusion.fused_scores(search.embeddings, [each for each in own if each.subject_id in in_both_packs])
        decision, others = (
            searching.decide(search, rule, judged, compared, found=found, of_probe=of_probe)
            for found in ((known_alone, fused_alone), (known_to_both, fused))
        )
        return StandbyFinding(
            replace(decision, candidates=_of_pack(decision.candidates, side.pack_id)),
            _of_pack(others.candidates, side.pack_id),
            search.found.miss_bound,
        )

    def continuity(
        self, gallery: Gallery, side: Gallery, own: Sequence[Reference], probes: Probes
    ) -> tuple[Continuity | None, tuple[bool, ...]]:
        """Return whether the probes look like the subject's earlier samples, and which of them may verify.

        Whoever has templates of the standby pack alone is compared by that pack: nobody takes over a registration by
        being the first whom the new pack sees. A probe of which it made no template may verify nobody.

        Args:
            gallery: as it is in the transaction.
            side: the gallery as the pack of `own` sees it.
            own: of `known_references`.
            probes: of the gallery's packs.
        """
        rule, fmr = self._packs.rule(side), gallery.verification_fmr
        if side.pack_id == gallery.pack_id:
            return rule.continuity(probes.embeddings, own, fmr)
        if not probes.standby:
            never = Continuity(-1.0, rule.calibration.threshold(fmr), passed=False)  # below every score
            return never, (False,) * len(probes.positions)
        continuity, passed = rule.continuity(probes.standby_embeddings, own, fmr)
        of_position = dict(zip([position for position, _ in probes.standby], passed, strict=True))
        return continuity, tuple(of_position.get(position, False) for position in probes.positions)


def known_references(reading: Reading, gallery: Gallery, subject_id: str | None) -> tuple[Gallery, Sequence[Reference]]:
    """Return all references of a subject by the ruling pack, those not searched now too, and the gallery.

    Where that pack has none that verify: those of the standby pack, and the gallery as that sees it, if it has some.
    """
    if subject_id is None:
        return gallery, ()
    known = [
        (side, reading.subject_references(gallery.gallery_id, subject_id, inactive=True, pack_id=side.pack_id))
        for side in gallery.sides()
    ]
    proven = [found for found in known if any(each.verifies for each in found[1])]
    return next(iter([*proven, *(found for found in known if found[1])]), (gallery, ()))


def _known_to_it_alone(reading: Reading, gallery: Gallery, reference_ids: set[int]) -> set[int]:
    """Return those of the standby pack's references whose sample has no template of the ruling pack."""
    if not reference_ids or not gallery.standby_only_count:
        return set()
    return reading.without_counterpart(gallery.gallery_id, sorted(reference_ids), gallery.pack_id)


def united(ruling: Decision, gallery: Gallery, finding: StandbyFinding | None) -> tuple[Decision, bool]:
    """Return the decision over all people of the gallery, and whether all could be compared.

    Whoever has templates of the standby pack alone is judged by it, at thresholds that follow from the same total of
    comparisons; candidates are then in the order of their false match rates, for scores of two packs have no common
    one. Where such people could not be compared, nobody is called UNIQUE.
    """
    count = gallery.standby_only_count
    if not count:
        return ruling, True
    standby_id = gallery.pack_ids[1]
    said = f"{count:,} templates are of the pack {standby_id} alone; they were compared by that pack."
    if finding is None or finding.alone is None:
        said = (
            f"{count:,} templates are of the pack {standby_id} alone, and it made no template of this sample: "
            "they were NOT compared. Take another photograph."
        )
        flagged = OutcomeKind.REVIEW if ruling.outcome is OutcomeKind.UNIQUE else ruling.outcome
        return replace(ruling, outcome=flagged, warnings=(*ruling.warnings, said)), False
    outcome = max(ruling.outcome, finding.alone.outcome, key=lambda each: STRENGTH[each])
    candidates = ruling.candidates
    if finding.alone.candidates:
        candidates = _ranked([*ruling.candidates, *finding.alone.candidates])
    # both packs may say the same
    warnings = tuple(dict.fromkeys((*ruling.warnings, *finding.alone.warnings, said)))
    return Decision(outcome, candidates, ruling.thresholds, warnings), True


def found_in_standby_alone(decision: Decision, finding: StandbyFinding | None) -> tuple[Candidate, ...]:
    """Return the people whom the standby pack would have named and the answer does not."""
    named = {candidate.subject_id for candidate in decision.candidates}
    others = finding.others if finding is not None else ()
    return tuple(candidate for candidate in others if candidate.subject_id not in named)


def _ranked(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return one candidate a subject, the least likely false match first."""
    best: dict[str | None, Candidate] = {}
    for candidate in sorted(candidates, key=lambda each: (each.false_match.fmr, -each.score)):
        best.setdefault(candidate.subject_id, candidate)
    return tuple(replace(candidate, rank=rank) for rank, candidate in enumerate(best.values(), start=1))


def _of_pack(candidates: Sequence[Candidate], pack_id: str) -> tuple[Candidate, ...]:
    return tuple(replace(candidate, pack_id=pack_id) for candidate in candidates)
