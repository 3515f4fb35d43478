"""People whose captures differ so much that some are found only by several of them together."""

import numpy as np

from service import fusion
from service.domain import Embeddings, FacePolicy, Reference
from tests.synthetic import PersonEmbedder, calibration, sample_of

SPREAD = 1.25
"""Two captures of one person score 0.39 on average, about the thresholds of galleries of a hundred."""


def probes_of(*samples: bytes) -> Embeddings:
    embedder = PersonEmbedder(SPREAD)
    return np.stack([embedder.extract(sample, FacePolicy.REFUSE).embedding for sample in samples])


def found_only_together(templates: int) -> tuple[bytes, bytes, bytes]:
    """Return two captures of person 0, and a third that finds them together and neither alone.

    `templates`: of the others in the gallery, whose review_fpir is 0.01.
    """
    threshold = calibration().threshold(0.01 / (templates + 4))
    for capture in range(20_000):
        first, second, probe = (sample_of(0, 3 * capture + number) for number in range(3))
        own = [Reference(n, "s", "e", probes_of(each)[0], True) for n, each in enumerate((first, second))]
        fused = fusion.fused_scores(probes_of(probe), own)["s"]
        is_one_person = float(own[0].embedding @ own[1].embedding) > 0.32  # for the continuity check
        if is_one_person and fused.score >= threshold + 0.003 and fused.pair_score < threshold - 0.04:
            return first, second, probe
    raise AssertionError("no such captures")
