"""The folder of the record: for its owner only, and one clear line where it cannot be used."""

import json
import os
import stat
from pathlib import Path

import pytest

from service.errors import VarUnusable
from service.var_lock import VarLock, make_var_folder, owner_of
from tests.cli.conftest import run
from tests.cli.test_commands import deliberate, serve
from tests.server import Server, free_port


@pytest.fixture(params=["under a file", "a file", "a folder of the kernel"])
def unusable(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("")
    places = {"under a file": tmp_path / "file" / "var", "a file": tmp_path / "file"}
    return places.get(request.param, Path("/proc/biodedup"))


def test_a_folder_that_cannot_be_made_is_a_deliberate_error(unusable: Path) -> None:
    with pytest.raises(VarUnusable, match="BIODEDUP_VAR_DIR"):
        make_var_folder(unusable)


def test_a_lock_that_cannot_be_written_is_a_deliberate_error(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(VarUnusable):
        VarLock(tmp_path, None)
    with pytest.raises(VarUnusable):
        owner_of(tmp_path)


def test_a_note_that_cannot_be_written_gives_the_lock_back(tmp_path: Path) -> None:
    (tmp_path / "lock.part").mkdir()
    with pytest.raises(VarUnusable) as refused:
        VarLock(tmp_path, None)
    (tmp_path / "lock.part").rmdir()
    VarLock(tmp_path, None).release()
    assert refused.traceback  # it keeps the first lock alive: dropped, it would be given back by itself


def test_the_folder_is_made_for_its_owner_only(tmp_path: Path) -> None:
    earlier = os.umask(0o022)
    try:
        make_var_folder(tmp_path / "var")
    finally:
        os.umask(earlier)
    assert stat.S_IMODE((tmp_path / "var").stat().st_mode) == 0o700


@pytest.mark.models
def test_serve_says_in_one_line_that_it_cannot_use_the_folder(unusable: Path, models_dir: Path) -> None:
    with serve(unusable, models_dir, 0) as process:
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    [line, advice] = deliberate(errors)
    assert line.startswith("error: the folder of the record (BIODEDUP_VAR_DIR) cannot be used: ")
    assert line.endswith(" (var_unusable)")
    assert "BIODEDUP_VAR_DIR" in advice
    assert said == ""


def test_check_says_in_one_line_that_the_folder_cannot_be_used(unusable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIODEDUP_VAR_DIR", str(unusable))
    result = run("check", "--url", f"http://127.0.0.1:{free_port()}")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    [line] = [line for line in result.stdout.splitlines() if "(var_unusable)" in line]
    assert line.startswith(f"fail  var folder    {unusable} cannot be used: ")


@pytest.mark.parametrize(("mode", "level"), [(0o700, "ok  "), (0o750, "warn"), (0o705, "warn")])
def test_check_warns_of_a_folder_that_others_can_look_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, level: str
) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var").chmod(mode)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIODEDUP_VAR_DIR", "var")
    lines = run("check", "--url", f"http://127.0.0.1:{free_port()}").stdout.splitlines()
    [line] = [line for line in lines if "var folder" in line]
    assert line.startswith(f"{level}  var folder")
    assert str(tmp_path / "var") in line
    assert list((tmp_path / "var").iterdir()) == []


@pytest.mark.models
def test_check_says_once_how_to_fetch_a_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models_dir: Path) -> None:
    (tmp_path / "opencv-zoo").mkdir()
    (tmp_path / "opencv-zoo" / "manifest.toml").write_bytes((models_dir / "opencv-zoo" / "manifest.toml").read_bytes())
    monkeypatch.setenv("BIODEDUP_MODELS_DIR", str(tmp_path))
    said = run("check", "--url", f"http://127.0.0.1:{free_port()}").stdout
    assert said.count("biodedup models fetch opencv-zoo") == 1


@pytest.mark.models
def test_the_record_is_for_its_owner_only(models_dir: Path, tmp_path: Path) -> None:
    earlier = os.umask(0o022)
    try:
        with Server(tmp_path / "var", {"BIODEDUP_MODELS_DIR": str(models_dir)}) as server:
            note = json.loads((tmp_path / "var" / "lock.json").read_text())
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "var").iterdir()}
    finally:
        os.umask(earlier)
    assert note == {"pid": server.process.pid, "url": server.url}
    assert stat.S_IMODE((tmp_path / "var").stat().st_mode) == 0o700
    assert {"biodedup.sqlite", "biodedup.sqlite-wal", "lock", "lock.json"} <= set(modes)
    assert {name for name, mode in modes.items() if mode & 0o077} == set()


@pytest.mark.models
def test_a_start_that_fails_announces_nothing(models_dir: Path, server: Server, tmp_path: Path) -> None:
    owned = server.log_path.parent / "var"
    nowhere = f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/none"
    for var_dir, settings in ((owned, {}), (tmp_path / "var", {"BIODEDUP_DATABASE_URL": nowhere})):
        with serve(var_dir, models_dir, 0, **settings) as process:
            said, errors = process.communicate(timeout=90)
        assert process.returncode == 1
        assert said == ""
        assert deliberate(errors)[0].startswith("error: ")
