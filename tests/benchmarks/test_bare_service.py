"""The service with a part switched off: in benchmarks alone, and then it is off."""

import os
from pathlib import Path

import pytest

import service.app
from benchmarks.bare_service import switch_off
from service import encrypted_store
from service.store.sql_store import SqlStore
from tests.store.building import new_gallery


@pytest.mark.parametrize(("parts", "entries"), [([], 1), (["audit"], 0)])
def test_a_service_without_its_audit_trail_writes_no_entry(
    parts: list[str], entries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encrypted_store, "SqlStore", SqlStore)  # put back what is switched off
    for part in parts:
        switch_off(part)

    store = vars(encrypted_store)["SqlStore"](f"sqlite:///{tmp_path}/record.sqlite")
    store.migrate()
    store.create_gallery(new_gallery())
    assert len(store.audit_block("camp", 0, 10)) == entries
    store.close()


def test_a_service_without_encryption_opens_its_record_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    opens = vars(service.app)["open_encrypted"]
    monkeypatch.setitem(vars(service.app), "open_encrypted", opens)  # put back what is switched off
    switch_off("encryption")
    assert vars(service.app)["open_encrypted"] is not opens


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("authentication", "BIODEDUP_AUTH", "off"), ("limits", "BIODEDUP_LIMIT_SEARCHES_PER_MINUTE", "0")],
)
def test_what_settings_switch_is_switched_by_them(
    part: str, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {})
    switch_off(part)
    assert os.environ[name] == value


def test_another_part_is_refused() -> None:
    with pytest.raises(KeyError, match="doors"):
        switch_off("doors")
