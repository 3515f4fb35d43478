"""The parts of a gallery index: an open segment is compared exactly, a sealed one by its codes and then exactly.

A sealed segment holds each template twice: as a 4-bit product-quantised code that is scanned to find a shortlist, and
as its row, that gives the shortlist its true scores.

Source of the codes: Jégou et al., "Product Quantization for Nearest Neighbor Search", PAMI 33(1), 2011; André et al.,
"Quicker ADC", PAMI 43(5), 2021 (FAISS's fast-scan).
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from service.domain import Embeddings
from service.gallery.meter import Meter
from service.gallery.segment_files import SegmentFile

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Found = list[tuple[Ids, Scores]]
"""For each probe the references at or above the threshold, in no order."""

# a candidate is missed if its code makes it look worse by more than this many standard deviations: 2 of 10,000 of those
# that lie exactly at the threshold, fewer above it
SURE_DEVIATIONS = 3.5

_FIRST_SHARE, _LEAST_FIRST = 512, 64  # of the segment's templates in the first shortlist
_WIDER = 8  # times as long is the second shortlist; a probe that is like still more templates is compared with all
_BLOCK = 16_384  # rows
# FAISS's `qbs`, how many probes one pass over the codes serves: 4 x 4 take a quarter less time than what it picks
_PROBES_A_PASS = 0x4444
COPIED_AT_ONCE = 4096  # rows


class OpenSegment:
    """Templates compared one by one. One thread changes it at a time (the index's lock); any number search it."""

    def __init__(self, dimension: int, room: int = 1024) -> None:
        self._rows: Embeddings = np.empty((room, dimension), np.float32)
        self._ids: Ids = np.empty(room, np.int64)
        self._live = np.zeros(room, np.bool_)
        self._row_of: dict[int, int] = {}
        # what a search takes in one step, while rows are appended or the arrays replaced by larger ones
        self._view = (self._rows[:0], self._ids[:0], self._live[:0])
        self.first_change: int | None = None  # that added to it
        self.meter: Meter | None = None

    def __len__(self) -> int:
        return len(self._row_of)

    @property
    def used(self) -> int:
        """Rows in use, those of removed templates too."""
        return len(self._view[1])

    def append(self, ids: Sequence[int], embeddings: Embeddings) -> None:
        start, end = self.used, self.used + len(ids)
        if end > len(self._ids):
            self._grow(max(end, 2 * len(self._ids)))
        self._rows[start:end] = embeddings
        self._ids[start:end] = ids
        self._live[start:end] = True
        self._row_of.update(zip(ids, range(start, end), strict=True))
        self._view = (self._rows[:end], self._ids[:end], self._live[:end])

    def remove(self, ids: Sequence[int]) -> None:
        """Switch references off and overwrite their rows; unknown ones are ignored."""
        rows = [self._row_of.pop(each) for each in ids if each in self._row_of]
        self._live[rows] = False
        self._rows[rows] = 0.0  # erased means erased, in memory too

    def search(self, probes: Embeddings, threshold: float) -> Found:
        """Compare `probes`, (n, D) float32, with every template."""
        start = time.perf_counter()
        rows, ids, live = self._view
        found = [_at_least(scores, threshold, ids, live) for scores in probes @ rows.T]
        if self.meter is not None:
            self.meter.searched_open(time.perf_counter() - start)
        return found

    def live_ids(self) -> Ids:
        _, ids, live = self._view
        return ids[live]

    def contents(self) -> tuple[Ids, Embeddings]:
        """Return the live ids and copies of their rows, in one order."""
        rows, ids, live = self._view
        return _copied(rows, ids, live)

    def between(self, after: int, up_to: int) -> tuple[Ids, Embeddings]:
        """Return the live ids above `after` and not above `up_to` and copies of their rows, in one order."""
        rows, ids, live = self._view
        return _copied(rows, ids, live & (ids > after) & (ids <= up_to))

    @property
    def ram_bytes(self) -> int:
        return self._rows.nbytes + self._ids.nbytes + self._live.nbytes

    def _grow(self, room: int) -> None:
        used = self.used
        rows = np.empty((room, self._rows.shape[1]), np.float32)
        ids, live = np.empty(room, np.int64), np.zeros(room, np.bool_)
        rows[:used], ids[:used], live[:used] = self._view
        self._rows, self._ids, self._live = rows, ids, live


@dataclass(slots=True)
class Tally:
    """How many of the pairs at or above a threshold were looked for, and how many of them a search missed."""

    pairs: int = 0
    missed: int = 0


@dataclass(frozen=True, slots=True)
class CodeError:
    """What the codes of a segment make of a score.

    A probe at cosine c to a template is c times the template and sqrt(1 - c^2) times something else. The code shows of
    the first part about `slope`, more of one template and less of another (`own_deviation`), and of the second part
    noise (`other_deviation`). The few templates whose code shows very little of them are `odd`: always compared
    exactly.
    """

    slope: float
    own_deviation: float
    other_deviation: float
    odd: Ids  # places, ascending

    def cutoff(self, threshold: float) -> float:
        """Return the code's score below which a candidate at `threshold` hardly ever falls.

        A threshold can lie above 1, where no score reaches: a calibration says so that the wanted rate is out of reach.
        """
        deviation = math.hypot(
            threshold * self.own_deviation, math.sqrt(max(0.0, 1 - threshold**2)) * self.other_deviation
        )
        return self.slope * threshold - SURE_DEVIATIONS * deviation


class SealedSegment:
    """Immutable templates with codes; only switching off changes it. Any number of threads search it."""

    def __init__(self, ids: Ids, rows: Embeddings, codes: faiss.Index, error: CodeError) -> None:
        """Take the parts as `seal` makes them: `ids` ascending, `rows` (n, D) float32 in their order."""
        self.ids, self.rows = ids, rows
        self.codes, self.error = codes, error
        scan: Any = faiss.downcast_index(codes.index) if isinstance(codes, faiss.IndexPreTransform) else codes
        scan.qbs = _PROBES_A_PASS
        self._live = np.ones(len(ids), np.bool_)
        self._live_count = len(ids)
        first = max(_LEAST_FIRST, self.used // _FIRST_SHARE)
        # a longer list than an eighth of the segment costs more than comparing all of it
        self._sizes = [size for size in (first, first * _WIDER) if size * 8 < self.used]
        self.tally = Tally()
        self._odd_rows = rows[error.odd]  # side by side: one product compares them with all probes
        self._is_odd = np.zeros(len(ids), np.bool_)
        self._is_odd[error.odd] = True
        self.file: SegmentFile | None = None  # once it was written
        # the change that took the first template out of it, or an earlier one: its code, and its file, still hold it
        self.first_removal: int | None = None
        self.meter: Meter | None = None

    def __len__(self) -> int:
        return self._live_count

    @property
    def used(self) -> int:
        """Rows in use, those of removed templates too."""
        return len(self.ids)

    def remove(self, ids: Sequence[int]) -> None:
        """Switch references off and overwrite their rows; unknown ones are ignored. Their codes go by compaction."""
        if not self.used:
            return
        wanted = np.asarray(ids, np.int64)
        places = np.minimum(np.searchsorted(self.ids, wanted), self.used - 1)
        places = places[self.ids[places] == wanted]
        self._live[places] = False
        self.rows[places] = 0.0
        self._odd_rows[np.isin(self.error.odd, places)] = 0.0
        self._live_count = int(np.count_nonzero(self._live))

    def live_ids(self) -> Ids:
        return self.ids[self._live]

    def removed_ids(self) -> list[int]:
        return self.ids[~self._live].tolist()  # type: ignore[no-any-return]  # ints, numpy's stubs do not say

    def contents(self) -> tuple[Ids, Embeddings]:
        """Return the live ids and copies of their rows, in one order."""
        return _copied(self.rows, self.ids, self._live)

    def between(self, after: int, up_to: int) -> tuple[Ids, Embeddings]:
        """Return the live ids above `after` and not above `up_to` and copies of their rows, in one order."""
        start, end = np.searchsorted(self.ids, (after, up_to), side="right")
        return _copied(self.rows[start:end], self.ids[start:end], self._live[start:end])

    @property
    def ram_bytes(self) -> int:
        codes = self.used * int(self.codes.sa_code_size())
        return self.rows.nbytes + self.ids.nbytes + self._live.nbytes + codes

    def search(self, probes: Embeddings, threshold: float) -> Found:
        """Return what scores at least `threshold`; how much of it may be missing is what `tally` counts.

        The shortlist of a probe must reach down to codes so low that nothing at the threshold is expected behind them.
        Else it is widened, and if that is not enough the probe is compared with all.

        Args:
            probes: (n, D) float32, rows of L2 norm 1.
            threshold: cosine, -1..1.
        """
        found: Found = [(self.ids[:0], np.empty(0, np.float32))] * len(probes)
        waiting = np.arange(len(probes))
        # OpenMP counts its threads for each calling thread; the index shares the cores out itself
        faiss.omp_set_num_threads(1)
        for number, size in enumerate(self._sizes):
            if number and self.meter is not None:
                self.meter.widened(len(waiting))
            waiting = waiting[~self._shortlisted(probes, waiting, size, threshold, found)]
            if not len(waiting):
                return found
        start = time.perf_counter()
        for probe, one in zip(waiting, self._exactly(probes[waiting], threshold), strict=True):
            found[probe] = one
        if self.meter is not None and len(waiting):
            self.meter.compared_with_all(len(waiting), time.perf_counter() - start)
        return found

    def _shortlisted(
        self, probes: Embeddings, waiting: Ids, size: int, threshold: float, found: Found
    ) -> npt.NDArray[np.bool_]:
        """Fill in `found` for the `waiting` probes that a shortlist of `size` is long enough for; tell which."""
        start = time.perf_counter()
        cutoff = self.error.cutoff(threshold)
        approximate, places = self.codes.search(probes[waiting], size)
        scanned = time.perf_counter()
        is_done: npt.NDArray[np.bool_] = approximate[:, -1] < cutoff
        chosen = np.where(approximate[is_done] >= cutoff, places[is_done], -1)
        self._rank(probes, waiting[is_done], chosen, threshold, found)
        if self.meter is not None:
            self.meter.searched_codes(scanned - start, time.perf_counter() - scanned)
            self.meter.shortlisted(len(chosen), int(np.count_nonzero(chosen >= 0)))
        return is_done

    def _rank(self, probes: Embeddings, done: Ids, chosen: Ids, threshold: float, found: Found) -> None:
        """Fill in `found` what truly reaches the threshold, of the shortlists and of the odd templates.

        Args:
            probes: (n, D) float32.
            done: (k,) the numbers of the probes that have their shortlist.
            chosen: (k, size) their shortlists as places, the best code first; -1 where a code is too low.
            threshold: cosine.
            found: of all probes.
        """
        longest = int(np.max(np.count_nonzero(chosen >= 0, axis=1), initial=0))
        chosen = np.ascontiguousarray(chosen[:, :longest])
        ranked, scores = probes[done], np.empty(chosen.shape, np.float32)
        # all at once: a call for each probe would hold the interpreter's lock for as long as the scan takes
        faiss.fvec_inner_products_by_idx(  # type: ignore[attr-defined]  # of FAISS's own extra functions
            *(faiss.swig_ptr(each) for each in (scores, ranked, self.rows, chosen)), self.rows.shape[1], *chosen.shape
        )
        row, column = np.nonzero(scores >= threshold)  # FAISS gives -inf where there is no place
        odd_scores = ranked @ self._odd_rows.T
        odd_row, odd_column = np.nonzero(odd_scores >= threshold)
        kept = ~self._is_odd[chosen[row, column]]  # those come from their own product
        numbers = np.concatenate([row[kept], odd_row])
        places = np.concatenate([chosen[row, column][kept], self.error.odd[odd_column]])
        true = np.concatenate([scores[row, column][kept], odd_scores[odd_row, odd_column]])
        live = self._live[places]
        for number in np.unique(numbers[live]):
            mine = live & (numbers == number)
            found[done[number]] = (self.ids[places[mine]], true[mine])

    def audit(self, probes: Embeddings, threshold: float) -> int:
        """Search exactly as well, count in `tally` what there was and what the codes missed, and return the latter."""
        missed = 0
        for (ids, _), (true, _) in zip(self.search(probes, threshold), self._exactly(probes, threshold), strict=True):
            missed += len(np.setdiff1d(true, ids, assume_unique=True))
            self.tally.pairs += len(true)
        self.tally.missed += missed
        return missed

    def _exactly(self, probes: Embeddings, threshold: float) -> Found:
        """Compare with every row, in blocks whose scores stay in the cache."""
        parts: list[Found] = []
        for start in range(0, self.used, _BLOCK):
            end = start + _BLOCK
            ids, live = self.ids[start:end], self._live[start:end]
            parts.append([_at_least(scores, threshold, ids, live) for scores in probes @ self.rows[start:end].T])
        return [
            (np.concatenate([ids for ids, _ in one]), np.concatenate([scores for _, scores in one]))
            for one in zip(*parts, strict=True)
        ]


def _copied(rows: Embeddings, ids: Ids, live: npt.NDArray[np.bool_]) -> tuple[Ids, Embeddings]:
    """Copy what is live, block by block: one copy of all would hold the interpreter's lock for too long."""
    places = np.flatnonzero(live)
    copies = np.empty((len(places), rows.shape[1]), np.float32)
    for start in range(0, len(places), COPIED_AT_ONCE):
        part = places[start : start + COPIED_AT_ONCE]
        copies[start : start + len(part)] = rows[part]
    return ids[places], copies


def _at_least(scores: Scores, threshold: float, ids: Ids, live: npt.NDArray[np.bool_]) -> tuple[Ids, Scores]:
    places = np.flatnonzero((scores >= threshold) & live)
    return ids[places], scores[places]
