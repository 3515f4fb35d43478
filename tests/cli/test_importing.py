"""`biodedup import-templates`: says what it needs and did, refuses what does not fit, goes on where it stopped."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from typer.testing import Result

from service.domain import Gallery, OutcomeKind
from service.errors import StoreUnavailable
from service.face.extractor import template_model_id
from service.face.model_packs import verify_pack
from service.import_request import ImportBlock, ImportSource, ImportState
from service.importing import BLOCK_ROWS
from service.store.sql_store import SqlStore
from service.var_lock import VarLock
from tests import postgres
from tests.cli.conftest import run
from tests.importing import saved, unit_rows

pytestmark = pytest.mark.models

GB = 10**9


class Usage(NamedTuple):
    """As `shutil.disk_usage` answers."""

    total: int
    used: int
    free: int


@pytest.fixture
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models_dir: Path) -> Path:
    """The folder of a record with the empty gallery `camp`, and no service."""
    folder = tmp_path / "var"
    monkeypatch.setenv("BIODEDUP_VAR_DIR", str(folder))
    monkeypatch.setenv("BIODEDUP_MODELS_DIR", str(models_dir))
    folder.mkdir(mode=0o700)
    store = record(folder)
    store.migrate()
    store.create_gallery(
        Gallery("camp", "opencv-zoo", 0.01, 0.001, 1e-3, keep_samples=False, created_at=datetime.now(UTC))
    )
    store.close()
    return folder


@pytest.fixture
def model_id(models_dir: Path) -> str:
    return template_model_id(verify_pack(models_dir, "opencv-zoo"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return saved(tmp_path / "people.npy", unit_rows(1200))


@pytest.fixture
def call(file: Path, model_id: str) -> Callable[..., Result]:
    def call(*options: object, model_id: str = model_id) -> Result:
        return run("import-templates", file, "-g", "camp", "--model-id", model_id, *options)

    return call


def record(folder: Path) -> SqlStore:
    return SqlStore(f"sqlite:///{folder}/biodedup.sqlite")


def templates_in(folder: Path) -> int:
    store = record(folder)
    counts = store.gallery_counts("camp")
    store.close()
    return counts.templates


def test_it_imports_and_says_what_is_still_to_be_done(var: Path, call: Callable[..., Result]) -> None:
    result = call("--yes", "--prefix", "agency-")
    assert result.exit_code == 0, result.stderr
    for words in (
        "rows in the file",
        "disk for the record",
        "disk for the index",
        "1,200 of 1,200 rows were imported",
        "NOBODY WAS COMPARED",
        "NOT_COMPARED",
        "biodedup gallery sweep camp",
    ):
        assert words in result.stdout
    assert "rows/s" in result.stderr
    store = record(var)
    assert store.subject("camp", "agency-000001199").encounter_ids == ("agency-000001199",)
    assert store.gallery_counts("camp").outcomes == ((OutcomeKind.NOT_COMPARED, 1200),)
    store.close()


def test_a_plan_writes_nothing(var: Path, call: Callable[..., Result]) -> None:
    result = call("--plan")
    assert result.exit_code == 0, result.stderr
    assert "disk for the record" in result.stdout
    assert "imported" not in result.stdout.replace("imported before", "")
    assert templates_in(var) == 0


def test_it_asks_before_it_begins(var: Path, call: Callable[..., Result]) -> None:
    result = call()
    assert result.exit_code == 1
    assert "Begin?" in result.stdout
    assert templates_in(var) == 0


def test_a_repeat_finds_nothing_to_do(var: Path, call: Callable[..., Result]) -> None:
    call("--yes")
    result = call("--yes")
    assert result.exit_code == 0
    assert "All 1,200 rows of this file were imported before" in result.stdout
    assert templates_in(var) == 1200


def test_a_repeat_with_changed_rows_is_refused(var: Path, call: Callable[..., Result], file: Path) -> None:
    call("--yes", "--prefix", "p-")
    rows = unit_rows(1200)
    unsampled = np.setdiff1d(np.arange(1200), np.linspace(0, 1199, 1024).astype(np.int64))[:2]
    rows[unsampled] = rows[unsampled[::-1]]
    saved(file, rows)
    result = call("--yes", "--prefix", "p-")
    assert result.exit_code == 1
    assert "(encounter_exists)" in result.stderr
    assert "nothing is left" not in result.stdout


@pytest.mark.postgres
def test_beside_a_database_server_the_disk_of_the_index_is_checked(
    var: Path, call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = postgres.fresh_database()
    store = SqlStore(url)
    store.migrate()
    store.create_gallery(
        Gallery("camp", "opencv-zoo", 0.01, 0.001, 1e-3, keep_samples=False, created_at=datetime.now(UTC))
    )
    store.close()
    monkeypatch.setenv("BIODEDUP_DATABASE_URL", url)
    monkeypatch.setenv("BIODEDUP_VAR_DIR", str(tmp_path / "new" / "var"))
    looked_at = []

    def usage(folder: Path, free: int) -> Usage:
        looked_at.append(folder)
        return Usage(GB, 0, free)

    for free, exit_code in ((10**5, 1), (10**7, 0)):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, free=free: usage(folder, free))
        result = call("--plan")
        assert (result.exit_code, "disk_space_short" in result.stderr) == (exit_code, exit_code == 1)
        assert "disk for the index" in result.stdout
    # the folder was made for the keys
    assert looked_at == [tmp_path / "new" / "var"] * 2


def test_names_come_from_a_file(var: Path, call: Callable[..., Result], tmp_path: Path) -> None:
    names = tmp_path / "names.csv"
    names.write_text("subject_id\n" + "".join(f"s-{number // 2}\n" for number in range(1200)))
    assert call("--yes", "--ids", names).exit_code == 0
    store = record(var)
    counts = store.gallery_counts("camp")
    store.close()
    assert (counts.subjects, counts.encounters) == (600, 1200)


def test_what_does_not_fit_on_the_disk_is_refused_first(
    var: Path, call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    for free, exit_code in ((GB // 10, 1), (GB, 0)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: Usage(GB, 0, free))
        result = call("--plan")
        assert (result.exit_code, "disk_space_short" in result.stderr) == (exit_code, exit_code == 1)
        assert "free" in result.stdout
    assert templates_in(var) == 0


def test_a_bad_row_is_named_and_nothing_is_written(
    var: Path, call: Callable[..., Result], file: Path, tmp_path: Path
) -> None:
    rows = unit_rows(1200)
    rows[1100] *= 1.1
    saved(file, rows)
    result = call("--yes")
    assert result.exit_code == 1
    assert "row 1100 " in result.stderr
    assert "(templates_invalid)" in result.stderr
    assert templates_in(var) == 0


def test_another_model_is_refused(var: Path, call: Callable[..., Result], model_id: str) -> None:
    result = call("--yes", model_id="opencv-zoo@another")
    assert result.exit_code == 1
    assert f"the gallery is for templates of {model_id}, these are said to be of opencv-zoo@another" in result.stderr
    assert "(pack_mismatch)" in result.stderr
    assert templates_in(var) == 0


def test_the_model_id_to_state_is_told_by_models_verify(var: Path, model_id: str) -> None:
    assert run("models", "verify", "opencv-zoo").stdout == f"opencv-zoo: intact, its templates are of {model_id}\n"


def test_beside_a_service_on_the_same_folder_it_is_refused(var: Path, call: Callable[..., Result]) -> None:
    lock = VarLock(var, "http://127.0.0.1:8000")
    result = call("--yes")
    lock.release()
    assert result.exit_code == 1
    assert "(var_in_use)" in result.stderr
    assert call("--yes").exit_code == 0  # and it gives the folder back itself
    assert not (var / "lock.json").exists()
    VarLock(var, None).release()


def test_without_a_record_or_its_gallery_it_says_what_to_do_first(
    var: Path, call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "(gallery_not_found)" in call("-g", "elsewhere").stderr
    monkeypatch.setenv("BIODEDUP_VAR_DIR", str(tmp_path / "fresh"))
    result = call("--yes")
    assert result.exit_code == 1
    assert "(record_not_ready)" in result.stderr
    assert not (tmp_path / "fresh").exists()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, StoreUnavailable("the record does not answer")])
def test_stopped_in_the_middle_it_goes_on_there(
    var: Path, call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, stop: BaseException | type[BaseException]
) -> None:
    written = SqlStore.import_block

    def second_fails(store: SqlStore, gallery_id: str, source: ImportSource, block: ImportBlock) -> ImportState:
        if block.start:
            raise stop
        return written(store, gallery_id, source, block)

    with monkeypatch.context() as patch:
        patch.setattr(SqlStore, "import_block", second_fails)
        result = call("--yes")
    assert result.exit_code == (130 if stop is KeyboardInterrupt else 1)
    assert ("Run the same command again" in result.stdout) == (stop is KeyboardInterrupt)
    assert ("the room on its disk" in result.stderr) == (stop is not KeyboardInterrupt)
    assert templates_in(var) == BLOCK_ROWS
    result = call("--yes")
    assert result.exit_code == 0
    assert "1,200 of 1,200 rows were imported" in result.stdout
    assert templates_in(var) == 1200
