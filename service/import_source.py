"""Reads what `biodedup import-templates` is given: templates from a .npy file, whose they are from a CSV file.

Blocks are read with plain reads, not through a memory map: a file that is cut short meanwhile is an error with a word,
not a signal that ends the process, and memory stays that of one block.
"""

import csv
import hashlib
import re
from array import array
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from service.domain import Embeddings
from service.errors import TemplatesInvalid
from service.import_request import ImportName

NORM_TOLERANCE = 1e-3  # of a template that went through float16; anything farther from 1 is no template
EXACT_NORM = 1e-6  # within it a row is kept as it is, byte for byte
ID_COLUMNS = ("subject_id", "encounter_id", "captured_at")
MAX_PREFIX = 64
_SAMPLED_ROWS = 1024
_CHECKED_AT_ONCE = 4096  # rows: 8 MB of 512 dimensions
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_FLOAT32 = np.dtype("<f4")


class TemplateFile:
    """A .npy file of templates: (n, D) little-endian float32, in C order."""

    def __init__(self, path: Path) -> None:
        """Read the header, and nothing else.

        Raises:
            TemplatesInvalid: it is no such file, or shorter than its header says.
        """
        self._path = path
        try:
            with path.open("rb") as stream:
                shape, in_columns, dtype = _read_header(stream)
                self._start = stream.tell()
        except (OSError, ValueError) as error:
            raise TemplatesInvalid("the templates are no .npy file that can be read") from error
        if dtype != _FLOAT32 or in_columns or len(shape) != 2:
            raise TemplatesInvalid(
                f"the file holds {dtype} of shape {shape}: templates are float32 (n, D), a row each, in C order; "
                "`numpy.save(file, numpy.ascontiguousarray(rows, dtype='<f4'))` writes them so"
            )
        self.count, self.dimension = shape
        if not self.count or not self.dimension:
            raise TemplatesInvalid("the file holds no templates")
        self._row_bytes = self.dimension * _FLOAT32.itemsize
        if path.stat().st_size < self._start + self.count * self._row_bytes:
            raise TemplatesInvalid(f"the file is cut short: its header promises {self.count:,} rows")

    def read(self, start: int, stop: int) -> Embeddings:
        """Return rows `start` to `stop`, made exactly unit length where they are nearly so.

        Raises:
            TemplatesInvalid: a row is not finite, or not of L2 norm 1 within NORM_TOLERANCE; the first such is named.
        """
        return _made_unit(self._raw(start, stop), start)

    def check(self, report: Callable[[int], None]) -> str:
        """Read all rows once; return the BLAKE2b (hex) of their bytes. `report` is told how many were read.

        Raises:
            TemplatesInvalid: the first bad row is named.
        """
        seen = hashlib.blake2b(digest_size=32)
        for start in range(0, self.count, _CHECKED_AT_ONCE):
            stop = min(start + _CHECKED_AT_ONCE, self.count)
            rows = self._raw(start, stop)
            seen.update(rows.data)
            _made_unit(rows, start)
            report(stop)
        return seen.hexdigest()

    def digest(self) -> str:
        """Return a SHA-256 (hex) of the shape and of up to 1,024 rows spread evenly: all would take minutes."""
        seen = hashlib.sha256(f"{self.count} {self.dimension}".encode())
        for row in np.unique(np.linspace(0, self.count - 1, _SAMPLED_ROWS).astype(np.int64)):
            seen.update(self._raw(int(row), int(row) + 1).tobytes())
        return seen.hexdigest()

    def _raw(self, start: int, stop: int) -> Embeddings:
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._start + start * self._row_bytes)
                values = np.fromfile(stream, _FLOAT32, (stop - start) * self.dimension)
        except OSError as error:
            raise TemplatesInvalid(f"the file of templates cannot be read any more: {error.strerror}") from error
        if len(values) != (stop - start) * self.dimension:
            raise TemplatesInvalid("the file of templates became shorter while it was read")
        return values.reshape(stop - start, self.dimension).astype(np.float32, copy=False)


