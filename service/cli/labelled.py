"""Labelled photographs for the commands that measure: who is shown, and the templates of all of them."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.calibration import Calibration
from service.cli.failures import CommandFailed
from service.cli.show import console, plain, warn
from service.cli.sources import Item, read_source
from service.domain import Embedding, FacePolicy, Template
from service.errors import ImageFormatUnsupported, SampleRejected
from service.evaluation.photographs import FaceSet, Photograph, Refused, photograph_of
from service.face.extractor import Extractor
from service.face.image import ImageLimits
from service.face.model_packs import InstalledPack
from service.settings import Settings

_IMAGES = "images"  # sub-folder of a published data set


def read_faces(settings: Settings, pack: InstalledPack, source: Path, policy: FacePolicy) -> FaceSet:
    """Return the templates of all photographs, with a progress bar.

    Raises:
        CommandFailed: the photographs cannot be used.
        ModelPackError
    """
    return _extract(_extractor(pack, settings), _photographs(source), policy)


def stored_calibration(path: Path) -> Calibration | None:
    """Return the calibration in a file, None where there is none. Raises CommandFailed: it cannot be read."""
    try:
        return Calibration.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{path} cannot be read as a calibration", "pack_manifest_invalid") from error


def _photographs(source: Path) -> list[tuple[Path, Photograph]]:
    """Return the files to read and what is said of them.

    Raises:
        CommandFailed: nobody says whom they show, or a file or a name cannot be used.
    """
    folders = [path.name for path in source.iterdir() if path.is_dir()] if source.is_dir() else []
    is_published = [name for name in folders if not name.startswith(".")] == [_IMAGES]
    items = [item for group in read_source(source / _IMAGES if is_published else source) for item in group]
    known = [item for item in items if item.subject_id is not None]
    if not known:
        raise CommandFailed(
            "nothing says whom the photographs show",
            "people_unknown",
            advice="Put each person's photographs into a sub-folder, or name the people in a CSV column subject_id.",
        )
    if len(known) < len(items):
        warn([f"{len(items) - len(known)} files are left out: nothing says whom they show"])
    for item in known:
        _check(item)
    return [(item.path, _photograph(item)) for item in known]


def _check(item: Item) -> None:
    """Raises CommandFailed before the long work begins."""
    try:
        item.name.encode()
    except UnicodeEncodeError as error:
        raise CommandFailed(
            f"the name {plain(item.name)} is not UTF-8",
            "source_unreadable",
            advice="Rename it: two such names could be taken for one.",
        ) from error
    if "\0" in item.name or not item.path.is_file():
        raise CommandFailed(
            f"{plain(item.path)} is not there", "source_unreadable", advice="Paths are relative to the CSV file."
        )


def _photograph(item: Item) -> Photograph:
    try:
        return photograph_of(item.name, item.subject_id or "", dict(item.facts), dict(item.labels))
    except ValueError as error:
        raise CommandFailed(
            f"captured_at or birth_year of {plain(item.name)} cannot be read",
            "source_row",
            advice="captured_at is a date such as 2026-03-01, birth_year a number.",
        ) from error


def _extractor(pack: InstalledPack, settings: Settings) -> Extractor:
    limits = ImageLimits(
        max_bytes=settings.max_sample_bytes, max_pixels=settings.max_pixels, max_decode_s=settings.decode_timeout_s
    )

    def nobody(_phase: str, _seconds: float) -> None:
        """Observe nothing: there is no service whose metrics could show it."""

    return Extractor(pack, limits=limits, min_face_width_px=settings.min_face_width_px, observe=nobody)


def _extract(extractor: Extractor, photographs: Sequence[tuple[Path, Photograph]], policy: FacePolicy) -> FaceSet:
    """Make templates of all photographs, one on each core at a time, with a progress bar."""
    found: list[tuple[Photograph, Embedding]] = []
    refused: list[Refused] = []

    def extracted(path: Path) -> Template | str:
        try:
            return extractor.extract(path.read_bytes(), policy)
        except SampleRejected as error:
            return error.code
        except OSError as error:
            raise CommandFailed(f"{plain(path)} cannot be read: {error.strerror}", "source_unreadable") from error

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console()) as bar, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        task = bar.add_task("reading photographs", total=len(photographs))
        results = pool.map(extracted, [path for path, _ in photographs])
        for (_, photograph), result in zip(photographs, results, strict=True):
            if isinstance(result, str):
                refused.append(Refused(photograph, result))
            else:
                found.append((replace(photograph, unified=result.quality.unified), result.embedding))
            bar.advance(task)
    others = [each for each in refused if each.code == ImageFormatUnsupported.code]
    if others:
        warn([f"{len(others)} files are no photographs and count for nothing, such as {others[0].photograph.name}"])
    return FaceSet.of(found, [each for each in refused if each not in others])
