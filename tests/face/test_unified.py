"""The unified score: a scale with its middle at 50, read from beside the pack."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from service.errors import PackManifestInvalid
from service.face.model_packs import InstalledPack
from service.face.unified import UnifiedScale, scale_of

SCALE = UnifiedScale("tiny", "people of a test", 100, 20, mean_log_norm=math.log(20), sd_log_norm=0.1)


@pytest.mark.parametrize(
    ("deviations", "expected"), [(0, 50), (1, 65), (-1, 35), (-2, 20), (3.2, 98), (-3.4, 0), (50, 100), (-50, 0)]
)
def test_a_deviation_of_the_logarithm_is_fifteen_points(deviations: float, expected: int) -> None:
    score = SCALE.score(20 * math.exp(0.1 * deviations))
    assert (score, type(score)) == (expected, int)


def test_a_longer_vector_never_scores_less() -> None:
    scores = [SCALE.score(norm) for norm in range(1, 100)]
    assert sorted(scores) == scores


def _pack(pack: InstalledPack, folder: Path, content: str | None) -> InstalledPack:
    """Return `pack` as if its files lay in `folder`."""
    if content is not None:
        (folder / "quality.json").write_text(content)
    return replace(pack, recogniser_path=folder / "recogniser.onnx")


@pytest.mark.models
def test_a_pack_without_a_scale_has_none(pack: InstalledPack, tmp_path: Path) -> None:
    assert scale_of(_pack(pack, tmp_path, None)) is None


@pytest.mark.models
def test_the_scale_is_read_from_beside_the_pack(pack: InstalledPack, tmp_path: Path) -> None:
    scale = replace(SCALE, pack_id=pack.manifest.pack_id)
    assert scale_of(_pack(pack, tmp_path, json.dumps(asdict(scale)))) == scale


@pytest.mark.models
@pytest.mark.parametrize(
    "change",
    [{"sd_log_norm": 0}, {"mean_log_norm": math.nan}, {"mean_log_norm": "2"}, {"pack_id": "another"}, {"unknown": 1}],
)
def test_a_scale_that_cannot_be_used_is_refused(pack: InstalledPack, tmp_path: Path, change: dict[str, object]) -> None:
    written = asdict(replace(SCALE, pack_id=pack.manifest.pack_id)) | change
    with pytest.raises(PackManifestInvalid, match=r"quality\.json"):
        scale_of(_pack(pack, tmp_path, json.dumps(written)))


@pytest.mark.models
def test_a_scale_that_is_no_json_is_refused(pack: InstalledPack, tmp_path: Path) -> None:
    with pytest.raises(PackManifestInvalid, match=r"quality\.json"):
        scale_of(_pack(pack, tmp_path, "[]"))
