"""Two model packs on an operation's own people (pure): how often each misses one, how often each takes two for one.

Terms: ISO/IEC 19795-1. Intervals are of 95 %, by a bootstrap over people, not over pairs: pairs that share a person are
not independent. Where nothing was seen, they reach as far as so many people allow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, groupby

import numpy as np
import numpy.typing as npt

from service.domain import Embeddings, PairedTemplate

_DRAWS = 1000
_SEED = 20260301  # the same report for the same people
_TAIL = 0.025
# the lowest rate that so many pairs of different people can show, with at least ten pairs above its threshold
_OWN_RATES = ((1e-4, 100_000), (1e-3, 10_000))

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share or a difference of shares with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PackFigures:
    """What one pack does with these people."""

    pack_id: str
    threshold: float  # the review threshold of the gallery as it is, by the pack's calibration
    expected_fmr: float  # at it, by the same calibration
    fnmr: Estimate | None  # share of mated pairs below it; None without mated pairs
    fmr: Estimate | None  # share of non-mated pairs at or above it; None without non-mated pairs
    own_threshold: float | None  # at which `own_fmr` of these very non-mated pairs lie; None: too few pairs
    own_fnmr: Estimate | None  # share of mated pairs below that


@dataclass(frozen=True, slots=True)
class PackComparison:
    """Both packs on the same samples, the old one first."""

    subjects: int  # with mated pairs: several encounters of one subject
    mated_pairs: int
    left_out_pairs: int  # the ruling pack doubted their continuity: nobody knows whether they are mated
    non_mated_subjects: int
    non_mated_pairs: int
    own_fmr: float | None
    packs: tuple[PackFigures, PackFigures]
    difference: Estimate | None  # own_fnmr of the new pack minus that of the old one: below 0, the new one misses fewer


@dataclass(frozen=True, slots=True)
class Judge:
    """How a pack is judged: its review threshold in this gallery."""

    pack_id: str
    threshold: float
    expected_fmr: float


def compare_packs(
    repeated: Sequence[PairedTemplate], others: Sequence[PairedTemplate], judges: tuple[Judge, Judge]
) -> PackComparison:
    """Return the figures of both packs.

    Args:
        repeated: the samples of subjects with several encounters, those of a subject together.
        others: samples of any subjects; the first of each subject is compared with that of each other one.
        judges: of the packs of `first` and `second`.
    """
    mated, left_out = _mated_scores(repeated)
    rows = list({each.subject_id: each for each in reversed(others)}.values())
    found = [_upper(np.stack(pick)) if rows else np.empty(0) for pick in _picks(rows)]
    pairs = len(rows) * (len(rows) - 1) // 2
    own_fmr = next((rate for rate, needed in _OWN_RATES if pairs >= needed), None)
    figures: list[PackFigures] = []
    shares: list[Floats] = []
    for place, judge in enumerate(judges):
        scores, of_pack = found[place], [each[place] for each in mated]
        own = None if own_fmr is None else float(np.quantile(scores, 1 - own_fmr, method="higher"))
        below = _shares_below(of_pack, judge.threshold)
        shares.append(_shares_below(of_pack, own) if own is not None else np.empty(0))
        figures.append(
            PackFigures(
                pack_id=judge.pack_id,
                threshold=judge.threshold,
                expected_fmr=judge.expected_fmr,
                fnmr=_of_people(below),
                fmr=_of_pairs(scores >= judge.threshold, len(rows)) if pairs else None,
                own_threshold=own,
                own_fnmr=_of_people(shares[-1]),
            )
        )
    return PackComparison(
        subjects=len(mated),
        mated_pairs=sum(len(each[0]) for each in mated),
        left_out_pairs=left_out,
        non_mated_subjects=len(rows),
        non_mated_pairs=pairs,
        own_fmr=own_fmr,
        packs=(figures[0], figures[1]),
        difference=_difference(shares[1] - shares[0]),
    )


def _picks(rows: Sequence[PairedTemplate]) -> tuple[list[Embeddings], list[Embeddings]]:
    return [each.first for each in rows], [each.second for each in rows]


def _mated_scores(repeated: Sequence[PairedTemplate]) -> tuple[list[tuple[Floats, Floats]], int]:
    """Return for each subject the scores of its pairs by both packs, and how many pairs were left out."""
    found: list[tuple[Floats, Floats]] = []
    left_out = 0
    for _, templates in groupby(repeated, key=lambda each: each.subject_id):
        pairs = [pair for pair in combinations(templates, 2) if pair[0].encounter_id != pair[1].encounter_id]
        kept = [(one, other) for one, other in pairs if one.verifies and other.verifies]
        left_out += len(pairs) - len(kept)
        if kept:
            first = np.array([float(one.first @ other.first) for one, other in kept])
            found.append((first, np.array([float(one.second @ other.second) for one, other in kept])))
    return found, left_out


def _upper(rows: Embeddings) -> Floats:
    """Return the scores of all pairs of rows."""
    scores: Floats = (rows @ rows.T)[np.triu_indices(len(rows), 1)].astype(np.float64)
    return scores


def _shares_below(scores: Sequence[Floats], threshold: float) -> Floats:
    """Return for each subject the share of its pairs below the threshold: everybody counts the same."""
    return np.array([float(np.mean(each < threshold)) for each in scores])


def _of_people(shares: Floats) -> Estimate | None:
    people = len(shares)
    if not people:
        return None
    value = float(shares.mean())
    low, high = _percentiles(_weights(people) @ shares / people)
    widest = 1 - _TAIL ** (1 / people)  # of none among so many
    return Estimate(value, low if value < 1 else 1 - widest, high if value > 0 else widest)


def _difference(shares: Floats) -> Estimate | None:
    if not len(shares):
        return None
    low, high = _percentiles(_weights(len(shares)) @ shares / len(shares))
    return Estimate(float(shares.mean()), low, high)


def _of_pairs(is_above: npt.NDArray[np.bool_], people: int) -> Estimate:
    """Return the share of pairs above a threshold; each draw weighs a pair by how often it drew both people."""
    first, second = (side[is_above] for side in np.triu_indices(people, 1))
    value = float(is_above.mean())
    if not len(first):
        return Estimate(0.0, 0.0, 1 - _TAIL ** (1 / max(people // 2, 1)))  # of pairs that share nobody
    weights = _weights(people)
    drawn = np.array([float(each[first] @ each[second]) for each in weights])
    possible = (people**2 - (weights**2).sum(axis=1)) / 2
    low, high = _percentiles(drawn / np.maximum(possible, 1))
    return Estimate(value, low, high)


def _weights(people: int) -> Floats:
    """Return (draws, people): how often each person was drawn."""
    generator = np.random.default_rng(_SEED)
    return generator.multinomial(people, np.full(people, 1 / people), size=_DRAWS).astype(np.float64)


def _percentiles(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, [_TAIL, 1 - _TAIL])
    return float(low), float(high)
