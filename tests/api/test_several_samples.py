"""Several photographs of one person through the HTTP interface, with the real models."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.app import create_app
from service.calibration import Calibration, fmr_for_fpir
from service.domain import FacePolicy, Reference
from service.face.extractor import Extractor
from service.face.image import ImageLimits
from service.face.model_packs import installed_pack
from service.fusion import comparisons, fused_scores
from service.settings import Settings
from tests.api.live import running, wait_until_ready

OTHERS = 8
MARGIN = 0.005

Photographs = tuple[list[bytes], list[bytes], float]
"""Two of a person to enrol, two others of the same person, and the review_fpir at which no pair of them is enough."""


def people_of(faces_dir: Path) -> list[list[Path]]:
    found = (sorted(folder.iterdir()) for folder in sorted((faces_dir / "images").iterdir()))
    return [files for files in found if len(files) >= 4]


def only_together(models_dir: Path, faces_dir: Path) -> Photographs:
    pack = installed_pack(models_dir, "opencv-zoo", accepted_licences=frozenset())
    extractor = Extractor(pack, limits=ImageLimits(), min_face_width_px=20, observe=lambda *_: None)
    calibration = Calibration.from_json((models_dir / "opencv-zoo" / "calibration.json").read_text(encoding="utf-8"))
    counted = comparisons(OTHERS + 2, several=1, searched=3)
    thresholds = {fpir: calibration.threshold(fmr_for_fpir(fpir, counted)) for fpir in np.logspace(-6, -2, 30).tolist()}
    for files in people_of(faces_dir)[OTHERS:]:
        images = [file.read_bytes() for file in files[:4]]
        rows = np.stack([extractor.extract(image, FacePolicy.CENTRAL).embedding for image in images])
        own = [Reference(number, "s", "e", row, verifies=True) for number, row in enumerate(rows[:2])]
        fused = fused_scores(rows[2:], own).get("s")
        if fused is None:
            continue
        for fpir, threshold in thresholds.items():
            is_one_person = float(rows[0] @ rows[1]) > calibration.threshold(1e-4)
            if is_one_person and fused.pair_score + MARGIN < threshold < fused.score - MARGIN:
                return images[:2], images[2:], fpir
    raise AssertionError("nobody is found by the mean of their photographs alone")


@contextmanager
def real_service(folder: Path, models_dir: Path) -> Iterator[httpx.Client]:
    settings = Settings.model_validate(
        {"auth": "off", "var_dir": folder, "models_dir": models_dir, "face_policy": "central"}
    )
    with running(create_app(settings)) as url, httpx.Client(base_url=url, timeout=60) as client:
        wait_until_ready(client)
        yield client


def enrol(client: httpx.Client, images: list[bytes], subject_id: str) -> dict[str, Any]:
    answer = client.post(
        "/v1/galleries/camp/enrolments",
        files=[("sample", image) for image in images],
        data={"subject_id": subject_id},
    )
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.models
@pytest.mark.faces
def test_two_photographs_find_whom_no_pair_of_them_finds(tmp_path: Path, models_dir: Path, faces_dir: Path) -> None:
    enrolled, again, review_fpir = only_together(models_dir, faces_dir)
    others = [files[0].read_bytes() for files in people_of(faces_dir)[:OTHERS]]
    with real_service(tmp_path / "var", models_dir) as client:
        rates = {"review_fpir": review_fpir, "duplicate_fpir": 1e-6}
        assert client.post("/v1/galleries", json={"gallery_id": "camp", **rates}).status_code == 201
        for number, image in enumerate(others):
            assert enrol(client, [image], f"other-{number}")["outcome"] == "UNIQUE"
        enrol(client, enrolled, "registered")
        found = enrol(client, again, "newcomer")
        (candidate,) = found["candidates"]
        assert found["outcome"] == "REVIEW"
        assert candidate["subject_id"] == "registered"
        assert candidate["pair_score"] < found["thresholds"]["review"] <= candidate["score"]
        assert candidate["fmr"] > found["thresholds"]["review_fmr"]  # of the pair, which alone would not do
        assert found["thresholds"]["comparisons"] == 3 * (OTHERS + 2)
        assert len(found["case_ids"]) == 1
        assert client.get(f"/v1/galleries/camp/enrolments/{found['enrolment_id']}").json() == found
        # what one sample finds among subjects of several counts each of those once more
        answer = client.post("/v1/galleries/camp/identifications", files={"sample": again[0]}).json()
        assert answer["thresholds"]["comparisons"] == OTHERS + 4 + 2
        assert answer["candidates"][0]["subject_id"] == "newcomer"
        assert answer["candidates"][0]["pair_score"] == pytest.approx(1, abs=1e-5)


@pytest.mark.models
@pytest.mark.faces
def test_a_photograph_of_somebody_else_in_an_encounter_hides_no_duplicate(
    tmp_path: Path, models_dir: Path, faces_dir: Path
) -> None:
    person, other = people_of(faces_dir)[:2]
    with real_service(tmp_path / "var", models_dir) as client:
        assert client.post("/v1/galleries", json={"gallery_id": "camp"}).status_code == 201
        enrol(client, [person[0].read_bytes()], "registered")
        mixed = [other[0].read_bytes(), person[0].read_bytes(), other[1].read_bytes()]
        found = enrol(client, mixed, "newcomer")
    (candidate,) = found["candidates"]
    assert found["outcome"] == "DUPLICATE"
    assert candidate["subject_id"] == "registered"
    assert candidate["score"] == pytest.approx(1, abs=1e-5)
    assert candidate["pair_score"] is None  # these samples are not fused
    assert found["thresholds"]["comparisons"] == 3
    assert found["continuity"]["passed"] is False
    assert len(found["case_ids"]) == 2
