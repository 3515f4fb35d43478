"""The whole service is built, started, stopped, and refused with a clear reason."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.app import build, create_app, export_openapi
from service.errors import (
    BiodedupError,
    GalleryNotFound,
    PackLicenceNotAccepted,
    PackManifestInvalid,
    PackNotInstalled,
    PackUnknown,
    VarInUse,
)
from service.galleries import GalleryChange
from service.settings import Settings
from service.var_lock import VarLock, owner_of
from tests.api.live import fake_settings, running, wait_until_ready
from tests.fake_embedder import fake_packs

REPOSITORY = Path(__file__).resolve().parent.parent


def test_openapi_yaml_is_what_the_application_says() -> None:
    assert (REPOSITORY / "openapi.yaml").read_text() == export_openapi(), "run: biodedup export-openapi > openapi.yaml"


def test_what_was_recorded_is_found_after_a_restart(tmp_path: Path) -> None:
    settings = fake_settings(tmp_path / "var")
    for expected in ("UNIQUE", "DUPLICATE"):
        with running(create_app(settings, packs=fake_packs())) as url, httpx.Client(base_url=url) as client:
            wait_until_ready(client)
            found = client.post("/v1/galleries/default/enrolments", files={"sample": b"anna/1"}).json()
            assert found["outcome"] == expected


def test_the_default_gallery_is_made_once_and_keeps_its_rates(tmp_path: Path) -> None:
    settings = fake_settings(tmp_path / "var", default_gallery="camp-1")
    service = build(settings, packs=fake_packs())
    service.galleries.update("camp-1", GalleryChange(review_fpir=0.2))
    service.close()
    service = build(settings, packs=fake_packs())
    with service.store.reading() as reading:
        assert reading.gallery("camp-1").review_fpir == 0.2
        with pytest.raises(GalleryNotFound):
            reading.gallery("default")
    service.close()


def test_one_process_owns_the_folder_and_says_where_it_serves(tmp_path: Path) -> None:
    settings = fake_settings(tmp_path / "var")
    first = build(settings, url="http://127.0.0.1:8123", packs=fake_packs())
    with pytest.raises(VarInUse, match=rf"process {os.getpid()} serves .* http://127\.0\.0\.1:8123.*BIODEDUP_URL"):
        build(settings, packs=fake_packs())
    first.close()
    build(settings, packs=fake_packs()).close()


def test_the_owner_of_a_folder_is_known_while_it_lives(tmp_path: Path) -> None:
    assert owner_of(tmp_path / "none") is None
    lock = VarLock(tmp_path, None)
    lock.tell("http://127.0.0.1:1")
    owner = owner_of(tmp_path)
    lock.release()
    assert owner is not None
    assert (owner.pid, owner.url) == (os.getpid(), "http://127.0.0.1:1")
    assert owner_of(tmp_path) is None


def test_an_owner_whose_note_cannot_be_read_is_still_an_owner(tmp_path: Path) -> None:
    lock = VarLock(tmp_path, None)
    (tmp_path / "lock.json").write_text("[]")
    with pytest.raises(VarInUse, match="another process works on this folder"):
        VarLock(tmp_path, None)
    lock.release()


def test_a_sqlite_file_elsewhere_is_owned_too(tmp_path: Path) -> None:
    settings = fake_settings(tmp_path / "var", database_url=f"sqlite:///{tmp_path}/elsewhere/record.sqlite")
    service = build(settings, packs=fake_packs())
    assert owner_of(tmp_path / "elsewhere") is not None
    service.close()


def _copy_pack(models_dir: Path, folder: Path) -> Path:
    """Make a folder of packs with opencv-zoo alone, its files linked."""
    copy = folder / "opencv-zoo"
    copy.mkdir(parents=True)
    for file in (models_dir / "opencv-zoo").iterdir():
        (copy / file.name).symlink_to(file)
    return folder


def _refused(settings: Settings) -> BiodedupError:
    """Return why the service does not start; nothing of the attempt may stay."""
    with pytest.raises(BiodedupError) as refused:
        build(settings)
    assert owner_of(settings.var_dir) is None
    return refused.value


@pytest.mark.models
def test_a_pack_that_cannot_be_used_stops_the_start(tmp_path: Path, models_dir: Path) -> None:
    packs = _copy_pack(models_dir, tmp_path / "models")

    def settings(**values: object) -> Settings:
        return Settings.model_validate({"var_dir": tmp_path / "var", "models_dir": packs, **values})

    assert isinstance(_refused(settings(pack="nothing")), PackUnknown)
    restricted = settings(models_dir=models_dir, pack="buffalo_s")
    assert isinstance(_refused(restricted), PackLicenceNotAccepted)
    calibration = packs / "opencv-zoo" / "calibration.json"
    text = calibration.read_text()
    calibration.unlink()
    assert "calibration.json" in _refused(settings()).message
    assert isinstance(_refused(settings()), PackNotInstalled)
    for broken in ("{", "{}", json.dumps({**json.loads(text), "pack_id": "buffalo_s"})):
        calibration.write_text(broken)
        assert isinstance(_refused(settings()), PackManifestInvalid)


def test_a_failed_start_is_told_and_the_process_can_stop(tmp_path: Path) -> None:
    held = VarLock(tmp_path / "var", "http://127.0.0.1:1")
    told: list[str] = []
    app = create_app(fake_settings(tmp_path / "var"), packs=fake_packs(), on_failure=lambda: told.append("failed"))
    with running(app) as url:
        while not told:
            assert httpx.get(f"{url}/healthz").status_code == 200
        assert httpx.get(f"{url}/readyz").status_code == 503
    held.release()
    assert isinstance(app.state.startup.failure, VarInUse)


@contextmanager
def _real_service(models_dir: Path, var_dir: Path, **values: object) -> Iterator[httpx.Client]:
    settings = Settings.model_validate({"auth": "off", "models_dir": models_dir, "var_dir": var_dir, **values})
    with running(create_app(settings)) as url, httpx.Client(base_url=url, timeout=60) as client:
        wait_until_ready(client)
        yield client


@pytest.mark.models
def test_real_photographs_through_the_real_pack(tmp_path: Path, models_dir: Path, t1_path: Path) -> None:
    photograph = t1_path.read_bytes()
    enrolments = "/v1/galleries/default/enrolments"
    with _real_service(models_dir, tmp_path / "var", face_policy="largest") as client:
        first = client.post(enrolments, files={"sample": photograph}, data={"subject_id": "S-1"}).json()
        second = client.post(enrolments, files={"sample": photograph}, data={"subject_id": "S-2"}).json()
        garbage = client.post(enrolments, files={"sample": b"not an image"})
    assert (first["outcome"], second["outcome"]) == ("UNIQUE", "DUPLICATE")
    assert second["candidates"][0]["subject_id"] == "S-1"
    assert second["candidates"][0]["score"] == pytest.approx(1.0, abs=1e-4)
    assert first["samples"][0]["quality"]["face_count"] == 6
    assert garbage.status_code == 422
    assert garbage.json()["code"] == "image_format_unsupported"


@pytest.mark.models
def test_the_pack_of_an_existing_gallery_is_loaded_whatever_the_settings_say(tmp_path: Path, models_dir: Path) -> None:
    both = {"extra_packs": "buffalo_s", "accepted_licences": "buffalo_s"}
    with _real_service(models_dir, tmp_path / "var", **both) as client:
        made = client.post("/v1/galleries", json={"gallery_id": "research", "pack_id": "buffalo_s"})
        assert made.status_code == 201
    with _real_service(models_dir, tmp_path / "var", accepted_licences="buffalo_s") as client:
        assert {each["pack_id"] for each in client.get("/readyz").json()["galleries"]} == {"opencv-zoo", "buffalo_s"}
    refused = _refused(Settings(models_dir=models_dir, var_dir=tmp_path / "var"))
    assert isinstance(refused, PackLicenceNotAccepted)
