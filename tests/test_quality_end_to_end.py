"""The quality gate over HTTP with real photographs, real models and a real record."""

from pathlib import Path

import httpx
import pytest
from PIL import ImageFilter

from service.app import create_app
from service.settings import Settings
from tests.api.live import running, wait_until_ready
from tests.faces import face_of, to_jpeg

pytestmark = pytest.mark.models

SHARP = 3  # of the six people, the one whom both packs see best


def shaken() -> bytes:
    return to_jpeg(face_of(SHARP).filter(ImageFilter.GaussianBlur(6)))


def test_a_gate_refuses_a_shaken_photograph_and_takes_the_next_one(tmp_path: Path, models_dir: Path) -> None:
    both = {"extra_packs": "buffalo_s", "accepted_licences": "buffalo_s"}
    settings = Settings.model_validate({"auth": "off", "models_dir": models_dir, "var_dir": tmp_path / "var", **both})
    with running(create_app(settings)) as url, httpx.Client(base_url=url, timeout=60) as client:
        wait_until_ready(client)
        for pack_id in ("opencv-zoo", "buffalo_s"):
            made = {"gallery_id": pack_id, "pack_id": pack_id, "quality_gate": "standard"}
            assert client.post("/v1/galleries", json=made).status_code == 201
            _enrol_under_a_gate(client, f"/v1/galleries/{pack_id}")


def _enrol_under_a_gate(client: httpx.Client, gallery: str) -> None:
    sharp = to_jpeg(face_of(SHARP))
    refused = client.post(f"{gallery}/enrolments", files={"sample": shaken()})
    assert (refused.status_code, refused.json()["code"]) == (422, "quality_too_low")
    assert "hold the camera still" in refused.json()["message"]
    assert client.get(gallery).json()["counts"]["encounters"] == 0

    both = [("sample", shaken()), ("sample", sharp)]
    enrolled = client.post(f"{gallery}/enrolments", files=both, data={"subject_id": "s"}).json()
    poor, good = enrolled["samples"]
    assert (poor["rejection_code"], good["rejection_code"]) == ("quality_too_low", None)
    assert "hold_still" in [each["code"] for each in poor["advice"]]
    assert poor["quality"]["unified"] < 15 <= 40 < good["quality"]["unified"] <= 100
    assert good["quality"]["embedding_norm"] > poor["quality"]["embedding_norm"] > 0
    assert client.get(gallery).json()["counts"]["templates"] == 1

    found = client.post(f"{gallery}/identifications", files={"sample": shaken()}).json()
    assert found["quality"]["unified"] == poor["quality"]["unified"]
    assert found["advice"] == poor["advice"]

    assert client.patch(gallery, json={"quality_gate": "off"}).json()["quality_gate"] == "off"
    accepted = client.post(f"{gallery}/enrolments", files={"sample": shaken()}).json()
    assert accepted["samples"][0]["rejection_code"] is None
    assert accepted["samples"][0]["advice"] == poor["advice"]
