"""A search of several galleries as one: all are compared, and their comparisons counted together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from service.domain import (
    GALLERY_SETTINGS,
    Candidate,
    CaptureFacts,
    Decision,
    Gallery,
    Searched,
    SearchedGallery,
)
from service.enrolment_samples import Probes
from service.errors import GalleriesNotComparable
from service.ports import Reading
from service.searching import Finding, Together
from service.standby import STRENGTH, BothSearches, StandbyMatcher

MAX_FURTHER = 8
"""Galleries that one enrolment may search beside its own: it holds the locks of all while it compares newcomers."""


@dataclass(frozen=True, slots=True)
class WideSearch:
    """What the indexes found: of the gallery that asks, and of each other one by its name."""

    own: BothSearches
    others: tuple[tuple[str, BothSearches], ...]

    @property
    def capture(self) -> CaptureFacts:
        return self.own.ruling.capture

    @property
    def rows(self) -> int:
        return max(each.rows for each in (self.own, *(found for _, found in self.others)))


class WideMatcher:
    """Searches a gallery, and others in its name: by its rates, its calibration, its filter and its ages."""

    def __init__(self, standby: StandbyMatcher) -> None:
        self._standby = standby

    def begin(self, gallery: Gallery, others: Sequence[Gallery], probes: Probes, capture: CaptureFacts) -> WideSearch:
        """Search the indexes.

        Args:
            gallery: that asks, as just read from the record.
            others: the further galleries, likewise.
            probes: by the packs of the gallery that asks.
            capture: what is known of the person.

        Raises:
            PacksChanged, GalleriesNotComparable, IndexUnavailable
        """
        own = self._standby.begin(gallery, probes, capture, ask_standby=True)
        found = []
        for other in others:
            check_comparable(gallery, other)
            searches = self._standby.begin_elsewhere(gallery, seen_from(gallery, other), probes, capture)
            found.append((other.gallery_id, searches))
        return WideSearch(own, tuple(found))

    def finish(
        self, search: WideSearch, reading: Reading, gallery: Gallery, own_subject_id: str | None
    ) -> tuple[Finding, tuple[Candidate, ...]]:
        """Compare with the newcomers of every gallery and decide over all of their people.

        Args:
            search: that `begin` made before.
            reading: the transaction that goes on; it holds the locks of all the galleries.
            gallery: that asks, as it is in that transaction.
            own_subject_id: whose samples these are; a person is no duplicate of themselves.

        Returns:
            The answer, and whom the standby pack of the gallery that asks alone would have named.

        Raises:
            SearchAgain
            PacksChanged: one of the galleries has other packs than when the search began, and may not be comparable.
            PackMismatch: one of them got templates of another model meanwhile.
        """
        if not search.others:
            return self._standby.finish(search.own, reading, gallery, own_subject_id)
        others = [seen_from(gallery, reading.gallery(gallery_id)) for gallery_id, _ in search.others]
        together = Together((gallery, *others), search.rows)
        finding, in_standby = self._standby.finish(search.own, reading, gallery, own_subject_id, together)
        findings = [(gallery.gallery_id, finding)]
        for other, (_, searches) in zip(others, search.others, strict=True):
            found, _ = self._standby.finish(searches, reading, other, own_subject_id, together)
            findings.append((other.gallery_id, _elsewhere(other.gallery_id, found)))
        return _united(findings), in_standby


def check_comparable(gallery: Gallery, other: Gallery) -> None:
    """Raises GalleriesNotComparable: their templates were made by different packs or models."""
    if gallery.pack_id != other.pack_id:
        packs = f"{gallery.pack_id} in {gallery.gallery_id}, {other.pack_id} in {other.gallery_id}"
        raise GalleriesNotComparable(f"the galleries have different model packs: {packs}")
    if None not in {gallery.model_id, other.model_id} and gallery.model_id != other.model_id:
        models = f"{gallery.model_id} in {gallery.gallery_id}, {other.model_id} in {other.gallery_id}"
        raise GalleriesNotComparable(f"the galleries hold templates of different models: {models}")


def seen_from(asking: Gallery, other: Gallery) -> Gallery:
    """Return another gallery with the settings of the one that asks; its templates, counts and packs stay its own."""
    return replace(other, **{name: getattr(asking, name) for name in GALLERY_SETTINGS})


def _elsewhere(gallery_id: str, found: Finding) -> Finding:
    """Return a finding whose candidates say in which gallery they are."""
    candidates = tuple(replace(each, gallery_id=gallery_id) for each in found.decision.candidates)
    return replace(found, decision=replace(found.decision, candidates=candidates))


def _united(findings: Sequence[tuple[str, Finding]]) -> Finding:
    """Return one finding over all galleries, the one that asks first. Their thresholds are the same."""
    own = findings[0][1].decision
    decisions = [found.decision for _, found in findings]
    outcome = max((each.outcome for each in decisions), key=lambda each: STRENGTH[each])
    candidates = _ranked([candidate for each in decisions for candidate in each.candidates])
    newcomers = sum(found.newcomers for _, found in findings)
    return Finding(Decision(outcome, candidates, own.thresholds, _warnings(findings)), _searched(findings), newcomers)


def _ranked(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the candidates of all galleries, the best score first, or the rarest by chance.

    Where one has its score from a standby pack: scores of two packs have no common scale.
    """
    is_mixed = any(each.pack_id is not None for each in candidates)
    ordered = sorted(candidates, key=lambda each: (each.false_match.fmr if is_mixed else 0.0, -each.score))
    return tuple(replace(each, rank=rank) for rank, each in enumerate(ordered, start=1))


def _warnings(findings: Sequence[tuple[str, Finding]]) -> tuple[str, ...]:
    """Return the warnings of the gallery that asks, and what is said of the others alone, with their names."""
    own = findings[0][1].decision.warnings
    others = [
        f"In {gallery_id}: {warning}"
        for gallery_id, found in findings[1:]
        for warning in found.decision.warnings
        if warning not in own
    ]
    return (*own, *others)


def _searched(findings: Sequence[tuple[str, Finding]]) -> Searched:
    parts = [(gallery_id, found.searched) for gallery_id, found in findings]
    return replace(
        parts[0][1],
        gallery_size=sum(each.gallery_size for _, each in parts),
        complete=all(each.complete for _, each in parts),
        miss_bound=max(each.miss_bound or 0.0 for _, each in parts),
        galleries=tuple(
            SearchedGallery(gallery_id, each.gallery_size, each.high_water_mark, each.complete, each.miss_bound)
            for gallery_id, each in parts
        ),
    )
