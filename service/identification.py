"""Identify: search a gallery for the person in a sample; nothing is changed."""

from dataclasses import dataclass, replace

from service.audit_chain import AuditEvent, NewEntry
from service.audit_people import seen_in_candidates
from service.domain import CaptureFacts, Decision, FacePolicy, Gallery, QualityGate, Searched, Template
from service.enrolment_samples import Probes, let_through
from service.errors import IndexUnavailable, SampleRejected
from service.filters import Filters
from service.matching import Matcher, SearchAgain
from service.metrics import Metrics
from service.packs import Packs
from service.ports import Store
from service.probes import ProbeMaker
from service.standby import PacksChanged, StandbyMatcher

_ATTEMPTS = 5
NO_FACTS = CaptureFacts()


@dataclass(frozen=True, slots=True)
class Identification:
    """The answer to one search. `decision.outcome` is UNIQUE where no candidate reached the review threshold."""

    gallery_id: str
    decision: Decision
    searched: Searched
    probe: Template


class IdentificationService:
    """The identification use case."""

    def __init__(
        self, store: Store, matcher: Matcher, packs: Packs, metrics: Metrics, *, face_policy: FacePolicy
    ) -> None:
        self._store = store
        self._matcher = matcher
        self._standby = StandbyMatcher(matcher, packs, Filters(store))
        self._metrics = metrics
        self._probes = ProbeMaker(packs, metrics, face_policy)

    def identify(self, gallery_id: str, sample: bytes, capture: CaptureFacts = NO_FACTS) -> Identification:
        """Return every subject at or above the gallery's review threshold, those enrolled a moment ago too.

        Raises:
            GalleryNotFound, PackNotLoaded, SampleRejected, Overloaded, StoreUnavailable, IndexUnavailable
        """
        gallery = self._gallery(gallery_id)
        try:
            found = self._identify(gallery, sample, capture)
        except SampleRejected as error:
            self._store.record(NewEntry(AuditEvent.IDENTIFICATION_MADE, error.code), gallery_id)
            raise
        # before the answer: nobody is told who it is without an entry that says so
        self._store.record(_made(found), gallery_id)
        return found

    def _identify(self, gallery: Gallery, sample: bytes, capture: CaptureFacts) -> Identification:
        gallery_id = gallery.gallery_id
        probes = self._make_probes(sample, gallery)
        for _ in range(_ATTEMPTS):
            try:
                return self._search(gallery, probes, capture)
            except SearchAgain:
                self._matcher.catch_up(gallery_id)
                gallery = self._gallery(gallery_id)
            except PacksChanged:
                gallery = self._gallery(gallery_id)
                probes = self._make_probes(sample, gallery)
        raise IndexUnavailable("the gallery changes faster than its index can follow; try again")

    def _gallery(self, gallery_id: str) -> Gallery:
        with self._store.reading() as reading:
            return reading.gallery(gallery_id)

    def _make_probes(self, sample: bytes, gallery: Gallery) -> Probes:
        # a search that refuses a sample for its quality would miss people silently
        return let_through(self._probes.extract([sample], gallery), QualityGate.OFF)

    def _search(self, gallery: Gallery, probes: Probes, capture: CaptureFacts) -> Identification:
        """Raises SearchAgain, PacksChanged."""
        searches = self._standby.begin(gallery, probes, capture, ask_standby=gallery.standby_only_count > 0)
        with self._store.reading() as reading:
            finding, _ = self._standby.finish(searches, reading, reading.gallery(gallery.gallery_id))
        if finding.newcomers:
            self._matcher.follow(gallery.gallery_id)
        self._metrics.identifications.labels(found=str(bool(finding.decision.candidates)).lower()).inc()
        decision = replace(finding.decision, warnings=finding.decision.warnings + probes.attack_warnings)
        return Identification(gallery.gallery_id, decision, finding.searched, probes.templates[0])


def _made(found: Identification) -> NewEntry:
    candidates = found.decision.candidates
    outcome = "found" if candidates else "not_found"
    details = {"candidates": len(candidates), "complete": found.searched.complete}
    return NewEntry(AuditEvent.IDENTIFICATION_MADE, outcome, details, seen_in_candidates(candidates))
