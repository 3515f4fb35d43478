"""The part of a gallery index that takes new templates: compared one by one."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from service.domain import Embeddings
from service.gallery.basis import Probes
from service.gallery.byte_codes import ByteCodes
from service.gallery.meter import Spent
from service.gallery.rows import HeldRows, Ids, Pairs, Scores, inner_products

_FEW = 4  # probes: more of them are compared in less time by a matrix product
_MOST_BY_CODES = 0.1  # share of the templates: where the codes leave more, all are compared at once
Found = list[tuple[Ids, Scores]]
"""For each probe the references at or above the threshold, in no order."""


@dataclass(frozen=True, slots=True)
class OpenPart:
    """Some templates of an open segment, as they are when a search begins."""

    rows: Embeddings
    coded: ByteCodes
    ids: Ids
    live: npt.NDArray[np.bool_]

    @property
    def scanned_bytes(self) -> int:
        return self.coded.nbytes

    def part(self, start: int, end: int) -> "OpenPart":
        """Return the templates `start` to `end`; nothing is copied."""
        return OpenPart(self.rows[start:end], self.coded.part(start, end), self.ids[start:end], self.live[start:end])

    def begin(self, probes: Probes, threshold: float, spent: Spent) -> "OpenLook":
        """Prepare to compare `probes` with every template. Raises ValueError: they are of another dimension."""
        if probes.embeddings.shape[1] != self.rows.shape[1]:
            raise ValueError("the probes are of another dimension")
        return OpenLook(self, probes.embeddings, threshold, spent)


class OpenLook:
    """`service.gallery.upkeep.Look` at an open segment."""

    def __init__(self, part: OpenPart, probes: Embeddings, threshold: float, spent: Spent) -> None:
        self._part, self._probes, self._threshold, self._spent = part, probes, threshold, spent
        self._found: Found = []

    def run(self) -> None:
        start, part = time.perf_counter(), self._part
        if len(self._probes) <= _FEW:
            self._found = [self._by_codes(self._probes[number : number + 1]) for number in range(len(self._probes))]
        else:
            products = self._probes @ part.rows.T
            self._found = [at_least(scores, self._threshold, part.ids, part.live) for scores in products]
        self._spent.open_s.append(time.perf_counter() - start)

    def found(self) -> Found:
        return self._found

    def _by_codes(self, probe: Embeddings) -> tuple[Ids, Scores]:
        """Compare the probe with the templates that, by their codes, may reach the threshold."""
        part = self._part
        places = part.coded.within_reach(probe, self._threshold)
        if not len(places):
            return part.ids[:0], np.empty(0, np.float32)
        if len(places) > _MOST_BY_CODES * len(part.ids):
            return at_least((probe @ part.rows.T)[0], self._threshold, part.ids, part.live)
        scores = inner_products(probe, part.rows, Pairs(np.zeros_like(places), places))
        return at_least(scores, self._threshold, part.ids[places], part.live[places])


class OpenSegment:
    """Templates compared one by one. One thread changes it at a time (the index's lock); any number search it."""

    def __init__(self, dimension: int, room: int = 1024) -> None:
        self._all = _empty(dimension, room)
        # what a search takes in one step, while rows are appended or the arrays replaced by larger ones
        self._view = self._all.part(0, 0)
        self._row_of: dict[int, int] = {}
        self.first_change: int | None = None  # that added to it

    def __len__(self) -> int:
        return len(self._row_of)

    @property
    def used(self) -> int:
        """Rows in use, those of removed templates too."""
        return len(self._view.ids)

    def append(self, ids: Sequence[int], embeddings: Embeddings) -> None:
        start, end = self.used, self.used + len(ids)
        if end > len(self._all.ids):
            larger = _empty(embeddings.shape[1], max(end, 2 * len(self._all.ids)))
            _copy(self._view, larger)
            self._all = larger
        live = np.ones(len(ids), np.bool_)
        new = OpenPart(embeddings, ByteCodes.of(embeddings), np.array(ids, np.int64), live)
        _copy(new, self._all.part(start, end))
        self._row_of.update(zip(ids, range(start, end), strict=True))
        appended = self._all.part(0, end)
        self._view = replace(appended, coded=appended.coded.also_for(self._view.coded, new.coded))

    def remove(self, ids: Sequence[int]) -> None:
        """Switch references off and overwrite their rows; unknown ones are ignored."""
        rows = [self._row_of.pop(each) for each in ids if each in self._row_of]
        self._all.live[rows] = False
        self._all.rows[rows] = 0.0  # erased means erased, in memory too
        self._all.coded.codes[rows] = 0

    def parts(self, count: int) -> list[OpenPart]:
        """Return it in at most `count` parts of about one size, to be searched side by side; none if it is empty."""
        view = self._view
        count = min(count, len(view.ids))
        bounds = [len(view.ids) * number // count for number in range(count + 1)] if count else []
        return [view.part(start, end) for start, end in pairwise(bounds)]

    def live_ids(self) -> Ids:
        view = self._view
        return view.ids[_as_it_is(view.live)]

    def contents(self) -> tuple[Ids, Embeddings]:
        """Return the live ids and copies of their rows, in one order."""
        view = self._view
        return _copied(view, _as_it_is(view.live))

    def between(self, after: int, up_to: int) -> tuple[Ids, Embeddings]:
        """Return the live ids above `after` and not above `up_to` and copies of their rows, in one order."""
        view = self._view
        return _copied(view, view.live & (view.ids > after) & (view.ids <= up_to))

    @property
    def ram_bytes(self) -> int:
        room = self._all
        return room.rows.nbytes + room.coded.nbytes + room.ids.nbytes + room.live.nbytes


def _empty(dimension: int, room: int) -> OpenPart:
    coded = ByteCodes(np.empty((room, dimension), np.int8), np.empty(room, np.float32), error=0.0, length=0.0)
    rows = np.empty((room, dimension), np.float32)
    return OpenPart(rows, coded, np.empty(room, np.int64), np.zeros(room, np.bool_))


def _copy(source: OpenPart, target: OpenPart) -> None:
    """Copy all templates of one part to the first places of another."""
    count = len(source.ids)
    target.rows[:count], target.coded.codes[:count] = source.rows, source.coded.codes
    target.coded.scales[:count], target.ids[:count], target.live[:count] = source.coded.scales, source.ids, source.live


def _copied(part: OpenPart, wanted: npt.NDArray[np.bool_]) -> tuple[Ids, Embeddings]:
    places = np.flatnonzero(wanted)
    return part.ids[places], HeldRows(part.rows).take(places)


def _as_it_is(live: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return a copy: NumPy counts first and gathers then, and reads beyond its end what is removed in between."""
    return live.copy()


def at_least(scores: Scores, threshold: float, ids: Ids, live: npt.NDArray[np.bool_]) -> tuple[Ids, Scores]:
    """Return what of a block reaches the threshold and was not removed."""
    places = np.flatnonzero((scores >= threshold) & live)
    return ids[places], scores[places]
