"""The service with a part switched off: in benchmarks alone, and then it is off."""

from pathlib import Path

import pytest

from benchmarks import serving
from service import encrypted_store
from service.store.sql_store import SqlStore
from tests.store.building import new_gallery


@pytest.mark.parametrize(("arguments", "entries"), [([], 1), (["audit"], 0)])
def test_a_service_without_its_audit_trail_writes_no_entry(
    arguments: list[str], entries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encrypted_store, "SqlStore", SqlStore)  # put back what `main` changes
    monkeypatch.setattr("sys.argv", ["serving", *arguments])
    monkeypatch.setattr(serving, "load_settings", lambda _: None)
    monkeypatch.setattr(serving, "run_service", lambda _: None)
    serving.main()

    store = encrypted_store.SqlStore(f"sqlite:///{tmp_path}/record.sqlite")  # type: ignore[attr-defined]  # as the service
    store.migrate()
    store.create_gallery(new_gallery())
    assert len(store.audit_block("camp", 0, 10)) == entries
    store.close()


def test_another_part_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["serving", "doors"])
    with pytest.raises(SystemExit, match="audit"):
        serving.main()
