"""A small random part of each gallery, in memory, to see how different people score now."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.calibration import Calibration
from service.domain import Embedding, Embeddings, Gallery, Reference
from service.ports import Reading

SAMPLE_SIZE = 256  # references: 256 x 512 float32 are half a megabyte, compared in some 20 microseconds
LEVELS = (0.5, 0.1, 0.01, 0.001)
"""False match rates at whose scores impostors are counted: the middle of the scores and their upper tail."""

_IDS_PER_READ = 900  # one statement
_READS = 8
_FEW_CHANGES = 1000  # so many are read as a whole


@dataclass(frozen=True, slots=True)
class ImpostorSample:
    """Randomly chosen references of a gallery, one a subject, and the calibration that judges their scores."""

    timeline_id: str
    gallery_size: int  # templates searched when it was drawn
    drawn_at: float  # seconds of a clock that never goes back
    calibration: Calibration
    thresholds: tuple[float, ...]  # the score at each of LEVELS
    claimed: tuple[float, ...]  # what the calibration says of each threshold, LEVELS within rounding
    reference_ids: tuple[int, ...]
    rows: dict[str, int]  # of each subject
    embeddings: Embeddings  # (n, D); (0, 0) where the gallery is empty

    def __len__(self) -> int:
        return len(self.reference_ids)

    @classmethod
    def of(
        cls, gallery: Gallery, calibration: Calibration, references: Sequence[Reference], drawn_at: float
    ) -> "ImpostorSample":
        """Keep one reference of each subject."""
        first: dict[str, Reference] = {}
        for each in references:
            first.setdefault(each.subject_id, each)
        thresholds = tuple(calibration.threshold(level) for level in LEVELS)
        return cls(
            timeline_id=gallery.timeline_id,
            gallery_size=gallery.template_count,
            drawn_at=drawn_at,
            calibration=calibration,
            thresholds=thresholds,
            claimed=tuple(calibration.false_match_rate(each).fmr for each in thresholds),
            reference_ids=tuple(each.reference_id for each in first.values()),
            rows={subject_id: row for row, subject_id in enumerate(first)},
            embeddings=np.stack([each.embedding for each in first.values()]) if first else np.empty((0, 0), np.float32),
        )

    def without(self, reference_ids: frozenset[int]) -> "ImpostorSample":
        """Return the sample without these references; itself where it has none of them."""
        stay = [row for row, each in enumerate(self.reference_ids) if each not in reference_ids]
        if len(stay) == len(self):
            return self
        names = list(self.rows)
        return ImpostorSample(
            timeline_id=self.timeline_id,
            gallery_size=self.gallery_size,
            drawn_at=self.drawn_at,
            calibration=self.calibration,
            thresholds=self.thresholds,
            claimed=self.claimed,
            reference_ids=tuple(self.reference_ids[row] for row in stay),
            rows={names[row]: place for place, row in enumerate(stay)},
            embeddings=self.embeddings[stay],
        )

    def exceedances(self, probe: Embedding, subject_id: str) -> tuple[int, tuple[int, ...]]:
        """Compare with everyone but the subject.

        Args:
            probe: (D,) float32, L2 norm 1.
            subject_id: whose probe it is.

        Returns:
            The number of comparisons, and how many scored at or above each of the thresholds.
        """
        if not len(self):
            return 0, (0,) * len(LEVELS)
        scores: npt.NDArray[np.float32] = self.embeddings @ probe
        own = self.rows.get(subject_id)
        if own is not None:
            scores = np.delete(scores, own)
        return len(scores), tuple(int(np.count_nonzero(scores >= each)) for each in self.thresholds)


class ImpostorSamples:
    """The sample of each gallery. Whoever leaves the index leaves the sample in the same step.

    A sample is put while no change is applied to the index (`IndexKeeper.hold`), and every later removal goes through
    `forget`.
    """

    def __init__(self) -> None:
        self._samples: dict[str, ImpostorSample] = {}
        self._lock = threading.Lock()

    def of(self, gallery_id: str) -> ImpostorSample | None:
        return self._samples.get(gallery_id)

    def put(self, gallery_id: str, sample: ImpostorSample) -> None:
        with self._lock:
            self._samples[gallery_id] = sample

    def forget(self, gallery_id: str, reference_ids: Sequence[int]) -> None:
        """Take references out."""
        with self._lock:
            sample = self._samples.get(gallery_id)
            if sample is not None:
                self._samples[gallery_id] = sample.without(frozenset(reference_ids))

    def clear(self, gallery_id: str) -> None:
        with self._lock:
            self._samples.pop(gallery_id, None)


def draw(reading: Reading, gallery: Gallery, rng: np.random.Generator) -> list[Reference]:
    """Return up to `SAMPLE_SIZE` searched references of a gallery by its ruling pack, each as likely as any other.

    It costs a few statements, however large the gallery: ids are drawn among those of all galleries. Of a large gallery
    with less than a thirtieth of all ids fewer than `SAMPLE_SIZE` are found. References that failed the continuity
    check are left out: they may be anyone.
    """
    found: dict[int, Reference] = {}
    if gallery.template_count <= _FEW_CHANGES and gallery.last_seq <= _FEW_CHANGES:
        changes = reading.changes_after(gallery.gallery_id, 0, _FEW_CHANGES, gallery.pack_id)
        ids = sorted(reference_id for change in changes for reference_id, _ in change.added)
        found = reading.references(gallery.gallery_id, ids, gallery.pack_id)
    else:
        last = reading.last_reference_id()
        for _ in range(_READS if last else 0):  # people without a usable face are changes too
            ids = sorted(set((rng.integers(0, last, _IDS_PER_READ) + 1).tolist()))
            found |= reading.references(gallery.gallery_id, ids, gallery.pack_id)
            if len(found) >= SAMPLE_SIZE:
                break
    usable = [each for _, each in sorted(found.items()) if each.verifies]
    chosen = rng.permutation(len(usable))[:SAMPLE_SIZE]
    return [usable[place] for place in chosen]
