"""The ledger of erasures: a file outside all backups that says which data keys were destroyed, so that a restore
brings nobody back. It names no person.
"""

import fcntl
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from service.audit_chain import moment_text
from service.domain import ErasedParts, ErasureRecord
from service.durable_files import sync_folder
from service.errors import LedgerCorrupt, VarUnusable
from service.logs import log_event
from service.var_lock import make_var_folder

LEDGER_FILE = "erasures.jsonl"
_NAMES = ("time", "gallery", "key_id", "receipt_id", "digest")
_TEXT = rb'(?:null|"([^"\\\x00-\x1f\x7f-\xff]*)")'
_NUMBER = rb"(?:0|[1-9][0-9]*)"
# in one form alone, and quicker than as JSON: a start reads all lines
_LINE = re.compile(
    rb'\{"time":%(text)b,"gallery":%(text)b,"key_id":"([0-9a-f]{32})","receipt_id":%(text)b,"digest":%(text)b'
    rb'(?:,"record":\{"repeat_digest":%(text)b,"seq":(%(number)b),"compacted_by":%(text)b,'
    rb'"key_backups_until":%(text)b,"parts":(\{(?:"[a-z_]+":%(number)b,?)+\}),"public_key_id":%(text)b\})?\}\n'
    % {b"text": _TEXT, b"number": _NUMBER}
)
_FACTS = ("repeat_digest", "seq", "compacted_by", "key_backups_until", "parts", "public_key_id")
_BLOCK = 65_536

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One erasure. Of keys that were destroyed before there was a ledger the rest may not be known."""

    key_id: str
    time: datetime | None
    gallery: str | None = None
    receipt_id: str | None = None
    digest: str | None = None
    record: ErasureRecord | None = None
    """The whole of it: so that a repeat of the request is known after a restore, too, and the restore itself."""

    def text(self) -> str:
        """Return the line as it is written."""
        values: tuple[object, ...] = (self.time, self.gallery, self.key_id, self.receipt_id, self.digest)
        line = dict(zip(_NAMES, values, strict=True))
        if self.record is not None:
            line["record"] = {name: getattr(self.record, name) for name in _FACTS} | {
                "parts": asdict(self.record.parts)
            }
        return json.dumps(line, separators=(",", ":"), default=_time_text) + "\n"


class ErasureLedger:
    """Appends to the ledger and reads it. Processes may share the folder.

    Raises:
        VarUnusable: the folder cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        make_var_folder(folder)
        self._path = folder / LEDGER_FILE

    def append(self, lines: Iterable[LedgerLine]) -> None:
        """Write lines behind the last one; they are on the disk when this returns. Raises VarUnusable."""
        text = "".join(line.text() for line in lines).encode("ascii")
        if not text:
            return
        with self._opened() as descriptor:
            _cut_torn_line(descriptor)
            start = os.lseek(descriptor, 0, os.SEEK_END)
            written = os.write(descriptor, text)
            if written < len(text):  # a full disk: half a line must not stand before the next one
                os.ftruncate(descriptor, start)
                raise VarUnusable("the ledger of erasures cannot be written: the disk is full")
            os.fsync(descriptor)

    def read(self) -> dict[str, LedgerLine]:
        """Return the lines by key; a last line that was not finished is left out, and cut off.

        Who was writing it when the process was stopped has destroyed no key yet, and writes it again.

        Raises:
            LedgerCorrupt: a line is not as it was written.
            VarUnusable
        """
        with self._opened() as descriptor:
            _cut_torn_line(descriptor)
            with open(os.dup(descriptor), "rb") as file:  # noqa: PTH123  (of a descriptor)
                file.seek(0)
                return _lines_of(file)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Hold the file for this process alone."""
        try:
            is_new = not self._path.exists()
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if is_new:
                    sync_folder(self._path.parent)
                yield descriptor
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _unusable(error) from error


def ledger_of(folder: Path) -> dict[str, LedgerLine]:
    """Return the lines by key as a start would read them, and write nothing; none where there is no ledger.

    Raises:
        LedgerCorrupt: a line is not as it was written.
        VarUnusable: the file cannot be read.
    """
    try:
        text = (folder / LEDGER_FILE).read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _unusable(error) from error
    return _lines_of(text[: text.rfind(b"\n") + 1].splitlines(keepends=True))


def _lines_of(texts: Iterable[bytes]) -> dict[str, LedgerLine]:
    lines: dict[str, LedgerLine] = {}
    for number, text in enumerate(texts, 1):
        line = _line_of(text, number)
        # a key may stand there twice: what one line says of the request, the other must not hide
        if line.record is not None or line.key_id not in lines or lines[line.key_id].record is None:
            lines[line.key_id] = line
    return lines


def _unusable(error: OSError) -> VarUnusable:
    reason = error.strerror or "no access"
    return VarUnusable(f"the ledger of erasures (BIODEDUP_LEDGER_DIR) cannot be used: {reason}")


def _cut_torn_line(descriptor: int) -> None:
    """Take away what stands behind the last end of a line: the beginning of one that was never finished."""
    size = os.fstat(descriptor).st_size
    end = size
    while end > 0:
        start = max(0, end - _BLOCK)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)
        os.fsync(descriptor)
        log_event(_log, "ledger.torn_line_cut", level=logging.WARNING, size_bytes=size - end)


def _line_of(text: bytes, number: int) -> LedgerLine:
    found = _LINE.fullmatch(text)
    if found is None:
        raise _corrupt(number)
    values = [None if each is None else each.decode() for each in found.groups()]
    time, gallery, key_id, receipt_id, digest = values[:5]
    facts = dict(zip(_FACTS, values[5:], strict=True))
    try:
        moment = None if time is None else datetime.fromisoformat(time)
        line = LedgerLine(key_id or "", moment, gallery, receipt_id, digest)
        return line if facts["parts"] is None else replace(line, record=_record_of(line, **facts))
    except (ValueError, TypeError) as error:
        raise _corrupt(number) from error


def _record_of(line: LedgerLine, **facts: str | None) -> ErasureRecord:
    """Return the whole of an erasure. Raises ValueError, TypeError: the line says something else."""
    known: dict[str, Any] = {
        "receipt_id": line.receipt_id,
        "gallery_id": line.gallery,
        "key_id": line.key_id,
        "erased_at": line.time,
        "digest": line.digest,
        **facts,
    }
    if None in (value for name, value in known.items() if name != "repeat_digest"):
        raise ValueError("an erasure is told whole")
    known |= {name: datetime.fromisoformat(known[name]) for name in ("compacted_by", "key_backups_until")}
    return ErasureRecord(**known | {"seq": int(known["seq"]), "parts": ErasedParts(**json.loads(known["parts"]))})


def _time_text(value: object) -> str:
    if not isinstance(value, datetime):
        raise TypeError("neither text, number nor time")
    return moment_text(value)


def _corrupt(number: int) -> LedgerCorrupt:
    return LedgerCorrupt(
        f"line {number} of the ledger of erasures is not as it was written; restore the ledger: nothing was written"
    )
