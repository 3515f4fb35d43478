"""Fixtures that need files outside the tests: weights and photographs. Without them a test skips and says so."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from service.domain import Image
from service.face.model_packs import InstalledPack, installed_pack

REPOSITORY = Path(__file__).parent.parent


def installed_models() -> Path:
    """The folder of model packs, with both packs installed; skips when they are not."""
    folder = Path(os.environ.get("BIODEDUP_MODELS_DIR", REPOSITORY / "models"))
    missing = [name for name in ("opencv-zoo", "buffalo_s") if not (folder / name / "installed.json").is_file()]
    if missing:
        pytest.skip(f"model packs {', '.join(missing)} are not installed: make models")
    return folder


@pytest.fixture(scope="session")
def models_dir() -> Path:
    return installed_models()


@pytest.fixture(scope="session", params=["opencv-zoo", "buffalo_s"])
def pack(request: pytest.FixtureRequest) -> InstalledPack:
    """Each of the two packs in turn."""
    return installed_pack(installed_models(), request.param, accepted_licences=frozenset({"buffalo_s"}))


@pytest.fixture(scope="session")
def t1_path() -> Path:
    """insightface's sample photograph: 1280 x 886 pixels, six people."""
    spec = importlib.util.find_spec("insightface")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data" / "images" / "t1.jpg"


@pytest.fixture(scope="session")
def t1_image(t1_path: Path) -> Image:
    """(886, 1280, 3) uint8, RGB."""
    with PIL.Image.open(t1_path) as picture:
        return np.array(picture.convert("RGB"))


@pytest.fixture(scope="session")
def faces_dir() -> Path:
    """The development photographs: one folder a person, pairs.txt, openset.json."""
    folder = Path(os.environ.get("BIODEDUP_TEST_FACES", REPOSITORY.parent / "shared" / "data" / "lfw-dev"))
    if not (folder / "openset.json").is_file():
        pytest.skip("no development photographs: set BIODEDUP_TEST_FACES")
    return folder
