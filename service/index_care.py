"""For those who run the service: what a gallery's index consists of, whether it is right, and making it anew."""

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.domain import Embeddings
from service.index_keeping import IndexKeeper
from service.index_slots import HeldIndex, IndexState
from service.logs import log_event
from service.metrics import Metrics
from service.ports import IndexPart

_log = logging.getLogger(__name__)

_BLOCK = 4096  # templates compared at one change: requests that change the gallery wait for one block, not for all
_FIRST, _LAST = -(2**63), 2**63 - 1  # no reference id lies outside

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """An index beside its record, and its parts."""

    pack_id: str
    state: IndexState
    miss_bound: float
    parts: tuple[IndexPart, ...]


@dataclass(frozen=True, slots=True)
class IndexVerification:
    """What a comparison of an index with its record found, template by template."""

    compared: int  # templates of the record
    missing: int  # in the record, not in the index
    surplus: int  # in the index, not in the record, or there twice
    different: int  # in both, with other bytes
    in_step: bool  # at one change number and of one timeline, all the time

    @property
    def is_same(self) -> bool:
        return self.in_step and not (self.missing or self.surplus or self.different)


class IndexCare:
    """Looks after the indexes. The record is the truth: an index that differs from it is thrown away."""

    def __init__(self, keeper: IndexKeeper, metrics: Metrics) -> None:
        self._keeper, self._metrics = keeper, metrics

    def status(self, gallery_id: str) -> list[IndexStatus]:
        """Return the index of the ruling pack, then that of a standby pack.

        Raises:
            GalleryNotFound, IndexUnavailable, StoreUnavailable
        """
        return [self._status(gallery_id, pack_id) for pack_id in self._keeper.pack_ids(gallery_id)]

    def _status(self, gallery_id: str, pack_id: str) -> IndexStatus:
        with self._keeper.hold(gallery_id, pack_id) as held:
            return IndexStatus(pack_id, held.state, held.index.miss_bound, tuple(held.index.parts()))

    def verify(self, gallery_id: str) -> IndexVerification:
        """Compare every template that is searched now, of each pack, with what its index holds, byte for byte.

        In blocks by reference id, each at one change number of record and index; between two blocks changes go on. An
        index that differs is thrown away, and the next search fills it from the record.

        Raises:
            GalleryNotFound, IndexUnavailable, StoreUnavailable
        """
        found = [self._verify(gallery_id, pack_id) for pack_id in self._keeper.pack_ids(gallery_id)]
        return IndexVerification(
            compared=sum(each.compared for each in found),
            missing=sum(each.missing for each in found),
            surplus=sum(each.surplus for each in found),
            different=sum(each.different for each in found),
            in_step=all(each.in_step for each in found),
        )

    def _verify(self, gallery_id: str, pack_id: str) -> IndexVerification:
        compared = missing = surplus = different = 0
        in_step, after = True, _FIRST
        while after < _LAST:
            with self._keeper.hold(gallery_id, pack_id) as held:
                after, block = _compare_block(gallery_id, held, after)
                in_step = in_step and held.state.in_step
            compared += block.compared
            missing, surplus = missing + block.missing, surplus + block.surplus
            different += block.different
        found = IndexVerification(compared, missing, surplus, different, in_step)
        self._metrics.index_verifications.labels(result="ok" if found.is_same else "different").inc()
        if not found.is_same:
            log_event(
                _log,
                "index.differs_from_record",
                level=logging.ERROR,
                gallery_id=gallery_id,
                count=missing + surplus + different,
                templates=compared,
            )
            self._keeper.throw_away(gallery_id, "differs_from_record", pack_id)
        return found

    def rebuild(self, gallery_id: str) -> list[IndexStatus]:
        """Throw the index and its files away, and fill it from the record.

        Raises:
            GalleryNotFound, IndexUnavailable, StoreUnavailable
        """
        self._keeper.throw_away(gallery_id, "rebuild")
        return self.compact(gallery_id)  # which also deletes what is left of the old files

    def compact(self, gallery_id: str) -> list[IndexStatus]:
        """Leave nothing of what was removed from the gallery, neither in memory nor on disk.

        Raises:
            GalleryNotFound, StoreUnavailable
            IndexUnavailable: that failed; searches are right nevertheless.
        """
        for pack_id in self._keeper.pack_ids(gallery_id):
            with self._keeper.hold(gallery_id, pack_id) as held:
                index = held.index
            index.compact()  # changes and searches go on meanwhile
        return self.status(gallery_id)


def _compare_block(gallery_id: str, held: HeldIndex, after: int) -> tuple[int, IndexVerification]:
    """Compare the next templates of the record; return the last reference id that this settles, too."""
    references = held.reading.references_after(gallery_id, after, _LAST, _BLOCK, held.pack_id)
    last = references[-1].reference_id if len(references) == _BLOCK else _LAST
    ids, rows = held.index.templates(after, last)
    true_ids = np.array([each.reference_id for each in references], np.int64)
    true_rows = np.stack([each.embedding for each in references]) if references else rows[:0]
    return last, _compare(ids, rows, true_ids, true_rows)


def _compare(ids: Ids, rows: Embeddings, true_ids: Ids, true_rows: Embeddings) -> IndexVerification:
    """Count what is missing, surplus and different; both `ids` ascending, those of the record each once."""
    places = np.searchsorted(true_ids, ids)
    is_known = np.isin(ids, true_ids)
    present = np.unique(ids[is_known])
    # as bits: -0.0 equals 0.0 and a NaN not itself
    pairs = rows[is_known].view(np.uint32) != true_rows[places[is_known]].view(np.uint32)
    return IndexVerification(
        compared=len(true_ids),
        missing=len(true_ids) - len(present),
        surplus=len(ids) - len(present),
        different=len(np.unique(ids[is_known][np.any(pairs, axis=1)])),
        in_step=True,
    )
