"""Measures what the scores of a model mean: the curve behind `models/<pack>/calibration.json`."""

import json
from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from service.calibration import Calibration, Tail
from service.evaluation.population import (
    Population,
    bootstrap_weights,
    false_match_rates,
    score_at,
    survival,
)

FloatArray = npt.NDArray[np.float64]

REPLICATES = 200  # of the bootstrap; the 97.5 % quantile then rests on ten of them
TAIL_FMR = (1e-3, 1e-5)  # where log10 FMR is straight; beyond, label errors of the data bend it (design.md)
TAIL_POINTS = 24
MIN_PEOPLE = 500  # they make 124,750 pairs, so that an FMR of 1e-5 is about one of them
BULK_FMR = (0.999, 0.99, 0.9, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.003, 0.002)
MATED_QUANTILES = 201


def calibrate(
    pack_id: str, description: str, population: Population, mated_scores: FloatArray, seed: int = 0
) -> Calibration:
    """Return the calibration of one pack.

    Every pair of people counts the same, whatever their photographs: a pair of photographs weighs
    1 / (photographs of the one * photographs of the other). Nobody is in a gallery 530 times, and unweighted a few
    much photographed people would decide the rates. The intervals are a percentile bootstrap over people; it counts
    the noise of single pairs up to three times, so they are rather too wide than too narrow in the tail.

    Args:
        description: of the population, in plain words.
        mated_scores: scores of mated pairs, any order; their quantiles are kept.

    Raises:
        ValueError: too few people, or scores that tell nobody apart.
    """
    if population.people < MIN_PEOPLE:
        raise ValueError(f"a calibration needs photographs of {MIN_PEOPLE} people or more, not {population.people}")
    share_above = survival(population)
    tail_ends = [score_at(share_above, fmr) for fmr in TAIL_FMR]
    tail_scores = np.linspace(tail_ends[0], tail_ends[1], TAIL_POINTS)
    scores = np.unique(np.round([*(score_at(share_above, fmr) for fmr in BULK_FMR), *tail_scores], 6))
    weights = bootstrap_weights(population.people, REPLICATES, seed)
    rates = false_match_rates(population, scores, weights)
    # a replicate without any pair this high is given half a pair of people, so that its logarithm exists
    log10 = np.log10(np.maximum(rates, 1 / population.people**2))
    in_tail = scores >= scores[-TAIL_POINTS]
    quantiles = np.quantile(mated_scores, np.linspace(0, 1, MATED_QUANTILES))
    return Calibration(
        pack_id=pack_id,
        population=description,
        comparisons=population.comparisons,
        people=population.people,
        scores=_rounded(scores),
        log10_fmr=_rounded(log10[0]),
        log10_fmr_upper=_rounded(np.maximum(np.quantile(log10[1:], 0.975, axis=0), log10[0])),
        tail=_fit_tail(scores[in_tail], log10[:, in_tail]),
        mated_scores=_rounded(np.sort(quantiles)),
    )


def calibration_json(calibration: Calibration) -> str:
    """Return the text of `calibration.json`, one line a key, as `Calibration.from_json` reads it."""
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in asdict(calibration).items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _fit_tail(scores: FloatArray, log10: FloatArray) -> Tail:
    """Fit a line to each row of `log10` (1 + b, k); the first row is the estimate, the others give its spread."""
    centre = round(float(scores.mean()), 6)
    slopes, intercepts = np.polyfit(scores - centre, log10.T, 1)
    spread = np.cov(intercepts[1:], slopes[1:])
    return Tail(
        centre=centre,
        intercept=round(float(intercepts[0]), 6),
        slope=round(float(slopes[0]), 6),
        intercept_variance=float(f"{spread[0, 0]:.6g}"),
        slope_variance=float(f"{spread[1, 1]:.6g}"),
        covariance=float(f"{spread[0, 1]:.6g}"),
    )


def _rounded(values: FloatArray) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)
