"""How a sealed segment is made: its codes are trained on its own templates, along a basis that segments share, and
their error is measured.
"""

import numpy as np
import numpy.typing as npt

from service.domain import Embeddings
from service.gallery.basis import Basis, Probes
from service.gallery.coarse_codes import CoarseCodes
from service.gallery.code_error import COARSE_SURE, FINE_SURE, CodeError, CodeErrors
from service.gallery.fine_codes import FineCodes
from service.gallery.rows import HeldRows, Ids, Pairs, Scores
from service.gallery.sealed_segment import SealedSegment, Tally

TRAINED_ON = 32_768  # templates of the segment itself; 16 centroids a group need far fewer
ODD_DEVIATIONS = 4.0  # below the mean: about one template in two thousand is odd
_EXACT_BELOW = 512  # templates of a segment: too few to measure codes by; all of them are odd
_MEASURED = 8192  # pairs from which the noise of the codes is estimated
_AUDITED, _AUDITED_EACH = 32, 200  # templates whose nearest others are looked for by the codes, and how many others
_DECODED_AT_ONCE = 4096


def seal(ids: Ids, rows: Embeddings, basis: Basis | None = None, seed: int = 0) -> SealedSegment:
    """Make a sealed segment, and audit its codes once.

    Args:
        ids: (n,) ascending.
        rows: (n, D) float32 of L2 norm 1 in their order, kept, not copied. D is even, from 256 on a multiple of 16.
        basis: of the gallery's other segments; None: there is none yet.
        seed: of the choice of the templates to train on and to audit with.
    """
    rng = np.random.default_rng(seed)
    sample = rows[rng.permutation(len(rows))[:TRAINED_ON]]
    basis = basis or Basis.of(sample)
    codes = CoarseCodes.of(basis, rows, sample)
    fine = FineCodes.of(basis, rows)
    audited = rng.permutation(len(rows))[:_AUDITED]
    true = rows[audited] @ rows.T
    shown = codes.all_scores(rows[audited])
    errors = _measured_errors(codes, fine, rows, rng)
    segment = SealedSegment(ids, HeldRows(rows), codes, fine, errors, odd_rows=rows[errors.odd])
    segment.tally = _first_audit(segment, audited, true, shown)
    return segment


def _first_audit(segment: SealedSegment, chosen: Ids, scores: Scores, shown: Scores) -> Tally:
    """Count which of the nearest others of each template the cutoffs of their scores would miss.

    The nearest are more, and so less similar, than a search would ask for: closer to their threshold, and more easily
    missed than what a search asks for.
    """
    tally, errors = Tally(), segment.errors
    is_odd = np.zeros(scores.shape[1], np.bool_)
    is_odd[errors.odd] = True
    each = min(_AUDITED_EACH, scores.shape[1] - 1)
    for place, true, coarse in zip(chosen, scores, shown, strict=True):
        true[place] = -np.inf  # itself
        threshold = float(np.partition(true, -each)[-each]) if each else np.inf
        near = np.flatnonzero(true >= threshold)
        probe = Probes(segment.rows.take(place[np.newaxis]))
        fine = segment.fine.scores(probe, Pairs(np.zeros(len(near), np.int64), near))  # as a search compares them
        is_cut = (coarse[near] < errors.coarse.cutoff(threshold)) | (fine < errors.fine.cutoff(threshold))
        tally.pairs += len(near)
        tally.missed += int(np.count_nonzero(~is_odd[near] & is_cut))
    return tally


def _measured_errors(codes: CoarseCodes, fine: FineCodes, rows: Embeddings, rng: np.random.Generator) -> CodeErrors:
    """Compare both codes with all templates, and with vectors at right angles to some of them."""
    places, others = (rng.permutation(len(rows))[:_MEASURED] for _ in range(2))
    places.sort()
    template = rows[places]
    away = rows[others] - np.sum(rows[others] * template, axis=1, keepdims=True) * template
    away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), np.float32(1e-6))
    coarse_error, coarsely_odd = _measured_error(codes, rows, places, away, COARSE_SURE)
    fine_error, finely_odd = _measured_error(fine, rows, places, away, FINE_SURE)
    is_odd = coarsely_odd | finely_odd | (len(rows) < _EXACT_BELOW)
    return CodeErrors(coarse_error, fine_error, np.flatnonzero(is_odd))


def _measured_error(
    codes: CoarseCodes | FineCodes, rows: Embeddings, places: Ids, away: Embeddings, sure: float
) -> tuple[CodeError, npt.NDArray[np.bool_]]:
    """Measure one kind of codes.

    Args:
        codes: of the templates.
        rows: (n, D) the templates.
        places: (k,) ascending.
        away: (k, D) of L2 norm 1, each at right angles to the template at its place.
        sure: of the error.

    Returns:
        Their error, and (n,) which templates they show very little of.
    """
    own, noise = [], []
    for start in range(0, len(rows), _DECODED_AT_ONCE):
        block = rows[start : start + _DECODED_AT_ONCE]
        shown = codes.decoded(start, start + len(block))
        own.append(np.sum(shown * block, axis=1))
        first, end = np.searchsorted(places, (start, start + len(block)))
        noise.append(np.sum(away[first:end] * shown[places[first:end] - start], axis=1))
    shares = np.concatenate(own)
    slope, deviation = float(shares.mean()), float(shares.std())
    error = CodeError(slope, deviation, float(np.sqrt(np.mean(np.concatenate(noise) ** 2))), sure)
    return error, shares < slope - ODD_DEVIATIONS * deviation
