"""One person against a gallery: the index outside any lock, then newcomers and the decision in one reading."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from service import fusion
from service.ageing import with_ages
from service.decision import DecisionRule
from service.domain import CaptureFacts, Decision, Embeddings, Gallery, Hit, Reference, Searched
from service.filters import Filters, Limits, judge, limits_now
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
    limits: Limits
    capture: CaptureFacts  # of the person
    found: IndexSearch


@dataclass(frozen=True, slots=True)
class Finding:
    """Who it may be, and what was compared."""

    decision: Decision
    searched: Searched
    newcomers: int  # of what was compared


def begin(
    matcher: Matcher, filters: Filters, rule: DecisionRule, gallery: Gallery, *, of: tuple[Embeddings, CaptureFacts]
) -> Search:
    """Search the index of a gallery as it was just read.

    From a lower threshold than needed, so that a gallery that shrinks meanwhile does not hide a candidate.
    """
    # fewer comparisons than `finish` can count, so that its threshold is no lower
    embeddings, capture = of
    limits = filters.limits(gallery, capture)
    floor = rule.review_threshold(gallery, limits.least(gallery) * len(embeddings))
    probes, threshold = fusion.search_probes(embeddings), fusion.search_threshold(floor, gallery.several_count)
    found = matcher.search(gallery, probes, threshold)
    return Search(matcher, embeddings, probes, floor, threshold, limits, capture, found)


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
    limits = limits_now(reading, gallery, search.capture, search.limits)
    judged = judge(
        rule,
        gallery,
        limits,
        compared,
        lambda size: fusion.comparisons(size, gallery.several_count, len(search.probes)),
    )
    # the gallery lost more than half of its templates since it was read, or its first subject got several
    if (
        judged.thresholds.review < search.floor
        or fusion.search_threshold(search.floor, gallery.several_count) < search.threshold
    ):
        raise SearchAgain
    references = _references(reading, gallery, [*found.hits, *newcomers.hits])
    fused = _fused(search, reading, gallery, {each.subject_id for each in references.values()} - {own_subject_id})
    pairs = [*_of_samples(search, found.found), *_of_samples(search, newcomers.found)]
    known = references | {each.best.reference_id: each.best for each in fused.values()}
    decision = rule.decide(
        judged.kept(pairs, references), references, own_subject_id, judged.thresholds, judged.kept_together(fused)
    )
    decision = with_ages(decision, gallery, search.capture, known)
    covered = Searched(compared, newcomers.high_water_mark, complete=True, miss_bound=found.miss_bound)
    return Finding(
        decision=replace(decision, warnings=(*decision.warnings, *judged.warnings)),
        searched=replace(covered, filter=judged.filter),
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
