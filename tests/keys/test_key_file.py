"""The master key file: one key, whoever comes first, for its owner only."""

import os
import secrets
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from service.errors import VarUnusable
from service.keys.key_file import load_or_create_master_key


def test_the_first_use_draws_a_key_and_later_ones_load_it(tmp_path: Path) -> None:
    path = tmp_path / "var" / "master.key"
    before = os.umask(0)
    try:
        key = load_or_create_master_key(path)
    finally:
        os.umask(before)
    assert (len(key), path.read_bytes()) == (32, key)
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
    assert load_or_create_master_key(path) == key
    assert [file.name for file in path.parent.iterdir()] == ["master.key"]


def test_two_folders_have_two_keys(tmp_path: Path) -> None:
    assert load_or_create_master_key(tmp_path / "a") != load_or_create_master_key(tmp_path / "b")


def test_all_who_find_no_key_at_once_get_the_same_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "master.key"
    meeting, keys = threading.Barrier(8), []
    draw = secrets.token_bytes

    def draw_together(size: int) -> bytes:
        meeting.wait(timeout=30)  # each has seen that there is no key before any makes one
        return draw(size)

    monkeypatch.setattr(secrets, "token_bytes", draw_together)
    threads = [threading.Thread(target=lambda: keys.append(load_or_create_master_key(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(keys), len(set(keys))) == (8, 1)
    assert [file.name for file in tmp_path.iterdir()] == ["master.key"]


def test_processes_that_start_at_once_get_the_same_key(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from service.keys.key_file import load_or_create_master_key as load;"
        "sys.stdin.read(1); print(load(pathlib.Path(sys.argv[1])).hex())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "master.key")]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    keys = [process.communicate("x", timeout=60)[0] for process in processes]
    assert len(set(keys)) == 1
    assert len(keys[0].strip()) == 64


@pytest.mark.parametrize("contents", [b"", b"short", bytes(32), bytes(range(33)), b"ab" * 32])
def test_what_is_not_a_key_is_refused_and_kept(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "master.key"
    path.write_bytes(contents)
    path.chmod(0o600)
    with pytest.raises(VarUnusable, match="not a key of 32 bytes: restore it from its backup; nothing else opens"):
        load_or_create_master_key(path)
    assert path.read_bytes() == contents


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o777])
def test_a_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master.key"
    load_or_create_master_key(path)
    path.chmod(mode)
    with pytest.raises(VarUnusable, match="chmod 600"):
        load_or_create_master_key(path)


def test_a_folder_a_pipe_or_a_dangling_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "pipe", "link"):
        with pytest.raises(VarUnusable):
            load_or_create_master_key(tmp_path / name)


def test_a_folder_that_cannot_be_made_is_a_deliberate_error_without_a_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(VarUnusable) as caught:
        load_or_create_master_key(tmp_path / "file" / "master.key")
    assert str(tmp_path) not in caught.value.message


def test_a_key_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VarUnusable, match="No space left"):
        load_or_create_master_key(tmp_path / "master.key")
    assert list(tmp_path.iterdir()) == []
