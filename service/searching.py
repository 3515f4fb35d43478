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
class Together:
    """The galleries that are searched as one, as they are in the transaction that goes on.

    All have the settings of the one that asks: its rates, its filter and its ages judge.
    """

    galleries: tuple[Gallery, ...]  # the one that asks first
    rows: int  # that each template is compared with at most

    @property
    def asking(self) -> Gallery:
        return self.galleries[0]

    @property
    def templates(self) -> int:
        return sum(each.template_count + each.standby_only_count for each in self.galleries)

    def as_one(self) -> Gallery:
        """The gallery that asks, with the counts of all."""
        counts = ("template_count", "several_count", "standby_template_count", "paired_count")
        return replace(self.asking, **{name: sum(getattr(each, name) for each in self.galleries) for name in counts})


@dataclass(frozen=True, slots=True)
class Probed:
    """Where a probe is judged, and whose it is said to be; a person is no duplicate of themselves."""

    reading: Reading
    gallery: Gallery
    subject_id: str | None
    home_id: str | None = None  # the gallery of that subject, where it is another one

    @property
    def own_subject_id(self) -> str | None:
        """The subject, if it is in this gallery: elsewhere its id may be somebody else's."""
        return self.subject_id if self.home_id in {None, self.gallery.gallery_id} else None

    def youngest(self, others: Sequence[str | None]) -> dict[str, int]:
        """Return the last year of birth that any encounter gives, of some subjects of the gallery."""
        years = {each: self._birth_year(self.gallery.gallery_id, each) for each in set(others) if each is not None}
        return {subject_id: year for subject_id, year in years.items() if year is not None}

    def with_own_year(self, capture: CaptureFacts) -> CaptureFacts:
        """Return what is known of the probe, with the last year of birth that any encounter of its subject gives."""
        if self.subject_id is None:
            return capture
        year = self._birth_year(self.home_id or self.gallery.gallery_id, self.subject_id)
        return capture if year is None else replace(capture, birth_year=max(year, capture.birth_year or 0))

    def _birth_year(self, gallery_id: str, subject_id: str) -> int | None:
        own = self.reading.subject_references(gallery_id, subject_id, inactive=True)
        return max((each.capture.birth_year for each in own if each.capture.birth_year is not None), default=None)


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
    together: Together | None = None,
) -> Finding:
    """Compare with the newcomers and decide.

    Args:
        search: that `begin` made before.
        rule: of the gallery as it is now.
        reading: the transaction that goes on.
        gallery: as it is in that transaction.
        own_subject_id: whose samples these are, in the gallery that asks; a person is no duplicate of themselves.
        rows: that each template of the gallery is compared with at most, by either pack; None: those of this search.
        together: the galleries that are searched as one; None: this one alone.

    Raises:
        SearchAgain: what was searched no longer stands, or is not enough for the gallery as it is now.
    """
    compared = compare(search, reading, gallery)
    templates = compared.templates + gallery.standby_only_count
    judged = judge_now(search, rule, reading, gallery, (templates, rows or len(search.probes)), together=together)
    of_probe = Probed(reading, gallery, own_subject_id, together.asking.gallery_id if together else None)
    fused = fusion.fused_scores(
        search.embeddings, references_of(search, reading, gallery, compared.subject_ids(of_probe.own_subject_id))
    )
    found = compared.pairs, fused
    decision = decide(search, rule, judged, compared, found=found, of_probe=of_probe)
    searched = Searched(templates, compared.high_water_mark, complete=True, miss_bound=search.found.miss_bound)
    return Finding(
        decision=replace(decision, warnings=(*decision.warnings, *judged.warnings)),
        searched=replace(searched, filter=judged.filter),
        newcomers=compared.newcomers,
    )


def judge_now(
    search: Search,
    rule: DecisionRule,
    reading: Reading,
    gallery: Gallery,
    size: tuple[int, int],
    *,
    together: Together | None = None,
) -> Judged:
    """Return the thresholds that follow from so many templates, and rows compared with each, or from `together`.

    Raises:
        SearchAgain: the gallery lost more than half of its templates since it was read.
    """
    templates, rows = size
    limits = limits_now(reading, gallery, search.capture, search.limits)
    if together is not None:
        templates, rows, gallery = together.templates, together.rows, together.as_one()
        counts = [limits_now(reading, each, search.capture, limits).left_out for each in together.galleries]
        limits = replace(limits, left_out=sum(counts))
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
    decision = rule.decide(kept, compared.references, of_probe.own_subject_id, judged.thresholds, together)
    youngest: Mapping[str, int] = {}
    capture = search.capture
    if decision.outcome is OutcomeKind.DUPLICATE:
        youngest = of_probe.youngest([each.subject_id for each in decision.candidates])
        capture = of_probe.with_own_year(capture)
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
