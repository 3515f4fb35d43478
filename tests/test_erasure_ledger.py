"""The ledger of erasures: lines are whole, on the disk, and found again; a damaged one stops whoever reads it."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.domain import ErasedParts, ErasureRecord
from service.erasure_ledger import LEDGER_FILE, ErasureLedger, LedgerLine, ledger_of
from service.errors import LedgerCorrupt, VarUnusable

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)


def line(number: int) -> LedgerLine:
    return LedgerLine(f"{number:032x}", NOW, "camp", f"receipt-{number}", "d" * 64)


@pytest.fixture
def ledger(tmp_path: Path) -> ErasureLedger:
    return ErasureLedger(tmp_path / "ledger")


@pytest.fixture
def file(ledger: ErasureLedger, tmp_path: Path) -> Path:
    ledger.append([line(1), line(2)])
    return tmp_path / "ledger" / LEDGER_FILE


def test_lines_are_found_by_their_keys(ledger: ErasureLedger) -> None:
    assert ledger.read() == {}
    ledger.append([])
    ledger.append([line(1), line(2)])
    ledger.append([line(3), LedgerLine("ab" * 16, None)])
    assert ledger.read() == {each.key_id: each for each in (line(1), line(2), line(3), LedgerLine("ab" * 16, None))}


PARTS = ErasedParts(
    data_keys=1, encounters=1, enrolments=1, templates=2, index_places=2, samples=0, candidates=0, cases=0, mentions=3
)


def whole(number: int) -> LedgerLine:
    known = {"key_id": f"{number:032x}", "receipt_id": f"receipt-{number}", "digest": "d" * 64}
    record = ErasureRecord(
        **known, gallery_id="camp", seq=7, erased_at=NOW, compacted_by=NOW, key_backups_until=NOW, parts=PARTS,
        public_key_id="k" * 16, repeat_digest="e" * 64,
    )  # fmt: skip
    return replace(line(number), record=record)


def test_a_line_keeps_the_whole_erasure(ledger: ErasureLedger) -> None:
    unasked = whole(3)
    assert unasked.record is not None
    unasked = replace(unasked, record=replace(unasked.record, repeat_digest=None))
    ledger.append([line(1), whole(2), unasked, LedgerLine("ab" * 16, None)])
    ledger.append([line(2)])  # as of the key store, which knows less
    assert ledger.read() == {each.key_id: each for each in (line(1), whole(2), unasked, LedgerLine("ab" * 16, None))}


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ('"seq":7,', ""),
        ('"seq":7', '"seq": 7'),
        ('"seq":7', '"seq":7,"further":1'),
        ('"templates":2', '"template":2'),
        ('"parts":{', '"parts":[{'),
        ('"receipt-2"', "null"),
        ('"compacted_by":"2026', '"compacted_by":"20x6'),
        ('"record":{', '"records":{'),
    ],
)
def test_a_damaged_whole_line_is_told_by_its_number(
    ledger: ErasureLedger, tmp_path: Path, part: str, other: str
) -> None:
    ledger.append([line(1), whole(2)])
    path = tmp_path / "ledger" / LEDGER_FILE
    text = path.read_text()
    assert part in text
    path.write_text(text.replace(part, other))
    with pytest.raises(LedgerCorrupt, match="line 2 "):
        ledger.read()


def test_a_line_names_no_subject_and_is_for_its_owner_only(file: Path) -> None:
    (first, _) = file.read_text().splitlines()
    assert list(json.loads(first)) == ["time", "gallery", "key_id", "receipt_id", "digest"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("torn", [b'{"time":"2026', b"\0" * 70_000, b"{"])
def test_a_line_that_was_not_finished_is_cut_off(ledger: ErasureLedger, file: Path, torn: bytes) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole + torn)
    assert list(ledger.read()) == [line(1).key_id, line(2).key_id]
    assert file.read_bytes() == whole

    file.write_bytes(whole + torn)
    ledger.append([line(3)])
    assert list(ledger.read()) == [each.key_id for each in (line(1), line(2), line(3))]


def test_a_look_that_writes_nothing_finds_the_same(ledger: ErasureLedger, file: Path) -> None:
    assert ledger_of(file.parent) == ledger.read()
    torn = file.read_bytes() + b'{"time":'
    file.write_bytes(torn)
    assert list(ledger_of(file.parent)) == [line(1).key_id, line(2).key_id]
    assert file.read_bytes() == torn
    assert ledger_of(file.parent / "none") == {}
    file.write_bytes(b"x\n")
    with pytest.raises(LedgerCorrupt, match="line 1 "):
        ledger_of(file.parent)


def test_a_torn_first_line_is_cut_off_too(ledger: ErasureLedger, file: Path) -> None:
    file.write_bytes(b'{"time":')
    assert ledger.read() == {}
    assert file.read_bytes() == b""


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("camp", "ca\0mp", 1),
        lambda text: text.replace('"digest"', '"digests"', 1),
        lambda text: text.replace("00000001", "0000001", 1),
        lambda text: text.replace("00000001", "0000000G", 1),
        lambda text: "\n" + text,
        lambda text: text[5:],
        lambda text: text.replace("2026-03-01", "2026-13-01", 1),
        lambda text: text.replace('"gallery":"camp"', '"gallery":["camp"]', 1),
        lambda text: "[]\n" + text,
        lambda text: text.replace(",", ", ", 1),
    ],
)
def test_a_damaged_line_is_told_by_its_number(ledger: ErasureLedger, file: Path, change: object) -> None:
    text = file.read_text()
    changed = change(text)  # type: ignore[operator]  # one of the functions above
    assert changed != text
    file.write_text(changed)
    with pytest.raises(LedgerCorrupt, match="line 1 "):
        ledger.read()


_APPEND = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from service.erasure_ledger import ErasureLedger, LedgerLine
ledger = ErasureLedger(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), int(sys.argv[2]) + 100):
    ledger.append([LedgerLine(f"{number:032x}", datetime.now(UTC), "camp", "r" * 400, "d" * 64)])
"""


def test_processes_append_at_the_same_time_without_loss(ledger: ErasureLedger, tmp_path: Path) -> None:
    folder = str(tmp_path / "ledger")
    writers = [subprocess.Popen([sys.executable, "-c", _APPEND, folder, str(start)]) for start in range(0, 400, 100)]
    assert [each.wait(timeout=60) for each in writers] == [0] * 4
    assert sorted(ledger.read()) == [f"{number:032x}" for number in range(400)]


def test_a_folder_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VarUnusable):
        ErasureLedger(tmp_path / "file")
    ledger = ErasureLedger(tmp_path / "ledger")
    (tmp_path / "ledger" / LEDGER_FILE).mkdir()
    with pytest.raises(VarUnusable, match="BIODEDUP_LEDGER_DIR"):
        ledger.append([line(1)])
