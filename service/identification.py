"""Identify: search a gallery for the person in a sample; nothing is changed."""

from dataclasses import dataclass

import numpy as np

from service.domain import Decision, FacePolicy, Searched, Template
from service.errors import IndexUnavailable, SampleRejected
from service.matching import IndexSearch, Matcher, Newcomers, SearchAgain
from service.metrics import Metrics
from service.packs import Packs
from service.ports import Store

_ATTEMPTS = 5


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

    def identify(self, gallery_id: str, sample: bytes) -> Identification:
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
            # from a lower threshold than needed, so that a gallery that shrinks meanwhile does not hide a candidate
            floor = self._packs.rule(gallery).review_threshold(gallery, gallery.template_count // 2)
            found = self._matcher.search(gallery, embeddings, floor)
            try:
                with self._store.reading() as reading:
                    gallery = reading.gallery(gallery_id)
                    self._matcher.check(gallery, found)
                    newcomers = self._matcher.compare_newcomers(
                        reading, gallery, found.high_water_mark, embeddings, floor
                    )
                    hits = found.hits + newcomers.hits
                    references = reading.references(gallery_id, [hit.reference_id for hit in hits]) if hits else {}
            except SearchAgain:
                self._matcher.catch_up(gallery_id)
                continue
            rule = self._packs.rule(gallery)  # of the gallery as it was read with the newcomers
            thresholds = rule.thresholds(gallery, found.gallery_size + newcomers.compared)
            if thresholds.review >= floor:
                decision = rule.decide(hits, references, None, thresholds)
                return self._answer(gallery_id, decision, found, newcomers, probe)
            with self._store.reading() as reading:
                gallery = reading.gallery(gallery_id)
        raise IndexUnavailable("the gallery changes faster than its index can follow; try again")

    def _answer(
        self, gallery_id: str, decision: Decision, found: IndexSearch, newcomers: Newcomers, probe: Template
    ) -> Identification:
        if newcomers.compared:
            self._matcher.follow(gallery_id)
        self._metrics.identifications.labels(found=str(bool(decision.candidates)).lower()).inc()
        searched = Searched(
            gallery_size=found.gallery_size + newcomers.compared,
            high_water_mark=newcomers.high_water_mark,
            complete=True,
            miss_bound=found.miss_bound,
        )
        return Identification(gallery_id, decision, searched, probe)
