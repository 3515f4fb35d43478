"""Made-up segments for the tests of the index files."""

import numpy as np

from service.gallery.segment_files import Segment

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))


def made_up_segment(seed: int, count: int = 7, dimension: int = 8, codes_bytes: int = 100) -> Segment:
    rng = np.random.default_rng(seed)
    return Segment(
        ids=rng.integers(1, 2**40, count),
        codes=rng.integers(0, 256, codes_bytes, np.uint8),
        rows=rng.standard_normal((count, dimension), np.float32),
        metadata={"seed": seed},
    )
