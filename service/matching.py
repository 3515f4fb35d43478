"""Search of a gallery: with its index, and exactly among the newcomers that the index has not seen."""

from dataclasses import dataclass

import numpy as np

from service.domain import Embeddings, Gallery, Hit
from service.errors import IndexUnavailable
from service.index_keeping import IndexKeeper
from service.index_slots import index_key
from service.ports import Reading

NEWCOMER_LIMIT = 1000  # more than these are not compared under the gallery's lock: let go, catch up, try again


class SearchAgain(Exception):
    """What was searched no longer stands: let the index catch up, and search again."""


@dataclass(frozen=True, slots=True)
class IndexSearch:
    """What the index found, and how far it had read the change log before the search began."""

    timeline_id: str
    high_water_mark: int
    gallery_size: int
    miss_bound: float
    found: tuple[tuple[Hit, ...], ...]  # for each probe

    @property
    def hits(self) -> tuple[Hit, ...]:
        """Of all probes."""
        return tuple(hit for hits in self.found for hit in hits)


@dataclass(frozen=True, slots=True)
class Newcomers:
    """What was found among the templates added after the index's high-water mark."""

    high_water_mark: int
    compared: int
    found: tuple[tuple[Hit, ...], ...]  # for each probe

    @property
    def hits(self) -> tuple[Hit, ...]:
        """Of all probes."""
        return tuple(hit for hits in self.found for hit in hits)


class Matcher(IndexKeeper):
    """Searches galleries, each with the index that it keeps in step with the record, and compares newcomers."""

    def search(self, gallery: Gallery, probes: Embeddings, threshold: float, *, phase: str = "search") -> IndexSearch:
        """Return every reference of the index at or above `threshold`.

        Args:
            gallery: as just read from the record.
            probes: (n, D) float32, rows of L2 norm 1.
            threshold: cosine, -1..1.
            phase: of the metrics, under which its time is counted.
        """
        slot = self._slot(gallery)
        if gallery.last_seq - slot.index.high_water_mark > NEWCOMER_LIMIT:
            self.catch_up(gallery.gallery_id)
            slot = self._slot(gallery)
        with self._metrics.phase(phase):
            # before the search: what is added while it runs is compared as a newcomer
            high_water_mark = slot.index.high_water_mark
            gallery_size = len(slot.index)
            try:
                found = slot.index.search(probes, threshold)
            except IndexUnavailable:
                # its files may be right all the same: one that was short of memory comes back from them
                self._remove(index_key(gallery), slot, slot.index.close)
                raise
        return IndexSearch(
            timeline_id=slot.timeline_id,
            high_water_mark=high_water_mark,
            gallery_size=gallery_size,
            miss_bound=slot.index.miss_bound,
            found=tuple(tuple(hits) for hits in found),
        )

    def check(self, gallery: Gallery, found: IndexSearch) -> None:
        """Make sure that what was searched belongs to the record as it is now.

        Args:
            gallery: as it is now, in the transaction that goes on.

        Raises:
            SearchAgain: the record was restored, or lost changes in a failover, after the index had applied them.
            PackMismatch: its templates were made by another model.
        """
        self._check_model(gallery)
        if found.timeline_id != gallery.timeline_id or found.high_water_mark > gallery.last_seq:
            self._throw_away_other_history(gallery)
            raise SearchAgain

    def compare_newcomers(
        self, reading: Reading, gallery: Gallery, after: int, probes: Embeddings, threshold: float
    ) -> Newcomers:
        """Compare exactly with every template added after change `after`.

        Args:
            reading: the transaction that goes on.
            gallery: as it is in that transaction.
            after: the last change that the search has seen.
            probes: (n, D) float32, rows of L2 norm 1.
            threshold: cosine, -1..1.

        Raises:
            SearchAgain: there are more than NEWCOMER_LIMIT changes.
        """
        if gallery.last_seq == after:
            return Newcomers(after, 0, ((),) * len(probes))
        changes = reading.changes_after(gallery.gallery_id, after, NEWCOMER_LIMIT + 1, gallery.pack_id)
        if len(changes) > NEWCOMER_LIMIT:
            raise SearchAgain
        added = [pair for change in changes for pair in change.added]
        last = changes[-1].seq if changes else after
        if not added:
            return Newcomers(last, 0, ((),) * len(probes))
        scores = probes @ np.stack([embedding for _, embedding in added]).T
        found = tuple(
            tuple(Hit(added[column][0], float(row[column])) for column in np.flatnonzero(row >= threshold))
            for row in scores
        )
        return Newcomers(last, len(added), found)
