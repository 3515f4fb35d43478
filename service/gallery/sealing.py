"""How a sealed segment is made: its codes are trained on its own templates, and their error is measured."""

import faiss
import numpy as np

from service.domain import Embeddings
from service.gallery.segments import COPIED_AT_ONCE, CodeError, Ids, SealedSegment

TRAINED_ON = 32_768  # templates of the segment itself; 16 centroids a group need far fewer
ODD_DEVIATIONS = 3.0  # below the mean: about one template in a thousand is odd
_FINE_BELOW = 256  # dimensions: groups of two become 4 bits, above groups of four
_MEASURED = 2048  # pairs from which the noise of the codes is estimated
_AUDITED, _AUDITED_EACH = 32, 200  # probes and pairs of a new segment's first audit


def seal(ids: Ids, rows: Embeddings, seed: int = 0) -> SealedSegment:
    """Make a sealed segment, and audit it once.

    Args:
        ids: (n,) ascending.
        rows: (n, D) float32 of L2 norm 1 in their order, D even, a multiple of 4 from 256 on; kept, not copied.
        seed: of the choice of the templates to train on and to audit with.
    """
    dimension = rows.shape[1]
    rng = np.random.default_rng(seed)
    faiss.omp_set_num_threads(1)
    group = 2 if dimension < _FINE_BELOW else 4
    codes = faiss.IndexPQFastScan(dimension, dimension // group, 4, faiss.METRIC_INNER_PRODUCT)
    codes.train(rows[rng.permutation(len(rows))[:TRAINED_ON]])
    codes.add(rows)
    segment = SealedSegment(ids, rows, codes, _measured_error(codes, rows, rng))
    chosen = rows[rng.permutation(len(rows))[:_AUDITED]]
    each = min(_AUDITED_EACH, len(rows))
    for probe in chosen:
        scores = rows @ probe
        segment.audit(probe[np.newaxis], float(np.partition(scores, -each)[-each]))
    return segment


def _measured_error(codes: "faiss.IndexPQFastScan", rows: Embeddings, rng: np.random.Generator) -> CodeError:
    """Compare the codes with all templates, and with vectors at right angles to some of them."""
    own = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), COPIED_AT_ONCE):
        block = rows[start : start + COPIED_AT_ONCE]
        own[start : start + len(block)] = np.sum(codes.reconstruct_n(start, len(block)) * block, axis=1)
    places, others = (rng.permutation(len(rows))[:_MEASURED] for _ in range(2))
    template = rows[places]
    away = rows[others] - np.sum(rows[others] * template, axis=1, keepdims=True) * template
    away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), np.float32(1e-6))
    decoded = np.stack([codes.reconstruct(int(place)) for place in places])
    slope, deviation = float(own.mean()), float(own.std())
    return CodeError(
        slope=slope,
        own_deviation=deviation,
        other_deviation=float(np.sqrt(np.mean(np.sum(away * decoded, axis=1) ** 2))),
        odd=np.flatnonzero(own < slope - ODD_DEVIATIONS * deviation),
    )