def _made_unit(rows: Embeddings, start: int) -> Embeddings:
    """Return the rows, the first of which is row `start`, with those of nearly unit length made so, in place.

    Raises:
        TemplatesInvalid: as `TemplateFile.read`.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        # in float64: what is checked is the row, not the rounding of a sum of squares
        squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
        norms = np.sqrt(squares)
    wrong = ~(np.abs(norms - 1.0) <= NORM_TOLERANCE)  # NaN is wrong too
    if wrong.any():
        first = int(np.argmax(wrong))
        raise TemplatesInvalid(
            f"row {start + first} (the first is 0) is no template: its L2 norm is {norms[first]:.6g} instead of 1"
        )
    off = np.abs(norms - 1.0) > EXACT_NORM
    if off.any():
        rows[off] = rows[off] / norms[off, np.newaxis]
    return rows


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Raises ValueError."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError("an unknown version of the .npy format")


class MadeNames:
    """Names for templates that come without: a prefix and the number of the row, each row a person of its own."""

    def __init__(self, prefix: str) -> None:
        """Raises TemplatesInvalid: the prefix cannot begin an id."""
        if not _ID.fullmatch(prefix) or len(prefix) > MAX_PREFIX:
            raise TemplatesInvalid(
                f"the prefix may have up to {MAX_PREFIX} letters, digits and . _ : -, the first a letter or digit"
            )
        self._prefix = prefix

    def check(self, _count: int) -> str:
        """Return what tells these names from others."""
        return self._prefix

    def after(self, start: int) -> Iterator[ImportName]:
        """Yield the names of the rows from `start` on."""
        number = start
        while True:
            # of one length: in the order of the rows they are in the order of the database's indexes, which is faster
            name = f"{self._prefix}{number:09}"
            yield ImportName(name, name)
            number += 1


class NameFile:
    """A CSV file with a line for each row, in their order: `subject_id`, and if wanted the other ID_COLUMNS."""

    def __init__(self, path: Path, made: MadeNames) -> None:
        """`made` gives the encounters that the file does not name."""
        self._path = path
        self._made = made

    def check(self, count: int) -> str:
        """Read the whole file once; return the SHA-256 (hex) of its names.

        Raises:
            TemplatesInvalid: a line is wrong, an encounter is named twice, or there is not a line for each row.
        """
        seen = hashlib.sha256()
        encounters = array("q")  # hashes: the names of ten million would not fit into memory
        found = 0
        for name in self.after(0):
            found += 1
            encounters.append(hash(name.encounter_id))
            seen.update(f"{name.subject_id} {name.encounter_id} {name.captured_at}\n".encode())
        if found != count:
            raise TemplatesInvalid(f"{self._path.name} has {found:,} lines of names for {count:,} rows of templates")
        numbers = np.frombuffer(encounters, np.int64) if found else np.empty(0, np.int64)
        if len(np.unique(numbers)) != found:
            raise TemplatesInvalid(f"{self._path.name} names an encounter twice: each row is an encounter of its own")
        return seen.hexdigest()

    def after(self, start: int) -> Iterator[ImportName]:
        """Yield the names of the rows from `start` on. Raises TemplatesInvalid."""
        try:
            with self._path.open(newline="", encoding="utf-8-sig") as stream:
                reader = csv.reader(stream)
                columns = next(reader, [])
                self._check_columns(columns)
                made = self._made.after(start)
                lines = (cells for cells in reader if cells)
                for number, cells in enumerate(islice(lines, start, None), start=start):
                    yield self._name(number, columns, cells, next(made))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise TemplatesInvalid(f"{self._path.name} is no CSV file in UTF-8 that can be read") from error

    def _check_columns(self, columns: list[str]) -> None:
        unknown = [name for name in columns if name not in ID_COLUMNS]
        if "subject_id" not in columns or unknown or len(set(columns)) != len(columns):
            wrong = f"the unknown column `{unknown[0]}`" if unknown else "no column `subject_id`, or one twice"
            raise TemplatesInvalid(f"{self._path.name} has {wrong}; its first line names {', '.join(ID_COLUMNS)}")

    def _name(self, number: int, columns: list[str], cells: list[str], made: ImportName) -> ImportName:
        if len(cells) != len(columns):
            raise self._wrong(number, f"has {len(cells)} cells instead of {len(columns)}")
        row = dict(zip(columns, cells, strict=True))
        encounter_id = row.get("encounter_id") or made.encounter_id
        for value in (row["subject_id"], encounter_id):
            if not _ID.fullmatch(value):
                raise self._wrong(number, "has an id that is none: up to 128 letters, digits and . _ : -")
        return ImportName(row["subject_id"], encounter_id, self._moment(number, row.get("captured_at") or None))

    def _moment(self, number: int, value: str | None) -> datetime | None:
        if value is None:
            return None
        try:
            moment = datetime.fromisoformat(value.upper())
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            raise self._wrong(number, "has a captured_at that is no time, such as 2026-05-04T09:30:00Z") from None

    def _wrong(self, number: int, what: str) -> TemplatesInvalid:
        return TemplatesInvalid(f"the line of row {number} (the first is 0) in {self._path.name} {what}")


Names = MadeNames | NameFile
