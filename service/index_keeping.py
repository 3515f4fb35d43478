"""The index of each gallery and pack: filled from the record, kept in step with it, thrown away when it is wrong.

A gallery whose model changes has two, one a pack, that follow the same log. Where a `Gallery` is asked for, it is the
gallery as the pack sees it whose index is meant: `Gallery.sides`.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from service.domain import Embeddings, Gallery
from service.errors import BiodedupError, IndexUnavailable, PackMismatch
from service.impostor_sample import ImpostorSamples
from service.index_slots import HeldIndex, IndexKey, IndexState, Slot, index_key, side_of
from service.logs import log_event
from service.metrics import Metrics
from service.packs import Packs
from service.ports import GalleryIndex, IndexPart, NewIndex, Store

_CHANGES_PER_READ = 2000

_log = logging.getLogger(__name__)


class IndexKeeper:
    """Keeps each gallery's index in step with the record; `service.matching` searches them.

    The record is the truth and the index a cache: the index is filled from the change log on first use, follows it in
    order, and is thrown away and filled again when it fails, is of another timeline or is ahead of the record.
    """

    def __init__(
        self,
        store: Store,
        new_index: NewIndex,
        packs: Packs,
        metrics: Metrics,
        forget_files: Callable[[Gallery], None] = lambda _gallery: None,
    ) -> None:
        """`forget_files` deletes the index files of packs that a gallery does not have."""
        self._store = store
        self._forget_files = forget_files
        self._new_index = new_index
        self._packs = packs
        self._metrics = metrics
        self.samples = ImpostorSamples()  # for `service.live_accuracy`; who is removed from an index leaves it too
        self._slots: dict[IndexKey, Slot] = {}
        self._filling: dict[IndexKey, threading.Lock] = {}
        self._slots_lock = threading.Lock()  # of the two dictionaries, held for no work
        self._files_lock = threading.Lock()  # no folder of an index is made while those of other packs are deleted

    def applied(self, gallery: Gallery, seq: int, reference_ids: Sequence[int], embeddings: Embeddings) -> None:
        """Bring the index up to change `seq`, which this process just committed, without reading it again if it can.

        A failure here loses nothing, since the record holds the change and every search compares newcomers.
        """
        try:
            with self._metrics.phase("index"):
                slot = self._slot(gallery)
                if not self._added_next(gallery, slot, seq, reference_ids, embeddings):
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
        for side in gallery.sides():
            slot = self._slot(side)
            with slot.applying:
                self._follow(side, slot)

    def state(self, gallery_id: str, pack_id: str | None = None) -> IndexState:
        """Return how the index of a pack stands beside the record, both read while no change is applied."""
        with self.hold(gallery_id, pack_id) as held:
            state, pack_id = held.state, held.pack_id
        if not state.in_step:
            self.throw_away(gallery_id, "differs_from_record", pack_id)
        return state

    @contextmanager
    def hold(self, gallery_id: str, pack_id: str | None = None) -> Iterator[HeldIndex]:
        """Bring the index of a pack into step with a reading of the record, as far as that can be, and hold it there.

        Changes of the gallery wait meanwhile, searches do not.

        Args:
            gallery_id: the gallery.
            pack_id: one of its packs; None: the one that rules.

        Raises:
            GalleryNotFound, PackNotLoaded, IndexUnavailable, StoreUnavailable
        """
        with self._store.reading() as reading:
            gallery = side_of(reading.gallery(gallery_id), pack_id)
        slot = self._slot(gallery)
        with slot.applying, self._store.reading() as reading:
            # again, under the lock: so that the numbers belong together
            gallery = side_of(reading.gallery(gallery_id), gallery.pack_id)
            self._follow(gallery, slot, up_to=gallery.last_seq)
            state = IndexState(
                high_water_mark=slot.index.high_water_mark,
                last_seq=gallery.last_seq,
                index_templates=len(slot.index),
                record_templates=gallery.template_count,
                same_timeline=slot.timeline_id == gallery.timeline_id,
            )
            yield HeldIndex(slot.index, reading, state, gallery.pack_id)

    def pack_ids(self, gallery_id: str) -> tuple[str, ...]:
        """Return the packs of which the gallery has templates, the ruling one first. Raises GalleryNotFound."""
        with self._store.reading() as reading:
            return reading.gallery(gallery_id).pack_ids

    def close(self) -> None:
        """Let no index write any more."""
        for slot in list(self._slots.values()):
            slot.index.close()

    def throw_away(self, gallery_id: str, reason: str, pack_id: str | None = None) -> None:
        """Throw the index of a pack away, or those of all; the next search fills it from the record."""
        for key, slot in list(self._slots.items()):
            if key[0] == gallery_id and pack_id in {None, key[1]}:
                self._throw_away(key, slot, reason)

    def forget_other_packs(self) -> None:
        """Leave nothing, in memory and in files, of the indexes of packs that a gallery does not have any more.

        A pack that was given up and stands by again is another one: of its earlier index nothing stays in memory.

        Raises:
            StoreUnavailable, VarUnusable
        """
        with self._files_lock:
            galleries = {gallery.gallery_id: gallery for gallery in self._store.galleries()}
            for key, slot in list(self._slots.items()):
                gallery = galleries.get(key[0])
                if gallery is None:
                    continue  # made a moment ago
                if key[1] not in gallery.pack_ids:
                    self._remove(key, slot, slot.index.close)
                elif slot.timeline_id != side_of(gallery, key[1]).timeline_id:
                    self._throw_away(key, slot, "other_timeline")
            for gallery in galleries.values():
                sample = self.samples.of(gallery.gallery_id)
                if sample is not None and sample.calibration.pack_id not in gallery.pack_ids:
                    self.samples.clear(gallery.gallery_id)
                self._forget_files(gallery)

    def parts(self, gallery: Gallery) -> list[IndexPart]:
        """Return the parts of the indexes of all packs as they are, none while there is none."""
        slots = [slot for side in gallery.sides() if (slot := self._slots.get(index_key(side))) is not None]
        return [part for slot in slots for part in slot.index.parts()]

    def lag(self, gallery: Gallery) -> int:
        """Return how many changes of `gallery` the index has not applied, without applying any."""
        slot = self._slots.get(index_key(gallery))
        return max(gallery.last_seq - slot.index.high_water_mark, 0) if slot else gallery.last_seq

    def miss_bound(self, gallery: Gallery) -> float:
        """Return the bound on what the index of `gallery` misses, 0 while there is none."""
        slot = self._slots.get(index_key(gallery))
        return slot.index.miss_bound if slot else 0.0

    def _added_next(
        self, gallery: Gallery, slot: Slot, seq: int, reference_ids: Sequence[int], embeddings: Embeddings
    ) -> bool:
        """Apply change `seq` if it is the next one; return whether the index has reached it."""
        with slot.applying:
            try:
                if slot.index.high_water_mark == seq - 1:
                    slot.index.add(seq, reference_ids, embeddings)
            except IndexUnavailable:
                self._throw_away(index_key(gallery), slot)
                raise
            return slot.index.high_water_mark >= seq

    def _slot(self, gallery: Gallery) -> Slot:
        """Return the gallery's index, filled from the record when there is none of this timeline."""
        key = index_key(gallery)
        slot = self._slots.get(key)
        if slot is not None and slot.timeline_id == gallery.timeline_id:
            return slot
        with self._slots_lock:
            filling = self._filling.setdefault(key, threading.Lock())
        with filling:  # one gallery's filling keeps nobody from another
            slot = self._slots.get(key)
            if slot is None or slot.timeline_id != gallery.timeline_id:
                if slot is not None:
                    slot.index.discard("other_timeline")
                slot = self._fill(gallery)
                with self._slots_lock:
                    self._slots[key] = slot
            return slot

    def _fill(self, gallery: Gallery) -> Slot:
        self._check_model(gallery)
        self.samples.clear(gallery.gallery_id)
        embedder = self._packs.of(gallery.pack_id).embedder
        with self._files_lock:
            index = self._new_index(gallery, embedder)
        self._follow_log(gallery, index)
        self._metrics.index_rebuilds.inc()
        log_event(_log, "index.filled", gallery_id=gallery.gallery_id, seq=index.high_water_mark, count=len(index))
        return Slot(index, gallery.timeline_id)

    def _check_model(self, gallery: Gallery) -> None:
        loaded = self._packs.of(gallery.pack_id).embedder.model_id
        if gallery.model_id not in {None, loaded}:
            raise PackMismatch(
                f"the gallery {gallery.gallery_id} holds templates of {gallery.model_id}, loaded is {loaded}: their "
                "scores mean nothing to each other. Run the version that enrolled them, or enrol anew in a new database"
            )

    def _follow(self, gallery: Gallery, slot: Slot, up_to: int | None = None) -> None:
        """Follow the log with `applying` held; an index that refuses a change is thrown away."""
        try:
            self._follow_log(gallery, slot.index, up_to)
        except IndexUnavailable:
            self._throw_away(index_key(gallery), slot)
            raise

    def _follow_log(self, gallery: Gallery, index: GalleryIndex, up_to: int | None = None) -> None:
        gallery_id, pack_id = index_key(gallery)
        while up_to is None or index.high_water_mark < up_to:
            room = _CHANGES_PER_READ if up_to is None else min(_CHANGES_PER_READ, up_to - index.high_water_mark)
            with self._store.reading() as reading:
                changes = reading.changes_after(gallery_id, index.high_water_mark, room, pack_id)
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
        slot = self._slots.get(index_key(gallery))
        if slot is None:
            return
        if slot.timeline_id != gallery.timeline_id:
            self._throw_away(index_key(gallery), slot, "other_timeline")
        elif slot.index.high_water_mark > gallery.last_seq:
            self._throw_away(index_key(gallery), slot)

    def _throw_away(self, key: IndexKey, slot: Slot, reason: str = "differs_from_record") -> None:
        self._remove(key, slot, lambda: slot.index.discard(reason))

    def _remove(self, key: IndexKey, slot: Slot, leave: Callable[[], None]) -> None:
        """Take an index out of use, and `leave` its files before the next one looks for them."""
        with self._slots_lock:
            if self._slots.get(key) is not slot:
                return
            filling = self._filling.setdefault(key, threading.Lock())
        with filling:
            with self._slots_lock:
                if self._slots.get(key) is slot:
                    del self._slots[key]
            leave()

    def _failed(self, gallery_id: str, error: BiodedupError) -> None:
        self._metrics.index_failures.inc()
        log_event(_log, "index.failed", level=logging.WARNING, gallery_id=gallery_id, code=error.code)
