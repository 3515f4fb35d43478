"""Identify: search a gallery for the person in a sample; nothing is changed."""

from dataclasses import dataclass

import numpy as np

from service import searching
from service.domain import CaptureFacts, Decision, FacePolicy, Searched, Template
from service.errors import IndexUnavailable, SampleRejected
from service.filters import Filters
from service.matching import Matcher, SearchAgain
from service.metrics import Metrics
from service.packs import Packs
from service.ports import Store
from service.searching import Finding

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
        self._packs = packs
        self._metrics = metrics
        self._face_policy = face_policy
        self._filters = Filters(store)

    def identify(self, gallery_id: str, sample: bytes, capture: CaptureFacts = NO_FACTS) -> Identification:
        """Return every subject at or above the gallery's review threshold, those enrolled a moment ago too.

        Raises:
            GalleryNotFound, PackNotLoaded, SampleRejected, Overloaded, StoreUnavailable, IndexUnavailable
        """
        with self._store.reading() as reading:
            gallery = reading.gallery(gallery_id)
        pack = self._packs.of(gallery.pack_id)
        try:
            probe = pack.embedder.extract(sample, self._face_policy)
        except SampleRejected as error:
            self._metrics.rejections.labels(code=error.code).inc()
            raise
        embeddings = probe.embedding[np.newaxis, :]
        for _ in range(_ATTEMPTS):
            search = searching.begin(
                self._matcher, self._filters, self._packs.rule(gallery), gallery, of=(embeddings, capture)
            )
            try:
                with self._store.reading() as reading:
                    gallery = reading.gallery(gallery_id)
                    finding = searching.finish(search, self._packs.rule(gallery), reading, gallery)
            except SearchAgain:
                self._matcher.catch_up(gallery_id)
                continue
            return self._answer(gallery_id, finding, probe)
        raise IndexUnavailable("the gallery changes faster than its index can follow; try again")

    def _answer(self, gallery_id: str, finding: Finding, probe: Template) -> Identification:
        if finding.newcomers:
            self._matcher.follow(gallery_id)
        self._metrics.identifications.labels(found=str(bool(finding.decision.candidates)).lower()).inc()
        return Identification(gallery_id, finding.decision, finding.searched, probe)
