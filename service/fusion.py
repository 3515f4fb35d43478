"""The fused score of several samples: the cosine of the mean templates of two people (pure).

It stands beside the scores of single pairs and replaces none. Measured by `python -m benchmarks.fusion`, chosen in
docs/decisions/0017.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from service.domain import Embedding, Embeddings, Gallery, Reference

LEAST_LENGTH = 0.75
"""Of a mean of templates: samples whose mean is shorter agree too little to be surely of one face.

Two samples of one person have a mean of 0.92 (median; 1 in 1,000 below 0.75), two of different people one of 0.71.
Probes below it are not fused; the mean of such references is divided by it, not by its length. That makes the search
complete: a fused score of t needs a reference at 0.75 t or above to the fused probe.
"""


@dataclass(frozen=True, slots=True)
class FusedScore:
    """How alike all samples of the probe and all of one subject are together, and the best single pair of them."""

    score: float
    best: Reference
    pair_score: float


def fused_probe(probes: Embeddings) -> Embedding | None:
    """Return the mean direction of (n, D) rows of length 1, (D,) of length 1; None where they agree too little."""
    mean = probes.mean(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(mean))
    return None if length < LEAST_LENGTH else (mean / length).astype(np.float32)


def fused_reference(references: Embeddings) -> Embedding:
    """Return the mean direction of (n, D) rows of length 1, (D,) of length 1, or less where they agree too little."""
    mean = references.mean(axis=0, dtype=np.float64)
    fused: Embedding = (mean / max(float(np.linalg.norm(mean)), LEAST_LENGTH)).astype(np.float32)
    return fused


def search_probes(probes: Embeddings) -> Embeddings:
    """Return what the index is searched with: the probes in their order, and where several agree their fused one.

    Args:
        probes: (n, D) float32, rows of L2 norm 1.
    """
    fused = fused_probe(probes) if len(probes) > 1 else None
    return probes if fused is None else np.vstack([probes, fused])


def search_threshold(threshold: float, several: int) -> float:
    """Return the score from which a search finds whatever has a pair, or a fused score, at `threshold` or above.

    With p the fused probe and g_j the references of a subject, their fused score is
    mean_j(p g_j) / max(|mean_j(g_j)|, LEAST_LENGTH), so that the best p g_j is at least LEAST_LENGTH times it. With one
    reference the two are the same.

    Args:
        threshold: cosine, -1..1.
        several: subjects with several references.
    """
    return LEAST_LENGTH * threshold if several and threshold > 0 else threshold


def comparisons(templates: int, several: int, searched: int = 1) -> int:
    """Return how many comparisons a search makes, each of which can be a false match.

    Each row that is searched with each template: the fused probe meets each subject once, and there are no more
    subjects than templates. A single probe meets those that have several once more.

    Args:
        templates: of the gallery.
        several: subjects with several of them.
        searched: rows of `search_probes`.
    """
    return templates * searched + (min(several, templates // 2) if searched == 1 else 0)


def comparisons_of(gallery: Gallery, templates: int | None = None, searched: int = 1) -> int:
    """Return how many comparisons an answer of a gallery rests on, by both of its packs where it has two.

    The templates of a subject whose sample has none of the ruling pack are fused by themselves: scores of two packs
    have no common mean. So a subject may be fused twice.

    Args:
        gallery: whose answer it is.
        templates: that were compared, by either pack; None: all of the gallery.
        searched: rows of `search_probes`.
    """
    alone = gallery.standby_only_count
    several = gallery.several_count + min(gallery.several_count, alone // 2)
    return comparisons(gallery.template_count + alone if templates is None else templates, several, searched)


def fused_scores(probes: Embeddings, references: Iterable[Reference]) -> Mapping[str, FusedScore]:
    """Return the fused score by subject, of those where either side has several templates.

    A reference that failed the continuity check may show somebody else: it is compared, and left out of the mean.

    Args:
        probes: (n, D) float32, rows of L2 norm 1.
        references: all that are searched of each subject.
    """
    by_subject: dict[str, list[Reference]] = {}
    for reference in references:
        by_subject.setdefault(reference.subject_id, []).append(reference)
    probe = fused_probe(probes)
    if probe is None:
        return {}
    found = {}
    for subject_id, own in by_subject.items():
        proven = [each.embedding for each in own if each.verifies]
        if not proven or len(probes) * len(proven) == 1:
            continue
        pairs = (np.stack([each.embedding for each in own]) @ probes.T).max(axis=1)
        best = int(pairs.argmax())
        score = float(probe @ fused_reference(np.stack(proven)))
        found[subject_id] = FusedScore(score, own[best], float(pairs[best]))
    return found
