"""Makes a calibration: what the scores of a model mean, from photographs of known people or from a gallery (pure)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.calibration import Calibration
from service.population import Population, bootstrap_weights, false_match_rates, score_at, survival
from service.score_tail import Exceedances, tail_rates

FloatArray = npt.NDArray[np.float64]

FEWEST_PEOPLE = 100  # they make 4,950 pairs: a hundred of them above the start of the tail
REPLICATES = 100  # of the bootstrap over people
MATED_QUANTILES = 201
FEWEST_MATED = 50  # people with several photographs; of fewer, the misses would say little

_BULK_FMR = (0.999, 0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.04, 0.03, 0.025)
_TAIL_STEP = 0.01  # of the score
_LEAST_LOG10 = -18.0  # nobody will ever compare so many
# the tail starts where enough pairs of people lie above it, and as high as they allow
_TAIL_PAIRS, _TAIL_FMR = 400, (1e-3, 2e-2)
_MEASURED_PAIRS = 20
_MATED_A_PERSON = 9


@dataclass(frozen=True, slots=True)
class MatedScores:
    """Scores of mated pairs, and whose they are."""

    scores: FloatArray  # (m,) any order
    people: int
    population: str

    @classmethod
    def of(cls, calibration: Calibration) -> "MatedScores":
        """Return those that another calibration rests on."""
        scores = np.array(calibration.mated_scores)
        return cls(scores, calibration.mated_people, calibration.mated_population)


def mated_scores(population: Population, description: str) -> MatedScores | None:
    """Return the scores of the people with several photographs, each person counted alike; None where they are few."""
    found = []
    for start, size in zip(population.starts, population.sizes.astype(np.intp), strict=True):
        rows = population.embeddings[start : start + size]
        pairs = (rows @ rows.T)[np.triu_indices(size, 1)]
        if size > 1:
            found.append(np.quantile(pairs, np.linspace(0, 1, _MATED_A_PERSON)))
    return MatedScores(np.concatenate(found), len(found), description) if len(found) >= FEWEST_MATED else None


@dataclass(frozen=True, slots=True)
class Source:
    """What is calibrated, and from whom."""

    pack_id: str
    model_id: str
    method: str  # as `Calibration.method`
    population: str  # in plain words


def calibrate(
    source: Source,
    population: Population,
    mated: MatedScores,
    *,
    seed: int = 0,
    step: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """Return the calibration of one model on one population.

    Every pair of people counts the same, whatever their photographs: a pair of photographs weighs
    1 / (photographs of the one * photographs of the other). Nobody is in a gallery 530 times, and unweighted a few
    much photographed people would decide the rates. Where scores are common the rate is counted, beyond it is fitted
    (`service.score_tail`). What is not known is a bootstrap over people; it counts the noise of single pairs up to
    three times, so that the bounds are rather too wide than too narrow. The rate itself is the mean over the bootstrap:
    a threshold that is right on average over all that the data leave open, not only for the likeliest of it.

    Args:
        source: named in the calibration.
        population: in a gallery without labels every template is a person of its own.
        mated: of these people, or where few are known those of the pack's own calibration.
        seed: of the bootstrap.
        step: told in a few words what is done next.

    Raises:
        ValueError: too few people, or scores that tell nobody apart.
    """
    if population.people < FEWEST_PEOPLE:
        raise ValueError(f"a calibration needs {FEWEST_PEOPLE} people or more, not {population.people}")
    step("comparing all with all")
    share_above = survival(population)
    pairs = population.people * (population.people - 1) / 2
    start = score_at(share_above, float(np.clip(_TAIL_PAIRS / pairs, *_TAIL_FMR)))
    if start >= 1 - 2 * _TAIL_STEP:
        raise ValueError("these scores tell nobody apart")
    weights = bootstrap_weights(population.people, REPLICATES, seed)
    bulk = np.unique([score for fmr in _BULK_FMR if (score := score_at(share_above, fmr)) < start])
    step("counting how often")
    counted = false_match_rates(population, bulk, weights)
    step("fitting the tail")
    tail = np.append(np.arange(start, 1 - _TAIL_STEP / 2, _TAIL_STEP), 1.0)
    fitted, found_mates = tail_rates(Exceedances.of(population, start), mated.scores, tail, weights)
    scores, rates = np.append(bulk, tail), np.hstack([counted, fitted])[1:]
    middle, low, high = _curve(rates.mean(axis=0)), *(_curve(np.quantile(rates, at, axis=0)) for at in (0.025, 0.975))
    quantiles = np.quantile(mated.scores, np.linspace(0, 1, MATED_QUANTILES))
    return Calibration(
        pack_id=source.pack_id,
        model_id=source.model_id,
        method=source.method,
        population=source.population,
        people=population.people,
        comparisons=population.comparisons,
        found_mates=round(found_mates, 1),
        scores=_rounded(scores),
        log10_fmr=_rounded(middle),
        log10_fmr_lower=_rounded(np.minimum(low, middle)),
        # the mean of a skewed spread can lie above all but a few of its members
        log10_fmr_upper=_rounded(np.maximum(high, middle)),
        measured_to=round(_score_of(scores, middle, float(np.log10(_MEASURED_PAIRS / pairs))), 6),
        mated_scores=_rounded(quantiles),
        mated_people=mated.people,
        mated_population=mated.population,
    )


def _curve(rates: FloatArray) -> FloatArray:
    """Return log10 of rates along ascending scores; where counting meets fitting, the curve must not rise."""
    floor = 10**_LEAST_LOG10
    return np.asarray(np.minimum.accumulate(np.log10(np.clip(rates, floor, 1.0))), np.float64)


def _score_of(scores: FloatArray, curve: FloatArray, log10_fmr: float) -> float:
    return float(np.interp(-log10_fmr, -curve, scores))


def _rounded(values: FloatArray) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)
