"""How a sealed segment is made: its codes are trained on its own templates, and their error is measured."""

from typing import Any

import faiss
import numpy as np

from service.domain import Embeddings
from service.gallery.code_error import CodeError, lengths
from service.gallery.rows import HeldRows, Ids, Scores
from service.gallery.sealed_segment import SealedSegment, Tally

TRAINED_ON = 32_768  # templates of the segment itself; 16 centroids a group need far fewer
ODD_DEVIATIONS = 3.0  # below the mean: about one template in a thousand is odd
_ROTATED_FROM = 256  # dimensions: below, all are coded, in pairs
_CENTROIDS = 16  # of a 4-bit code
_MEASURED = 2048  # pairs from which the noise of the codes is estimated
_AUDITED, _AUDITED_EACH = 32, 200  # templates whose nearest others are looked for by the codes, and how many others
_AUDITED_AT_ONCE = 8
_USUAL_SHARE = 0.9  # of the probes that a first shortlist should be long enough for
_DECODED_AT_ONCE = 4096


def seal(ids: Ids, rows: Embeddings, seed: int = 0) -> SealedSegment:
    """Make a sealed segment, and audit its codes once.

    Args:
        ids: (n,) ascending.
        rows: (n, D) float32 of L2 norm 1 in their order, D even, from 256 on a multiple of 16; kept, not copied.
        seed: of the choice of the templates to train on and to audit with.
    """
    rng = np.random.default_rng(seed)
    faiss.omp_set_num_threads(1)
    sample = rows[rng.permutation(len(rows))[:TRAINED_ON]]
    if len(sample) < _CENTROIDS:  # all but these were removed: FAISS asks for one template a centroid
        sample = np.resize(sample, (_CENTROIDS, sample.shape[1]))
    codes = _new_codes(sample, rng)
    codes.train(sample)
    codes.add(rows)
    audited = rng.permutation(len(rows))[:_AUDITED]
    scores, shown = _compared(codes, rows, audited)
    error = _measured_error(codes, rows, rng, _tails(shown))
    segment = SealedSegment(ids, HeldRows(rows), codes, error)
    segment.tally = _first_audit(error, audited, scores, shown)
    return segment


def _new_codes(sample: Embeddings, rng: np.random.Generator) -> faiss.Index:
    """Return codes still to be trained: 4 bits for two dimensions each, or for four of the main three quarters."""
    dimension = sample.shape[1]
    if dimension < _ROTATED_FROM:
        return faiss.index_factory(dimension, f"PQ{dimension // 2}x4fs", faiss.METRIC_INNER_PRODUCT)
    kept = dimension * 3 // 4
    codes = faiss.index_factory(dimension, f"RR{kept},PQ{kept // 4}x4fs", faiss.METRIC_INNER_PRODUCT)
    # the main axes about the origin, not about the mean like FAISS's own PCA, which would change the inner products;
    # mixed among themselves they carry equal shares, so that no code has to tell more than another
    _, axes = np.linalg.eigh((sample.T @ sample).astype(np.float64))
    mixed, _ = np.linalg.qr(rng.standard_normal((kept, kept)))
    transformed: Any = codes  # FAISS's stubs do not say what the factory makes
    rotation: Any = faiss.downcast_VectorTransform(transformed.chain.at(0))
    faiss.copy_array_to_vector((mixed @ axes[:, -kept:].T).astype(np.float32).ravel(), rotation.A)
    rotation.set_is_orthonormal()
    rotation.is_trained = True
    return codes


def _compared(codes: faiss.Index, rows: Embeddings, chosen: Ids) -> tuple[Scores, Scores]:
    """Compare some of the templates with all: return true scores and those of the codes, both (k, n)."""
    shown = np.empty((len(chosen), len(rows)), np.float32)
    for start in range(0, len(chosen), _AUDITED_AT_ONCE):
        part = chosen[start : start + _AUDITED_AT_ONCE]
        approximate, places = codes.search(rows[part], len(rows))
        for number in range(len(part)):  # one by one: numpy holds the interpreter's lock meanwhile
            shown[start + number, places[number]] = approximate[number]
    return rows[chosen] @ rows.T, shown


def _tails(shown: Scores) -> tuple[float, ...]:
    """Return where shortlists of each length end, for all but a few probes."""
    count = shown.shape[1]
    wanted = lengths(count)
    places = [count - length for length in wanted]
    if not places:
        return ()
    tails = np.partition(shown, places, axis=1)[:, places]
    return tuple(np.quantile(tails, _USUAL_SHARE, axis=0).tolist())


def _first_audit(error: CodeError, chosen: Ids, scores: Scores, shown: Scores) -> Tally:
    """Count which of the nearest others of each template the cutoff of their scores would miss.

    The nearest are more, and so less similar, than a search would ask for: closer to their threshold, and more easily
    missed than what a search asks for.
    """
    tally = Tally()
    is_odd = np.zeros(scores.shape[1], np.bool_)
    is_odd[error.odd] = True
    each = min(_AUDITED_EACH, scores.shape[1] - 1)
    for place, true, code in zip(chosen, scores, shown, strict=True):
        true[place] = -np.inf  # itself
        threshold = float(np.partition(true, -each)[-each]) if each else np.inf
        pairs = true >= threshold
        tally.pairs += int(np.count_nonzero(pairs))
        tally.missed += int(np.count_nonzero(pairs & ~is_odd & (code < error.cutoff(threshold))))
    return tally


def _measured_error(
    codes: faiss.Index, rows: Embeddings, rng: np.random.Generator, tails: tuple[float, ...]
) -> CodeError:
    """Compare the codes with all templates, and with vectors at right angles to some of them."""
    own = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _DECODED_AT_ONCE):
        block = rows[start : start + _DECODED_AT_ONCE]
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
        tails=tails,
    )
