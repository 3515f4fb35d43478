"""What a folder or a CSV file asks to enrol: one item a photograph, in an order that keeps a person's own order."""

import csv
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.cli.failures import CommandFailed

COLUMNS = ("path", "subject_id", "encounter_id", "captured_at", "site", "operator_ref", "birth_year", "sex")
"""Columns of a CSV file; only `path` is needed. `label.NAME` columns become labels."""

LABEL_PREFIX = "label."
_STEM_LENGTH = 80  # of at most 128 characters of an encounter id


@dataclass(frozen=True, slots=True)
class Item:
    """One photograph and what is said of it."""

    path: Path
    name: str  # as the source calls it: relative path, with slashes; the same on every machine
    subject_id: str | None
    encounter_id: str | None
    facts: tuple[tuple[str, str], ...]  # form fields of the API, as texts
    labels: tuple[tuple[str, str], ...]

    def key(self, content: bytes) -> str:
        """Return what makes this item the same item in another run: where it is, whose it is, and its bytes."""
        parts = [self.name, self.subject_id or "", hashlib.sha256(content).hexdigest()]
        return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()

    def chosen_encounter_id(self, content: bytes) -> str:
        """Return the caller's encounter id, or one made from `key`: sent again, it is the same encounter."""
        if self.encounter_id is not None:
            return self.encounter_id
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", self.path.stem).strip("-._")[:_STEM_LENGTH] or "file"
        return f"{stem}-{self.key(content)[:16]}"


def read_source(source: Path) -> list[list[Item]]:
    """Return the items of a folder or a CSV file, in groups; a group is one subject and must be sent in order.

    Raises:
        CommandFailed: there is nothing to enrol, or the CSV file does not have the documented form.
    """
    items = _read_folder(source) if source.is_dir() else _read_csv(source)
    if not items:
        raise CommandFailed(
            f"{source} holds nothing to enrol", "source_empty", advice="`biodedup enrol --help` shows the two forms."
        )
    groups: dict[object, list[Item]] = {}
    for number, item in enumerate(items):
        groups.setdefault(item.subject_id if item.subject_id is not None else number, []).append(item)
    return list(groups.values())


def _read_folder(folder: Path) -> list[Item]:
    """Return the files of a folder: a sub-folder is a subject, a file beside them is a subject of its own."""
    items = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") for part in parts):
            # a name that is no UTF-8 becomes one that the service refuses with a word
            subject_id = parts[0].encode(errors="replace").decode() if len(parts) > 1 else None
            items.append(Item(path, "/".join(parts), subject_id, None, (), ()))
    return items


def _read_csv(file: Path) -> list[Item]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            _check_columns(file, reader.fieldnames or [])
            return [_row_item(file, number, row) for number, row in enumerate(reader, start=2)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise CommandFailed(f"{file} is no CSV file in UTF-8", "source_unreadable") from error


def _check_columns(file: Path, columns: Sequence[str]) -> None:
    unknown = [name for name in columns if name not in COLUMNS and not name.startswith(LABEL_PREFIX)]
    if "path" not in columns or unknown:
        wrong = "has no column `path`" if "path" not in columns else f"has the unknown column `{unknown[0]}`"
        raise CommandFailed(
            f"{file} {wrong}",
            "source_columns",
            advice=f"Known columns: {', '.join(COLUMNS)}, and {LABEL_PREFIX}NAME for labels.",
        )


def _row_item(file: Path, number: int, row: dict[str, str | None]) -> Item:
    # DictReader puts surplus cells under None, and fills missing ones with None
    if any(name is None for name in row) or not (row["path"] or "").strip():
        raise CommandFailed(f"line {number} of {file} has surplus cells or no path", "source_row")
    cells = {name: (value or "").strip() for name, value in row.items()}
    facts = tuple((name, cells[name]) for name in COLUMNS[3:] if cells.get(name))
    labels = tuple(
        (name.removeprefix(LABEL_PREFIX), value)
        for name, value in sorted(cells.items())
        if name.startswith(LABEL_PREFIX) and value
    )
    return Item(
        path=file.parent / cells["path"],
        name=cells["path"].replace("\\", "/"),
        subject_id=cells.get("subject_id") or None,
        encounter_id=cells.get("encounter_id") or None,
        facts=facts,
        labels=labels,
    )
