"""Error rates of ways to compare several samples of a person, on people with several photographs (pure).

Each draw enrols everybody, with as many references as are asked for where there are that many photographs, and searches
with several probes: of people with photographs left (mated), and of everybody with enough photographs, whose own
references are left out (non-mated). All draws are counted together; the bootstrap draws people.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.calibration import Calibration
from service.domain import Embeddings
from service.fusion import fused_probe, fused_reference
from service.population import Population, bootstrap_weights

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]

DRAWS = 20
REPLICATES = 500
FMRS = (1e-3, 1e-4, 1e-5)
_LOWEST = -2.0  # of nobody


@dataclass(frozen=True, slots=True)
class Scores:
    """All probes of one draw against all people of the gallery, each (probes, people) float64."""

    one: FloatArray  # of the first probe and the first reference
    pair: FloatArray  # of the best single pair
    mean: FloatArray  # mean of all pairs
    fused: FloatArray  # of the mean templates


RULES: dict[str, Callable[[Scores], FloatArray]] = {
    "one": lambda scores: scores.one,
    "pair": lambda scores: scores.pair,
    "mean of pairs": lambda scores: scores.mean,
    "half pair, half mean of pairs": lambda scores: (scores.pair + scores.mean) / 2,
    "mean templates": lambda scores: scores.fused,
    "pair or mean templates": lambda scores: np.maximum(scores.pair, scores.fused),
}
SERVICE = "pair or mean templates"


@dataclass(frozen=True, slots=True)
class Draw:
    """The searches of one draw, by rule. People are numbered as in the population."""

    mated: IntArray  # (m,) person of each mated search
    searched: IntArray  # (k,) person of each non-mated search
    is_fused: BoolArray  # (k,) whether the probes of a search agree enough
    is_mated: BoolArray  # (k,) which of them are mated too
    own: dict[str, FloatArray]  # (m,)
    tops: dict[str, FloatArray]  # (k,) highest score of anybody else
    reached: dict[str, FloatArray]  # (FMRS, k) how many others reach the score of each false match rate
    people: int  # in the gallery
    templates: int
    several: int  # people with several references


@dataclass(frozen=True, slots=True)
class Measured:
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


def draws(population: Population, probes: int, references: int, calibration: Calibration, *, mixed: bool) -> list[Draw]:
    """Return `DRAWS` draws; where `mixed`, the last probe of each search is a photograph of somebody else."""
    rng = np.random.default_rng([probes, references])
    levels = np.array([calibration.threshold(fmr) for fmr in FMRS])
    return [_draw(population, probes, references, levels, rng, mixed=mixed) for _ in range(DRAWS)]


def _draw(
    population: Population, probes: int, references: int, levels: FloatArray, rng: np.random.Generator, *, mixed: bool
) -> Draw:
    sizes = population.sizes.astype(np.intp)
    rows = [start + rng.permutation(size) for start, size in zip(population.starts, sizes, strict=True)]
    gallery = [population.embeddings[each[:references]] for each in rows]
    searched = np.flatnonzero(sizes >= probes)
    # the last photographs: where there are enough they are none of the references
    sent = [population.embeddings[rows[person][-probes:]] for person in searched]
    if mixed:
        strangers = np.roll(searched, 1)
        sent = [
            np.vstack([each[:-1], population.embeddings[rows[other][-1:]]])
            for each, other in zip(sent, strangers, strict=True)
        ]
    scores = _scores(np.stack(sent), gallery)
    is_fused = np.array([fused_probe(each) is not None for each in sent])
    is_mated = sizes[searched] >= probes + references
    mated = searched[is_mated]
    own, tops, reached = {}, {}, {}
    for name, rule in RULES.items():
        found = rule(scores)
        own[name] = found[is_mated, mated]
        found = found.copy()
        found[np.arange(len(searched)), searched] = _LOWEST
        tops[name] = found.max(axis=1)
        reached[name] = np.stack([(found >= level).sum(axis=1) for level in levels]).astype(np.float64)
    counts = np.minimum(sizes, references)
    return Draw(
        mated,
        searched,
        is_fused,
        is_mated,
        own,
        tops,
        reached,
        len(gallery),
        int(counts.sum()),
        int((counts > 1).sum()),
    )


def _scores(probes: Embeddings, gallery: Sequence[Embeddings]) -> Scores:
    """`probes` are (searches, n, D), `gallery` the (k, D) references of each person."""
    searches, count, dimension = probes.shape
    starts = np.cumsum([0, *(len(each) for each in gallery[:-1])])
    pairs = (probes.reshape(-1, dimension) @ np.concatenate(gallery).T).reshape(searches, count, -1)
    best = np.maximum.reduceat(pairs.max(axis=1), starts, axis=1)
    sums = np.add.reduceat(pairs.sum(axis=1), starts, axis=1)
    sizes = np.array([len(each) for each in gallery])
    of_probes = [fused_probe(each) for each in probes]
    sent = np.stack([np.zeros(dimension, np.float32) if each is None else each for each in of_probes])
    is_fused = np.outer([each is not None for each in of_probes], count * sizes > 1)
    fused = np.where(is_fused, sent @ np.stack([fused_reference(each) for each in gallery]).T, best)
    return Scores(
        one=pairs[:, 0, starts].astype(np.float64),
        pair=best.astype(np.float64),
        mean=(sums / (count * sizes)).astype(np.float64),
        fused=fused.astype(np.float64),
    )


def weights_of(population: Population) -> FloatArray:
    return bootstrap_weights(population.people, REPLICATES, seed=1)


def fnir_at_fpir(found: Sequence[Draw], rule: str, fpir: float, weights: FloatArray) -> FloatArray:
    """Return (1 + b,) the FNIR at the threshold that `fpir` of the non-mated searches reach, for each weighting."""
    tops = np.concatenate([each.tops[rule] for each in found])
    people = np.concatenate([each.searched for each in found])
    order = np.argsort(-tops)
    own = np.concatenate([each.own[rule] for each in found])
    mated = np.concatenate([each.mated for each in found])
    rates = []
    for weight in weights:
        counted = np.cumsum(weight[people[order]])
        first_too_many = int((counted <= fpir * counted[-1] + 1e-9).sum())
        threshold = tops[order][min(first_too_many, len(order) - 1)]
        rates.append(float(weight[mated] @ (own <= threshold) / weight[mated].sum()))
    return np.array(rates)


def at_calibrated(
    found: Sequence[Draw], rule: str, thresholds: tuple[float, float], weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return (1 + b,) each the FPIR and the FNIR.

    Args:
        thresholds: of searches whose probes agree too little to be fused, and of the others.
    """
    limits = [np.where(each.is_fused, thresholds[1], thresholds[0]) for each in found]
    flagged = np.concatenate([each.tops[rule] >= limit for each, limit in zip(found, limits, strict=True)])
    missed = np.concatenate([each.own[rule] < limit[each.is_mated] for each, limit in zip(found, limits, strict=True)])
    searched = weights[:, np.concatenate([each.searched for each in found])]
    mated = weights[:, np.concatenate([each.mated for each in found])]
    return searched @ flagged / searched.sum(axis=1), mated @ missed / mated.sum(axis=1)


def false_matches(found: Sequence[Draw], rule: str, weights: FloatArray) -> Iterator[tuple[float, FloatArray]]:
    """Yield for each of `FMRS` how often two different people reach its score, and (1 + b,) how many times a pair's."""
    for place, fmr in enumerate(FMRS):
        count, single = np.zeros(len(weights)), np.zeros(len(weights))
        for draw in found:
            count += weights[:, draw.searched] @ draw.reached[rule][place]
            single += weights[:, draw.searched] @ draw.reached["one"][place]
        yield fmr, np.divide(count, single, out=np.full_like(count, np.nan), where=single > 0)


def measured(values: FloatArray) -> Measured:
    low, high = np.nanquantile(values[1:], (0.025, 0.975))
    return Measured(float(values[0]), float(low), float(high))
