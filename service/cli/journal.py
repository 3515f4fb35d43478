"""What became of each file of a bulk enrolment, kept on disk so that a stopped run goes on where it stopped."""

import csv
import hashlib
import json
import os
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from service.cli.client import Json
from service.cli.failures import CommandFailed
from service.spreadsheets import cell

ENROLLED, FLAGGED, REJECTED, FAILED = "enrolled", "flagged", "rejected", "failed"
RESULTS = (ENROLLED, FLAGGED, REJECTED, FAILED)


@dataclass(frozen=True, slots=True)
class FileResult:
    """One line of the report. `failed` is not final: the next run tries that file again."""

    path: str
    result: str
    outcome: str = ""
    code: str = ""
    subject_id: str = ""
    encounter_id: str = ""
    enrolment_id: str = ""
    candidate_subject_id: str = ""
    score: float | None = None
    threshold: float | None = None
    false_match_rate: float | None = None
    message: str = ""
    candidate_gallery_id: str = ""  # where it is another gallery than the one that was enrolled into

    @classmethod
    def of_enrolment(cls, path: str, answer: Json) -> "FileResult":
        """Return the line for an answer of the service (EnrolmentOut)."""
        best = answer["candidates"][0] if answer["candidates"] else {}
        continuity = answer["continuity"]
        broken = continuity is not None and not continuity["passed"]
        thresholds = answer["thresholds"]
        return cls(
            path=path,
            result=ENROLLED if answer["outcome"] == "UNIQUE" else FLAGGED,
            outcome=answer["outcome"],
            subject_id=answer["subject_id"],
            encounter_id=answer["encounter_id"],
            enrolment_id=answer["enrolment_id"],
            candidate_subject_id=best.get("subject_id") or "",
            score=best["score"] if best else (continuity["score"] if broken else None),
            threshold=(thresholds["review"] if thresholds else None) if best or not broken else continuity["threshold"],
            false_match_rate=best.get("fmr"),
            message="does not look like the earlier photographs of this subject" if broken else "",
            candidate_gallery_id=best.get("gallery_id") or "",
        )


class Journal:
    """A file of JSON lines, one an answered photograph. Several threads may record."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self.path = path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # most often the var folder
            # it names people's files: for the owner only
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            self._known = dict(_read_lines(path))
            # a killed run may have left half a line: the next one must not be glued to it
            os.write(self._descriptor, b"\n")
        except OSError as error:
            raise CommandFailed(
                f"the journal {path} cannot be written: {error.strerror}",
                "journal_unwritable",
                advice="Name another file with --journal.",
            ) from error

    def known(self, key: str) -> FileResult | None:
        return self._known.get(key)

    def record(self, key: str, result: FileResult) -> None:
        """Write a final result to the disk. A repeat after a crash before this line gets the service's first answer."""
        line = json.dumps({"key": key} | asdict(result)) + "\n"
        with self._lock:
            self._known[key] = result
            os.write(self._descriptor, line.encode())

    def close(self) -> None:
        os.close(self._descriptor)


def journal_path(folder: Path, source: Path, gallery: Json) -> Path:
    """Return the journal of a source and a gallery; a gallery that was made anew gets another one."""
    parts = "\n".join([str(source.resolve()), gallery["gallery_id"], gallery["created_at"]])
    return folder / f"enrol-{hashlib.sha256(parts.encode()).hexdigest()[:16]}.jsonl"


def write_report(file: Path, results: Iterable[FileResult]) -> None:
    """Write the results as a CSV file that any spreadsheet opens."""
    try:
        with file.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
            writer = csv.DictWriter(stream, [field.name for field in fields(FileResult)])
            writer.writeheader()
            writer.writerows(_row(result) for result in results)
    except OSError as error:
        raise CommandFailed(f"the report {file} cannot be written: {error.strerror}", "report_unwritable") from error


def _row(result: FileResult) -> dict[str, object]:
    # names of files and folders come from whoever handed them over
    return {name: cell(value) if isinstance(value, str) else value for name, value in asdict(result).items()}


def _read_lines(path: Path) -> Iterable[tuple[str, FileResult]]:
    for line in path.read_bytes().splitlines():
        try:
            entry = json.loads(line)
            yield entry.pop("key"), FileResult(**entry)
        except (ValueError, TypeError, KeyError, AttributeError):
            continue  # a line that a killed run left half written: that file is sent again
