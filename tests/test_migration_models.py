"""The model change with the real packs in a real service: the six people of insightface's photograph."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.conftest import run
from tests.faces import face_of, to_jpeg
from tests.server import Server

pytestmark = pytest.mark.models

GALLERY = "/v1/galleries/six"


def photograph(person: int, shift_px: int) -> bytes:
    return to_jpeg(face_of(person, shift_px))


def enrol(client: httpx.Client, person: int, shift_px: int, subject_id: str) -> dict[str, Any]:
    answer = client.post(
        f"{GALLERY}/enrolments", files={"sample": photograph(person, shift_px)}, data={"subject_id": subject_id}
    )
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def who_is(client: httpx.Client, person: int) -> dict[str, float]:
    """Return the candidates and their scores for another cut-out of a person's photograph."""
    found = client.post(f"{GALLERY}/identifications", files={"sample": photograph(person, 9)}).json()
    return {candidate["subject_id"]: candidate["score"] for candidate in found["candidates"]}


def test_six_people_change_from_the_default_pack_to_buffalo_s_and_back(tmp_path: Path, models_dir: Path) -> None:
    environ = {
        "BIODEDUP_MODELS_DIR": str(models_dir),
        "BIODEDUP_EXTRA_PACKS": "buffalo_s",
        "BIODEDUP_ACCEPTED_LICENCES": "buffalo_s",
    }
    with (
        Server(tmp_path / "var", environ) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        for name, pack_id in (("six", "opencv-zoo"), ("fresh", "buffalo_s")):
            body = {"gallery_id": name, "pack_id": pack_id, "keep_samples": True}
            client.post("/v1/galleries", json=body).raise_for_status()
        for person in range(5):
            enrol(client, person, 0, f"P{person}")
        enrol(client, 0, 3, "P0")  # who came twice: a mated pair
        before = [who_is(client, person) for person in range(6)]
        assert [set(each) for each in before] == [*({f"P{person}"} for person in range(5)), set()]

        started = run("models", "migrate", "start", "six", "--to", "buffalo_s", "--url", server.url)
        assert started.exit_code == 0, started.stderr
        compared = run("models", "migrate", "compare", "six", "--url", server.url)
        assert "1 pairs of encounters of 1 people" in compared.stdout
        assert [who_is(client, person) for person in range(6)] == before
        late = enrol(client, 5, 0, "P5")
        assert (late["outcome"], late["candidates"]) == ("UNIQUE", [])
        cut = run("models", "migrate", "cut-over", "six", "--yes", "--url", server.url)
        assert cut.exit_code == 0, cut.stderr

        for person, shift_px in [*((person, 0) for person in range(5)), (0, 3), (5, 0)]:
            sample = {"sample": photograph(person, shift_px)}
            client.post("/v1/galleries/fresh/enrolments", files=sample, data={"subject_id": f"P{person}"})
        for person in range(6):
            sample = {"sample": photograph(person, 9)}
            there = client.post("/v1/galleries/fresh/identifications", files=sample).json()["candidates"]
            fresh = {candidate["subject_id"]: candidate["score"] for candidate in there}
            assert who_is(client, person) == pytest.approx(fresh, abs=1e-6)
            assert f"P{person}" in fresh

        assert run("models", "migrate", "back", "six", "--yes", "--url", server.url).exit_code == 0
        assert [who_is(client, person) for person in range(5)] == before[:5]
        assert "P5" in who_is(client, 5)
        run("models", "migrate", "cut-over", "six", "--yes", "--url", server.url)
        assert run("models", "migrate", "finish", "six", "--yes", "--url", server.url).exit_code == 0
        deadline = time.monotonic() + 30
        while client.get(f"{GALLERY}/migration").json()["stage"] != "finished":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "P5" in who_is(client, 5)


def test_a_pack_whose_licence_nobody_accepted_is_not_changed_to(tmp_path: Path, models_dir: Path) -> None:
    with Server(tmp_path / "var", {"BIODEDUP_MODELS_DIR": str(models_dir)}) as server:
        result = run("models", "migrate", "start", "default", "--to", "buffalo_s", "--url", server.url)
        assert result.exit_code == 1
        assert "not loaded" in result.stderr
        assert "BIODEDUP_EXTRA_PACKS" in result.stderr
