"""One person against a gallery: the index outside any lock, then newcomers and the decision in one reading."""

from collections.abc import Mapping
from dataclasses import dataclass

from service import fusion
from service.decision import DecisionRule
from service.domain import Decision, Embeddings, Gallery, Hit, Reference, Searched
from service.fusion import FusedScore
from service.matching import IndexSearch, Matcher, SearchAgain
from service.ports import Reading


@dataclass(frozen=True, slots=True)
class Search:
    """What the index found of one person.

    `embeddings` are the (n, D) probes, `probes` what was searched with: `service.fusion.search_probes`.
    """

    matcher: Matcher
    embeddings: Embeddings
    probes: Embeddings
    floor: float  # pairs and fused scores from here on are found
    threshold: float  # at which the index was searched for that
    found: IndexSearch


@dataclass(frozen=True, slots=True)
class Finding:
    """Who it may be, and what was compared."""

    decision: Decision
    searched: Searched
    newcomers: int  # of what was compared


def begin(matcher: Matcher, rule: DecisionRule, gallery: Gallery, embeddings: Embeddings) -> Search:
    """Search the index of a gallery as it was just read.

    From a lower threshold than needed, so that a gallery that shrinks meanwhile does not hide a candidate.
    """
    # fewer comparisons than `finish` can count, so that its threshold is no lower
    floor = rule.review_threshold(gallery, gallery.template_count // 2 * len(embeddings))
    probes, threshold = fusion.search_probes(embeddings), fusion.search_threshold(floor, gallery.several_count)
    found = matcher.search(gallery, probes, threshold)
    return Search(matcher, embeddings, probes, floor, threshold, found)


def finish(
    search: Search, rule: DecisionRule, reading: Reading, gallery: Gallery, own_subject_id: str | None = None
) -> Finding:
    """Compare with the newcomers and decide.

    Args:
        search: that `begin` made before.
        rule: of the gallery as it is now.
        reading: the transaction that goes on.
        gallery: as it is in that transaction.
        own_subject_id: whose samples these are; a person is no duplicate of themselves.

    Raises:
        SearchAgain: what was searched no longer stands, or is not enough for the gallery as it is now.
    """
    matcher, found = search.matcher, search.found
    matcher.check(gallery, found)
    newcomers = matcher.compare_newcomers(reading, gallery, found.high_water_mark, search.probes, search.threshold)
    compared = found.gallery_size + newcomers.compared
    thresholds = rule.thresholds(gallery, fusion.comparisons(compared, gallery.several_count, len(search.probes)))
    # the gallery lost more than half of its templates since it was read, or its first subject got several
    if (
        thresholds.review < search.floor
        or fusion.search_threshold(search.floor, gallery.several_count) < search.threshold
    ):
        raise SearchAgain
    references = _references(reading, gallery, [*found.hits, *newcomers.hits])
    fused = _fused(search, reading, gallery, {each.subject_id for each in references.values()} - {own_subject_id})
    pairs = [*_of_samples(search, found.found), *_of_samples(search, newcomers.found)]
    return Finding(
        decision=rule.decide(pairs, references, own_subject_id, thresholds, fused),
        searched=Searched(compared, newcomers.high_water_mark, complete=True, miss_bound=found.miss_bound),
        newcomers=newcomers.compared,
    )


def _fused(search: Search, reading: Reading, gallery: Gallery, subject_ids: set[str]) -> Mapping[str, FusedScore]:
    """Return the fused scores of the subjects that were found, from all their references as they are now."""
    if not subject_ids or (len(search.embeddings) == 1 and not gallery.several_count):
        return {}
    return fusion.fused_scores(search.embeddings, reading.references_of(gallery.gallery_id, sorted(subject_ids)))


def _of_samples(search: Search, found: tuple[tuple[Hit, ...], ...]) -> list[Hit]:
    """Return the hits of the samples themselves, without those of their mean: that is no pair."""
    return [hit for hits in found[: len(search.embeddings)] for hit in hits]


def _references(reading: Reading, gallery: Gallery, hits: list[Hit]) -> dict[int, Reference]:
    return reading.references(gallery.gallery_id, [hit.reference_id for hit in hits]) if hits else {}
