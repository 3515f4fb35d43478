"""The index of each gallery: filled from the record, kept in step with it, thrown away when it is wrong."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from service.domain import Embeddings, Gallery
from service.errors import BiodedupError, IndexUnavailable, PackMismatch
from service.impostor_sample import ImpostorSamples
from service.logs import log_event
from service.metrics import Metrics
from service.packs import Packs
from service.ports import GalleryIndex, IndexPart, NewIndex, Reading, Store

_CHANGES_PER_READ = 2000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IndexState:
    """An index beside its record."""

    high_water_mark: int
    last_seq: int
    index_templates: int
    record_templates: int
    same_timeline: bool

    @property
    def in_step(self) -> bool:
        return (
            self.same_timeline
            and self.high_water_mark == self.last_seq
            and self.index_templates == self.record_templates
        )


@dataclass(frozen=True, slots=True)
class HeldIndex:
    """An index to which no change is applied now, and the record at the same change."""

    index: GalleryIndex
    reading: Reading
    state: IndexState


@dataclass(slots=True)
class _Slot:
    """One gallery's index of one timeline. `applying` keeps the change log in order."""

    index: GalleryIndex
    timeline_id: str
    applying: threading.Lock = field(default_factory=threading.Lock)


class IndexKeeper:
    """Keeps each gallery's index in step with the record; `service.matching` searches them.

    The record is the truth and the index a cache: the index is filled from the change log on first use, follows it in
    order, and is thrown away and filled again when it fails, is of another timeline or is ahead of the record.
    """

    def __init__(self, store: Store, new_index: NewIndex, packs: Packs, metrics: Metrics) -> None:
        self._store = store
        self._new_index = new_index
        self._packs = packs
        self._metrics = metrics
        self.samples = ImpostorSamples()  # for `service.live_accuracy`; who is removed from an index leaves it too
        self._slots: dict[str, _Slot] = {}
        self._filling: dict[str, threading.Lock] = {}
        self._slots_lock = threading.Lock()  # of the two dictionaries, held for no work

    def applied(self, gallery: Gallery, seq: int, reference_ids: Sequence[int], embeddings: Embeddings) -> None:
        """Bring the index up to change `seq`, which this process just committed, without reading it again if it can.

        A failure here loses nothing, since the record holds the change and every search compares newcomers.
        """
        try:
            with self._metrics.phase("index"):
                slot = self._slot(gallery)
                if not self._added_next(gallery.gallery_id, slot, seq, reference_ids, embeddings):
                    self.catch_up(gallery.gallery_id)
        except BiodedupError as error:
            self._failed(gallery.gallery_id, error)

    def follow(self, gallery_id: str) -> None:
        """Catch up, and leave a failure to the next search: the record is right without it."""
        try:
            self.catch_up(gallery_id)
        except BiodedupError as error:
            self._failed(gallery_id, error)

    def catch_up(self, gallery_id: str) -> None:
        """Apply all changes of the record that the index has not seen.

        Raises:
            IndexUnavailable: the index refused a change; it is thrown away and filled again by the next search.
            StoreUnavailable: the record does not answer.
        """
        with self._store.reading() as reading:
            gallery = reading.gallery(gallery_id)
        slot = self._slot(gallery)
        with slot.applying:
            self._follow(gallery_id, slot)

    def state(self, gallery_id: str) -> IndexState:
        """Return how the index stands beside the record, both read while no change is applied."""
        with self.hold(gallery_id) as held:
            state = held.state
        if not state.in_step:
            self.throw_away(gallery_id, "differs_from_record")
        return state

    @contextmanager
    def hold(self, gallery_id: str) -> Iterator[HeldIndex]:
        """Bring an index into step with a reading of the record, as far as that can be, and hold it there.

        Changes of the gallery wait meanwhile, searches do not.

        Raises:
            GalleryNotFound, IndexUnavailable, StoreUnavailable
        """
        with self._store.reading() as reading:
            gallery = reading.gallery(gallery_id)
        slot = self._slot(gallery)
        with slot.applying, self._store.reading() as reading:
            # again, under the lock: so that the numbers belong together
            gallery = reading.gallery(gallery_id)
            self._follow(gallery_id, slot, up_to=gallery.last_seq)
            state = IndexState(
                high_water_mark=slot.index.high_water_mark,
                last_seq=gallery.last_seq,
                index_templates=len(slot.index),
                record_templates=gallery.template_count,
                same_timeline=slot.timeline_id == gallery.timeline_id,
            )
            yield HeldIndex(slot.index, reading, state)

    def close(self) -> None:
        """Let no index write any more."""
        for slot in list(self._slots.values()):
            slot.index.close()

    def throw_away(self, gallery_id: str, reason: str) -> None:
        """Throw the index away, if there is one; the next search fills it from the record."""
        slot = self._slots.get(gallery_id)
        if slot is not None:
            self._throw_away(gallery_id, slot, reason)

    def parts(self, gallery_id: str) -> list[IndexPart]:
        """Return the parts of the index as it is, none while there is none."""
        slot = self._slots.get(gallery_id)
        return slot.index.parts() if slot else []

    def lag(self, gallery: Gallery) -> int:
        """Return how many changes of `gallery` the index has not applied, without applying any."""
        slot = self._slots.get(gallery.gallery_id)
        return max(gallery.last_seq - slot.index.high_water_mark, 0) if slot else gallery.last_seq

    def miss_bound(self, gallery: Gallery) -> float:
        """Return the bound on what the index of `gallery` misses, 0 while there is none."""
        slot = self._slots.get(gallery.gallery_id)
        return slot.index.miss_bound if slot else 0.0

    def _added_next(
        self, gallery_id: str, slot: _Slot, seq: int, reference_ids: Sequence[int], embeddings: Embeddings
    ) -> bool:
        """Apply change `seq` if it is the next one; return whether the index has reached it."""
        with slot.applying:
            try:
                if slot.index.high_water_mark == seq - 1:
                    slot.index.add(seq, reference_ids, embeddings)
            except IndexUnavailable:
                self._throw_away(gallery_id, slot)
                raise
            return slot.index.high_water_mark >= seq

    def _slot(self, gallery: Gallery) -> _Slot:
        """Return the gallery's index, filled from the record when there is none of this timeline."""
        slot = self._slots.get(gallery.gallery_id)
        if slot is not None and slot.timeline_id == gallery.timeline_id:
            return slot
        with self._slots_lock:
            filling = self._filling.setdefault(gallery.gallery_id, threading.Lock())
        with filling:  # one gallery's filling keeps nobody from another
            slot = self._slots.get(gallery.gallery_id)
            if slot is None or slot.timeline_id != gallery.timeline_id:
                if slot is not None:
                    slot.index.discard()  # of another history
                slot = self._fill(gallery)
                with self._slots_lock:
                    self._slots[gallery.gallery_id] = slot
            return slot

    def _fill(self, gallery: Gallery) -> _Slot:
        self._check_model(gallery)
        self.samples.clear(gallery.gallery_id)
        index = self._new_index(gallery, self._packs.of(gallery.pack_id).embedder)
        self._follow_log(gallery.gallery_id, index)
        self._metrics.index_rebuilds.inc()
        log_event(_log, "index.filled", gallery_id=gallery.gallery_id, seq=index.high_water_mark, count=len(index))
        return _Slot(index, gallery.timeline_id)

    def _check_model(self, gallery: Gallery) -> None:
        loaded = self._packs.of(gallery.pack_id).embedder.model_id
        if gallery.model_id not in {None, loaded}:
            raise PackMismatch(
                f"the gallery {gallery.gallery_id} holds templates of {gallery.model_id}, loaded is {loaded}: their "
                "scores mean nothing to each other. Run the version that enrolled them, or enrol anew in a new database"
            )

    def _follow(self, gallery_id: str, slot: _Slot, up_to: int | None = None) -> None:
        """Follow the log with `applying` held; an index that refuses a change is thrown away."""
        try:
            self._follow_log(gallery_id, slot.index, up_to)
        except IndexUnavailable:
            self._throw_away(gallery_id, slot)
            raise

    def _follow_log(self, gallery_id: str, index: GalleryIndex, up_to: int | None = None) -> None:
        while up_to is None or index.high_water_mark < up_to:
            room = _CHANGES_PER_READ if up_to is None else min(_CHANGES_PER_READ, up_to - index.high_water_mark)
            with self._store.reading() as reading:
                changes = reading.changes_after(gallery_id, index.high_water_mark, room)
            if not changes:
                return
            for change in changes:
                if change.removed:
                    index.remove(change.seq, change.removed)
                    self.samples.forget(gallery_id, change.removed)
                else:
                    ids = [reference_id for reference_id, _ in change.added]
                    rows = [embedding for _, embedding in change.added]
                    index.add(change.seq, ids, np.stack(rows) if rows else np.empty((0, 0), np.float32))

    def _throw_away_other_history(self, gallery: Gallery) -> None:
        """Throw the index away if it is of another timeline than the record, or ahead of it."""
        slot = self._slots.get(gallery.gallery_id)
        if slot is not None and (
            slot.timeline_id != gallery.timeline_id or slot.index.high_water_mark > gallery.last_seq
        ):
            self._throw_away(gallery.gallery_id, slot)

    def _throw_away(self, gallery_id: str, slot: _Slot, reason: str = "differs_from_record") -> None:
        self._remove(gallery_id, slot, lambda: slot.index.discard(reason))

    def _remove(self, gallery_id: str, slot: _Slot, leave: Callable[[], None]) -> None:
        """Take an index out of use, and `leave` its files before the next one looks for them."""
        with self._slots_lock:
            if self._slots.get(gallery_id) is not slot:
                return
            filling = self._filling.setdefault(gallery_id, threading.Lock())
        with filling:
            with self._slots_lock:
                if self._slots.get(gallery_id) is slot:
                    del self._slots[gallery_id]
            leave()

    def _failed(self, gallery_id: str, error: BiodedupError) -> None:
        self._metrics.index_failures.inc()
        log_event(_log, "index.failed", level=logging.WARNING, gallery_id=gallery_id, code=error.code)
