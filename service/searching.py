"""One person against a gallery: the index outside any lock, then newcomers and the decision in one reading."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from service import fusion
from service.ageing import with_ages
from service.decision import DecisionRule
from service.domain import CaptureFacts, Decision, Embeddings, Gallery, Hit, OutcomeKind, Reference, Searched
from service.filters import Judged, Limits, judge, limits_now
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
class Compared:
    """What the index and the newcomers showed."""

    pairs: tuple[Hit, ...]  # of the samples themselves, without those of their mean: that is no pair
    references: dict[int, Reference]  # of all hits, those of the mean too
    templates: int
    newcomers: int  # of them
    high_water_mark: int

    def subject_ids(self, own_subject_id: str | None) -> list[str]:
        """Return who was found, without the subject whose samples these are."""
        return sorted({each.subject_id for each in self.references.values()} - {own_subject_id})


@dataclass(frozen=True, slots=True)
class Probed:
    """Where a probe is judged, and whose it is said to be; a person is no duplicate of themselves."""

    reading: Reading
    gallery: Gallery
    own_subject_id: str | None

    def youngest(self, others: Sequence[str | None]) -> dict[str, int]:
        """Return the last year of birth that any encounter gives, of the subject itself and of others."""
        found: dict[str, int] = {}
        for subject_id in {each for each in (self.own_subject_id, *others) if each is not None}:
            own = self.reading.subject_references(self.gallery.gallery_id, subject_id, inactive=True)
            years = [each.capture.birth_year for each in own if each.capture.birth_year is not None]
            if years:
                found[subject_id] = max(years)
        return found


@dataclass(frozen=True, slots=True)
class Finding:
    """Who it may be, and what was compared."""

    decision: Decision
    searched: Searched
    newcomers: int  # of what was compared


def begin(
    matcher: Matcher, rule: DecisionRule, gallery: Gallery, limits: Limits, *, of: tuple[Embeddings, CaptureFacts]
) -> Search:
    """Search the index of a gallery as it was just read.

    From a lower threshold than needed, so that a gallery that shrinks meanwhile does not hide a candidate.
    """
    # fewer comparisons than `finish` can count, so that its threshold is no lower
    embeddings, capture = of
    floor = rule.review_threshold(gallery, limits.least(gallery) * len(embeddings))
    probes, threshold = fusion.search_probes(embeddings), fusion.search_threshold(floor, gallery.several_count)
    found = matcher.search(gallery, probes, threshold)
    return Search(matcher, embeddings, probes, floor, threshold, limits, capture, found)


def finish(
    search: Search,
    rule: DecisionRule,
    reading: Reading,
    gallery: Gallery,
    own_subject_id: str | None = None,
    *,
    rows: int | None = None,
) -> Finding:
    """Compare with the newcomers and decide.

    Args:
        search: that `begin` made before.
        rule: of the gallery as it is now.
        reading: the transaction that goes on.
        gallery: as it is in that transaction.
        own_subject_id: whose samples these are; a person is no duplicate of themselves.
        rows: that each template of the gallery is compared with at most, by either pack; None: those of this search.

    Raises:
        SearchAgain: what was searched no longer stands, or is not enough for the gallery as it is now.
    """
    compared = compare(search, reading, gallery)
    templates = compared.templates + gallery.standby_only_count
    judged = judge_now(search, rule, reading, gallery, (templates, rows or len(search.probes)))
    fused = fusion.fused_scores(
        search.embeddings, references_of(search, reading, gallery, compared.subject_ids(own_subject_id))
    )
    found = compared.pairs, fused
    of_probe = Probed(reading, gallery, own_subject_id)
    decision = decide(search, rule, judged, compared, found=found, of_probe=of_probe)
    searched = Searched(templates, compared.high_water_mark, complete=True, miss_bound=search.found.miss_bound)
    return Finding(
        decision=replace(decision, warnings=(*decision.warnings, *judged.warnings)),
        searched=replace(searched, filter=judged.filter),
        newcomers=compared.newcomers,
    )


def judge_now(search: Search, rule: DecisionRule, reading: Reading, gallery: Gallery, size: tuple[int, int]) -> Judged:
    """Return the thresholds that follow from so many templates, and rows compared with each.

    Raises:
        SearchAgain: the gallery lost more than half of its templates since it was read.
    """
    templates, rows = size
    limits = limits_now(reading, gallery, search.capture, search.limits)
    judged = judge(rule, gallery, limits, templates, lambda part: fusion.comparisons_of(gallery, part, rows))
    if judged.thresholds.review < search.floor:
        raise SearchAgain
    return judged


def decide(
    search: Search,
    rule: DecisionRule,
    judged: Judged,
    compared: Compared,
    *,
    found: tuple[Sequence[Hit], Mapping[str, FusedScore]],
    of_probe: Probed,
) -> Decision:
    """Return what follows from some of the pairs and of the fused scores that were found."""
    pairs, fused = found
    known = compared.references | {each.best.reference_id: each.best for each in fused.values()}
    kept, together = judged.kept(pairs, compared.references), judged.kept_together(fused)
    own_subject_id = of_probe.own_subject_id
    decision = rule.decide(kept, compared.references, own_subject_id, judged.thresholds, together)
    youngest: Mapping[str, int] = {}
    if decision.outcome is OutcomeKind.DUPLICATE:
        youngest = of_probe.youngest([each.subject_id for each in decision.candidates])
    capture = search.capture
    if own_subject_id is not None and own_subject_id in youngest:
        capture = replace(capture, birth_year=max(youngest[own_subject_id], capture.birth_year or 0))
    return with_ages(decision, of_probe.gallery, capture, known, youngest)


def compare(search: Search, reading: Reading, gallery: Gallery) -> Compared:
    """Compare with the newcomers, as `finish` does, and decide nothing. Raises SearchAgain."""
    matcher, found = search.matcher, search.found
    matcher.check(gallery, found)
    newcomers = matcher.compare_newcomers(reading, gallery, found.high_water_mark, search.probes, search.threshold)
    if fusion.search_threshold(search.floor, gallery.several_count) < search.threshold:
        raise SearchAgain  # its first subject got several templates since it was read
    ids = [hit.reference_id for hit in (*found.hits, *newcomers.hits)]
    return Compared(
        pairs=(*_of_samples(search, found.found), *_of_samples(search, newcomers.found)),
        references=reading.references(gallery.gallery_id, ids) if ids else {},
        templates=found.gallery_size + newcomers.compared,
        newcomers=newcomers.compared,
        high_water_mark=newcomers.high_water_mark,
    )


def references_of(search: Search, reading: Reading, gallery: Gallery, subject_ids: list[str]) -> list[Reference]:
    """Return all references of subjects as they are now, by the gallery's pack; none where nothing can be fused."""
    if not subject_ids or (len(search.embeddings) == 1 and not gallery.several_count):
        return []
    return reading.references_of(gallery.gallery_id, subject_ids, gallery.pack_id)


def _of_samples(search: Search, found: tuple[tuple[Hit, ...], ...]) -> list[Hit]:
    return [hit for hits in found[: len(search.embeddings)] for hit in hits]
