"""A part of a gallery index that is searched by its codes and then exactly.

It holds each template twice: as a 4-bit product-quantised code that is scanned to find a shortlist, and as its row,
that gives the shortlist its true scores.

Source of the codes: Jégou et al., "Product Quantization for Nearest Neighbor Search", PAMI 33(1), 2011; André et al.,
"Quicker ADC", PAMI 43(5), 2021 (FAISS's fast-scan).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from service.domain import Embeddings
from service.gallery.code_error import CodeError
from service.gallery.meter import Spent
from service.gallery.open_segment import Found, at_least
from service.gallery.rows import Ids, Rows
from service.gallery.segment_files import SegmentFile

# FAISS's `qbs`, how many probes one pass over the codes serves: 4 x 4 take a quarter less time than what it picks
_PROBES_A_PASS = 0x4444
# of each shortlist compared exactly, however low their codes: what a cutoff loses is mostly the best of its list
_ALWAYS = 4


@dataclass(slots=True)
class Tally:
    """How many of the pairs at or above a threshold were looked for, and how many of them a search missed."""

    pairs: int = 0
    missed: int = 0


class SealedSegment:
    """Immutable templates with codes; only switching off changes it. Any number of threads search it."""

    def __init__(self, ids: Ids, rows: Rows, codes: faiss.Index, error: CodeError) -> None:
        """Take the parts as `seal` makes them: `ids` ascending, `rows` and `codes` in their order."""
        self.ids, self.rows = ids, rows
        self.codes, self.error = codes, error
        scan: Any = faiss.downcast_index(codes.index) if isinstance(codes, faiss.IndexPreTransform) else codes
        scan.qbs = _PROBES_A_PASS
        self._live = np.ones(len(ids), np.bool_)
        self._live_count = len(ids)
        self.tally = Tally()
        self._odd_rows = rows.take(error.odd)  # side by side: one product compares them with all probes
        self._is_odd = np.zeros(len(ids), np.bool_)
        self._is_odd[error.odd] = True
        self.file: SegmentFile | None = None  # once it was written
        # the change that took the first template out of it, or an earlier one: its code, and its file, still hold it
        self.first_removal: int | None = None

    def __len__(self) -> int:
        return self._live_count

    @property
    def used(self) -> int:
        """Rows in use, those of removed templates too."""
        return len(self.ids)

    def remove(self, ids: Sequence[int]) -> None:
        """Switch references off and overwrite their rows in memory; unknown ones are ignored.

        Their codes, and what their file holds, go by compaction.
        """
        if not self.used:
            return
        wanted = np.asarray(ids, np.int64)
        places = np.minimum(np.searchsorted(self.ids, wanted), self.used - 1)
        places = places[self.ids[places] == wanted]
        self._live[places] = False
        self.rows.erase(places)
        self._odd_rows[np.isin(self.error.odd, places)] = 0.0
        self._live_count = int(np.count_nonzero(self._live))

    def live_ids(self) -> Ids:
        return self.ids[self._live]

    def removed_ids(self) -> list[int]:
        return self.ids[~self._live].tolist()  # type: ignore[no-any-return]  # ints, numpy's stubs do not say

    def contents(self) -> tuple[Ids, Embeddings]:
        """Return the live ids and copies of their rows, in one order."""
        return self._copied(np.flatnonzero(self._live))

    def between(self, after: int, up_to: int) -> tuple[Ids, Embeddings]:
        """Return the live ids above `after` and not above `up_to` and copies of their rows, in one order."""
        start, end = np.searchsorted(self.ids, (after, up_to), side="right")
        return self._copied(start + np.flatnonzero(self._live[start:end]))

    @property
    def ram_bytes(self) -> int:
        codes = self.used * int(self.codes.sa_code_size())
        return self.rows.ram_bytes + self._odd_rows.nbytes + self.ids.nbytes + 2 * self._live.nbytes + codes

    def search(self, probes: Embeddings, threshold: float, spent: Spent | None = None) -> Found:
        """Return what scores at least `threshold`; how much of it may be missing is what `tally` counts.

        The shortlist of a probe must reach down to codes so low that nothing at the threshold is expected behind them.
        Else it is widened, and if that is not enough the probe is compared with all.

        Args:
            probes: (n, D) float32, rows of L2 norm 1.
            threshold: cosine, -1..1.
            spent: where to add what it took.
        """
        spent = spent or Spent()
        found: Found = [(self.ids[:0], np.empty(0, np.float32))] * len(probes)
        waiting = np.arange(len(probes))
        # OpenMP counts its threads for each calling thread; the index shares the cores out itself
        faiss.omp_set_num_threads(1)
        for number, length in enumerate(self.error.attempts(threshold)):
            if number:
                spent.widened.append(len(waiting))
            is_done, chosen = self._shortlists(probes[waiting], length, threshold, spent)
            start = time.perf_counter()
            self._rank(probes, waiting[is_done], chosen, threshold, found)
            spent.rows_s.append(time.perf_counter() - start)
            waiting = waiting[~is_done]
            if not len(waiting):
                return found
        start = time.perf_counter()
        for probe, one in zip(waiting, self._exactly(probes[waiting], threshold), strict=True):
            found[probe] = one
        spent.compared_with_all.append(len(waiting))
        spent.exact_s.append(time.perf_counter() - start)
        return found

    def _shortlists(
        self, probes: Embeddings, length: int, threshold: float, spent: Spent
    ) -> tuple[npt.NDArray[np.bool_], Ids]:
        """Return for which probes a shortlist of `length` is enough, and theirs as `_rank` takes them."""
        start = time.perf_counter()
        cutoff = self.error.cutoff(threshold)
        approximate, places = self.codes.search(probes, length)
        is_done: npt.NDArray[np.bool_] = approximate[:, -1] < cutoff
        is_candidate = approximate[is_done] >= cutoff
        is_candidate[:, :_ALWAYS] = True
        lengths = np.count_nonzero(is_candidate, axis=1)
        longest = int(lengths.max(initial=0))
        chosen = np.where(is_candidate[:, :longest], places[is_done, :longest], -1)
        spent.codes_s.append(time.perf_counter() - start)
        spent.shortlisted.append((len(lengths), int(lengths.sum())))
        return is_done, chosen

    def _rank(self, probes: Embeddings, done: Ids, chosen: Ids, threshold: float, found: Found) -> None:
        """Fill in `found` what truly reaches the threshold, of the shortlists and of the odd templates.

        Args:
            probes: (n, D) float32.
            done: (k,) the numbers of the probes that have their shortlist.
            chosen: (k, n) their shortlists as places, the best code first; -1 where a code is too low.
            threshold: cosine.
            found: of all probes.
        """
        ranked = probes[done]
        scores = self.rows.scores(ranked, chosen)
        row, column = np.nonzero(scores >= threshold)
        odd_scores = ranked @ self._odd_rows.T
        odd_row, odd_column = np.nonzero(odd_scores >= threshold)
        if not len(row) and not len(odd_row):
            return
        kept = ~self._is_odd[chosen[row, column]]  # those come from their own product
        numbers = np.concatenate([row[kept], odd_row])
        places = np.concatenate([chosen[row, column][kept], self.error.odd[odd_column]])
        true = np.concatenate([scores[row, column][kept], odd_scores[odd_row, odd_column]])
        numbers[~self._live[places]] = -1
        order = np.argsort(numbers, kind="stable")
        firsts = np.flatnonzero(np.diff(numbers[order], prepend=-1))  # the removed ones come before them
        for start, end in pairwise((*firsts.tolist(), len(order))):
            mine = order[start:end]
            found[done[numbers[mine[0]]]] = (self.ids[places[mine]], true[mine])

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
        start = 0
        for block in self.rows.blocks():
            end = start + len(block)
            ids, live = self.ids[start:end], self._live[start:end]
            parts.append([at_least(scores, threshold, ids, live) for scores in probes @ block.T])
            start = end
        return [
            (np.concatenate([ids for ids, _ in one]), np.concatenate([scores for _, scores in one]))
            for one in zip(*parts, strict=True)
        ]

    def _copied(self, places: Ids) -> tuple[Ids, Embeddings]:
        return self.ids[places], self.rows.take(places)
