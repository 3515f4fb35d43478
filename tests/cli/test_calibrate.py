"""`biodedup calibrate`: labelled photographs in, a calibration out that the service takes."""

import shutil
from pathlib import Path

import pytest
from typer.testing import Result

from service.calibration import Calibration
from tests.cli.conftest import run

WHO = ("--population", "people in the news")

pytestmark = [pytest.mark.models, pytest.mark.faces]


@pytest.fixture(autouse=True)
def _models(monkeypatch: pytest.MonkeyPatch, models_dir: Path) -> None:
    monkeypatch.setenv("BIODEDUP_MODELS_DIR", str(models_dir))


@pytest.fixture
def folder(faces_dir: Path, tmp_path: Path) -> Path:
    """Sub-folders of 110 people, 55 of them with two photographs."""
    made = tmp_path / "photographs"
    several: list[tuple[str, list[Path]]] = []
    single: list[tuple[str, list[Path]]] = []
    for person in sorted((faces_dir / "images").iterdir()):
        files = sorted(person.iterdir())[:2]
        (several if len(files) > 1 else single).append((person.name, files))
    for name, files in several[:55] + single[:55]:
        (made / name).mkdir(parents=True)
        for file in files:
            shutil.copy(file, made / name)
    return made


def refused(result: Result, code: str) -> str:
    assert result.exit_code == 1, result.stdout
    assert code in result.stderr
    return result.stderr


def test_a_folder_of_people_becomes_a_calibration(folder: Path, tmp_path: Path, models_dir: Path) -> None:
    out = tmp_path / "made.json"
    result = run("calibrate", folder, *WHO, "--out", out, "--face-policy", "central")
    assert result.exit_code == 0, result.stderr
    made = Calibration.from_json(out.read_text(encoding="utf-8"))
    shipped = Calibration.from_json((models_dir / "opencv-zoo" / "calibration.json").read_text(encoding="utf-8"))
    assert (made.people, made.method, made.population) == (110, "photographs", "people in the news")
    assert (made.model_id, made.mated_people, made.mated_population) == (shipped.model_id, 55, "people in the news")
    # so few people say little of the tail, but the bounds of what they say hold what thousands say
    score = shipped.threshold(1e-5)
    assert made.fmr_lower(score) < 1e-5 < made.false_match_rate(score).fmr_upper
    assert made.calibration_id in result.stdout
    assert "changes nothing yet" in result.stdout


def test_few_people_are_refused_with_what_to_do(folder: Path, tmp_path: Path) -> None:
    for person in sorted(folder.iterdir())[90:]:
        shutil.rmtree(person)
    central = ("--face-policy", "central")
    said = refused(run("calibrate", folder, *WHO, *central, "--out", tmp_path / "x.json"), "people_too_few")
    assert "100 people or more, not 90" in said
    assert not (tmp_path / "x.json").exists()


def test_a_file_that_cannot_be_written_is_told(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "none" / "x.json"
    assert "--out" in refused(run("calibrate", folder, *WHO, "--out", out), "report_unwritable")
