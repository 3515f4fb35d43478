"""Where the indexes of a process keep their files."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from service.app import build
from service.indexes import index_maker, spare_folder
from service.metrics import Metrics
from service.var_lock import VarLock, owner_of
from tests.api.live import fake_settings
from tests.fake_embedder import fake_packs
from tests.postgres import fresh_database


@pytest.mark.postgres
def test_of_the_processes_beside_a_database_server_one_keeps_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url, var = fresh_database(), tmp_path / "var"
    settings = fake_settings(var, database_url=url)
    first, second = build(settings, packs=fake_packs()), build(settings, packs=fake_packs())
    assert "index.kept_in_memory" in caplog.text
    assert len(list((var / "index").iterdir())) == 1
    first.close()
    assert owner_of(var) is None
    second.close()
    third = build(settings, packs=fake_packs())
    assert owner_of(var) is not None
    third.close()


def test_a_folder_is_given_back(tmp_path: Path) -> None:
    with ExitStack() as held:
        assert spare_folder(tmp_path, None, held) == tmp_path
        assert spare_folder(tmp_path, None, held) is None
    VarLock(tmp_path, None).release()


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with ExitStack() as held:
        assert spare_folder(tmp_path / "file" / "var", None, held) is None


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    index_maker("segmented", None, Metrics(version="0"), lambda _: bytes(32))
    assert list(tmp_path.iterdir()) == []
