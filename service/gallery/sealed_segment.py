"""A part of a gallery index that is searched by its codes and then exactly.

It has each template three times: as a 4-bit product-quantised code that is scanned to find a shortlist, as a finer code
that leaves of the shortlist little more than what is wanted, and as its row, that gives this its true scores.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from service.domain import Embeddings
from service.gallery.basis import Probes
from service.gallery.coarse_codes import AT_ONCE, CoarseCodes
from service.gallery.code_error import CodeErrors
from service.gallery.fine_codes import FineCodes
from service.gallery.meter import Spent
from service.gallery.open_segment import Found, at_least
from service.gallery.rows import Ids, Pairs, Rows, Scores
from service.gallery.segment_files import SegmentFile

_MUCH = 4096  # pairs: looked at by the thread that scanned, and not kept until somebody asks for them
_AUDITED = 2048  # templates compared exactly by an audit: reading them holds searches up for some milliseconds


@dataclass(slots=True)
class Tally:
    """How many of the pairs at or above a threshold were looked for, and how many of them a search missed."""

    pairs: int = 0
    missed: int = 0


class _Matches(NamedTuple):
    """Pairs at or above the threshold, all (k,)."""

    probes: Ids
    places: Ids
    scores: Scores

    @classmethod
    def of(cls, pairs: Pairs, scores: Scores, threshold: float) -> Self:
        reach = scores >= threshold
        return cls(pairs.probes[reach], pairs.places[reach], scores[reach])


class SealedSegment:
    """Immutable templates with codes; only switching off changes it. Any number of threads search it."""

    def __init__(
        self,
        ids: Ids,
        rows: Rows,
        codes: CoarseCodes,
        fine: FineCodes,
        errors: CodeErrors,
        *,
        odd_rows: Embeddings,
    ) -> None:
        """Take the parts as `seal` makes them: `ids` ascending; `rows`, `codes` and `fine` in their order.

        `odd_rows` are copies of those of the odd templates, side by side: one product compares them with all probes.
        """
        self.ids, self.rows = ids, rows
        self.codes, self.fine, self.errors = codes, fine, errors
        self._live = np.ones(len(ids), np.bool_)
        self._live_count = len(ids)
        self.tally = Tally()
        self.odd_rows = odd_rows
        self._is_ranked = np.ones(len(ids), np.bool_)  # live and not odd
        self._is_ranked[errors.odd] = False
        self._audited_to = 0
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
        """Switch references off and overwrite them in memory; unknown ones are ignored.

        Their coarse codes, and what their file holds, go by compaction.
        """
        if not self.used:
            return
        wanted = np.asarray(ids, np.int64)
        places = np.minimum(np.searchsorted(self.ids, wanted), self.used - 1)
        places = places[self.ids[places] == wanted]
        self._live[places] = self._is_ranked[places] = False
        self.rows.erase(places)
        self.fine.erase(places)
        self.odd_rows[np.isin(self.errors.odd, places)] = 0.0
        self._live_count = int(np.count_nonzero(self._live))

    def parts(self, count: int) -> list[Self]:  # noqa: ARG002  (an open segment is searched in parts)
        return [self]

    def live_ids(self) -> Ids:
        return self.ids[self._live]

    def removed_ids(self) -> list[int]:
        return self.ids[~self._live].tolist()  # type: ignore[no-any-return]  # ints, numpy's stubs do not say

    def contents(self) -> tuple[Ids, Embeddings]:
        """Return the live ids and copies of their rows, in one order."""
        return self._copied(np.flatnonzero(self._live.copy()))  # removals go on meanwhile

    def between(self, after: int, up_to: int) -> tuple[Ids, Embeddings]:
        """Return the live ids above `after` and not above `up_to` and copies of their rows, in one order."""
        start, end = np.searchsorted(self.ids, (after, up_to), side="right")
        return self._copied(start + np.flatnonzero(self._live[start:end].copy()))

    @property
    def scanned_bytes(self) -> int:
        """What a search of one probe reads at least."""
        return self.used * self.codes.code_bytes

    @property
    def ram_bytes(self) -> int:
        parts = (self.rows.ram_bytes, self.odd_rows.nbytes, self.codes.nbytes, self.fine.nbytes)
        return sum(parts) + self.ids.nbytes + 2 * self._live.nbytes

    def search(self, probes: Embeddings, threshold: float, spent: Spent | None = None) -> Found:
        """Return what scores at least `threshold`; how much of it may be missing is what `tally` counts.

        The shortlist of a probe is everything whose code is not so low that nothing at the threshold is expected there.

        Args:
            probes: (n, D) float32, rows of L2 norm 1.
            threshold: cosine, -1..1.
            spent: where to add what it took.

        Raises:
            SnapshotDamaged: a row cannot be read.
        """
        found: Found = []
        for start in range(0, len(probes), AT_ONCE):
            look = self.begin(Probes(probes[start : start + AT_ONCE]), threshold, spent or Spent())
            look.run()
            found += look.found()
        return found

    def begin(self, probes: Probes, threshold: float, spent: Spent) -> "SealedLook":
        """Prepare a search for at most AT_ONCE probes."""
        return SealedLook(self, probes, threshold, spent)

    def finished(self, probes: Probes, listed: Pairs, threshold: float, spent: Spent) -> Found:
        """Return what of the listed pairs, and of the odd templates, scores at least `threshold`."""
        start = time.perf_counter()
        close = _chosen(listed, self.fine.scores(probes, listed) >= self.errors.fine.cutoff(threshold))
        close = _chosen(close, self._is_ranked[close.places])
        between = time.perf_counter()
        matches = [self._odd_matches(probes.embeddings, threshold)]
        if len(close.places):
            matches.append(_Matches.of(close, self.rows.scores(probes.embeddings, close), threshold))
        found = self._found(matches, len(probes))
        spent.shortlisted.append(len(listed.places))
        spent.fine_s.append(between - start)
        spent.rows_s.append(time.perf_counter() - between)
        return found

    def _odd_matches(self, probes: Embeddings, threshold: float) -> _Matches:
        scores = probes @ self.odd_rows.T
        row, column = np.nonzero(scores >= threshold)
        return _Matches(row, self.errors.odd[column], scores[row, column])

    def _found(self, matches: Sequence[_Matches], probes: int) -> Found:
        """Sort matches out by probe, without those that were removed."""
        numbers, places, scores = (np.concatenate(each) for each in zip(*matches, strict=True))
        if not len(numbers):
            return [(places, scores)] * probes
        order = np.argsort(numbers, kind="stable")
        order = order[self._live[places[order]]]
        ids, scores = self.ids[places[order]], scores[order]
        bounds = np.searchsorted(numbers[order], np.arange(probes + 1)).tolist()
        return [(ids[start:end], scores[start:end]) for start, end in pairwise(bounds)]

    def audit(self, probes: Embeddings, threshold: float) -> int:
        """Search exactly in the next stretch of templates too, count in `tally` what the codes missed, and return it.

        Raises:
            SnapshotDamaged: a row cannot be read.
        """
        searched = self.search(probes, threshold)  # first: what is removed meanwhile was not missed
        start = self._audited_to if self._audited_to < self.used else 0
        self._audited_to = end = min(start + _AUDITED, self.used)
        scores = probes @ self.rows.take(np.arange(start, end)).T
        missed = 0
        for (ids, _), each in zip(searched, scores, strict=True):
            true, _ = at_least(each, threshold, self.ids[start:end], self._live[start:end])
            missed += len(np.setdiff1d(true, ids, assume_unique=True))
            self.tally.pairs += len(true)
        self.tally.missed += missed
        return missed

    def _copied(self, places: Ids) -> tuple[Ids, Embeddings]:
        return self.ids[places], self.rows.take(places)


class SealedLook:
    """`service.gallery.upkeep.Look` at a sealed segment."""

    def __init__(self, segment: SealedSegment, probes: Probes, threshold: float, spent: Spent) -> None:
        self._segment, self._probes, self._threshold, self._spent = segment, probes, threshold, spent
        self._look = segment.codes.look(probes, segment.errors.coarse.cutoff(threshold))
        self._found: Found | None = None

    def run(self) -> None:
        start = time.perf_counter()
        self._look.run()
        self._spent.codes_s.append(time.perf_counter() - start)
        if len(self._look) > _MUCH:
            self.found()

    def found(self) -> Found:
        if self._found is None:
            listed = self._look.pairs()
            del self._look  # it holds as much again
            self._found = self._segment.finished(self._probes, listed, self._threshold, self._spent)
        return self._found


def _chosen(pairs: Pairs, chosen: npt.NDArray[np.bool_]) -> Pairs:
    return Pairs(pairs.probes[chosen], pairs.places[chosen])
