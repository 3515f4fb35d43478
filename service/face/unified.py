"""The unified quality score: how well a sample will compare, from what the recogniser itself says of it."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from service.errors import PackManifestInvalid
from service.face.model_packs import InstalledPack

FILE = "quality.json"

MIDDLE = 50
A_DEVIATION = 15
"""Points of the score for one standard deviation of the logarithm of the norm."""


@dataclass(frozen=True, slots=True)
class UnifiedScale:
    """What the norms of one pack's embeddings mean.

    Recognisers that are trained with a margin on the unit sphere make a shorter vector of a face they can make less of.
    The norm of OFIQ's MagFace network is the unified quality score of ISO/IEC 29794-5 in the same way (Meng et al.,
    MagFace, CVPR 2021); here it is that of the pack's own recogniser, so it costs nothing and speaks of the very
    comparisons that follow.
    """

    pack_id: str
    population: str
    photographs: int
    people: int
    mean_log_norm: float
    sd_log_norm: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean_log_norm) and 0 < self.sd_log_norm < math.inf):
            raise ValueError("a scale needs a finite mean and a standard deviation above 0")

    def score(self, norm: float) -> int:
        """Return 0..100: 50 for the middle of the population, `A_DEVIATION` points more or less a standard deviation.

        Args:
            norm: L2 norm of an embedding before it is made 1, above 0.
        """
        deviations = (math.log(norm) - self.mean_log_norm) / self.sd_log_norm
        return min(100, max(0, round(MIDDLE + A_DEVIATION * deviations)))


def scale_path(pack: InstalledPack) -> Path:
    return pack.recogniser_path.parent / FILE


def scale_of(pack: InstalledPack) -> UnifiedScale | None:
    """Return the scale beside the pack's files, None where it has none.

    Raises:
        PackManifestInvalid: it cannot be read, or was made for another pack.
    """
    pack_id = pack.manifest.pack_id
    try:
        scale = UnifiedScale(**json.loads(scale_path(pack).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise PackManifestInvalid(f"the {FILE} of the model pack {pack_id} cannot be read") from error
    if scale.pack_id != pack_id:
        raise PackManifestInvalid(f"the {FILE} of {pack_id} was made for another pack")
    return scale
