"""The work of `biodedup evaluate`: reads labelled photographs, measures, and writes the report."""

import csv
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.calibration import Calibration
from service.cli.failures import CommandFailed
from service.cli.show import console, plain, warn
from service.cli.sources import Item, read_source
from service.domain import Embedding, FacePolicy
from service.errors import ImageFormatUnsupported, SampleRejected
from service.evaluation.evaluation import FEWEST_PEOPLE, Evaluation
from service.evaluation.evaluation import evaluate as evaluate_faces
from service.evaluation.figures import to_csv
from service.evaluation.photographs import FaceSet, Photograph, Refused, photograph_of
from service.evaluation.report import DOUBTFUL_FILE, FIGURES_FILE, REPORT_FILE, About, render, summary
from service.face.extractor import Extractor, template_model_id
from service.face.image import ImageLimits
from service.face.model_packs import InstalledPack, installed_pack
from service.settings import Settings

_IMAGES = "images"  # sub-folder of a published data set


@dataclass(frozen=True, slots=True)
class Options:
    """The command line, checked."""

    source: Path
    pack_id: str
    out: Path
    face_policy: FacePolicy
    seed: int


def run(settings: Settings, options: Options) -> None:
    """Measure, and write the report.

    Raises:
        CommandFailed: the photographs cannot be used, or the report cannot be written.
        ModelPackError
    """
    pack_id = options.pack_id
    photographs = _photographs(options.source)
    installed = installed_pack(settings.models_dir, pack_id, accepted_licences=frozenset(settings.accepted_licences))
    calibration = _calibration(settings.models_dir / pack_id / "calibration.json")
    faces = _extract(_extractor(installed, settings), photographs, options.face_policy)
    evaluation = _measure(faces, calibration, options.seed)
    about = About(
        pack_id=pack_id,
        model_id=template_model_id(installed),
        population=calibration.population if calibration is not None else None,
        source=options.source.resolve().name,
        day=datetime.now(UTC).strftime("%d %B %Y"),
        version=version("biodedup"),
        face_policy=options.face_policy.value,
        seed=options.seed,
    )
    _write(options.out, evaluation, render(evaluation, faces, about))


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


def _calibration(path: Path) -> Calibration | None:
    """Return the pack's calibration, None where it has none; one that cannot be read is an error of its own."""
    try:
        return Calibration.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandFailed(f"{path} cannot be read as a calibration", "pack_manifest_invalid") from error


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

    def extracted(path: Path) -> Embedding | str:
        try:
            return extractor.extract(path.read_bytes(), policy).embedding
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
                found.append((photograph, result))
            bar.advance(task)
    others = [each for each in refused if each.code == ImageFormatUnsupported.code]
    if others:
        warn([f"{len(others)} files are no photographs and count for nothing, such as {others[0].photograph.name}"])
    return FaceSet.of(found, [each for each in refused if each not in others])


def _measure(faces: FaceSet, calibration: Calibration | None, seed: int) -> Evaluation:
    people = len(set(faces.people))
    if people < FEWEST_PEOPLE:
        raise CommandFailed(
            f"{people} people have a usable photograph, {FEWEST_PEOPLE} are needed",
            "people_too_few",
            advice="Each sub-folder is one person; --face-policy central takes photographs with several faces too.",
        )
    with console().status("measuring") as status:
        return evaluate_faces(faces, calibration, status.update, seed)


def _write(out: Path, evaluation: Evaluation, page: str) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / REPORT_FILE).write_text(page, encoding="utf-8")
        (out / FIGURES_FILE).write_text(to_csv(evaluation.figures), encoding="utf-8")
        with (out / DOUBTFUL_FILE).open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["first", "second", "score", "one_person_by_label"])
            writer.writerows(
                [each.first, each.second, f"{each.score:.4f}", each.mated] for each in evaluation.doubts.listed
            )
    except OSError as error:
        raise CommandFailed(
            f"{out} cannot be written: {error.strerror}", "report_unwritable", advice="--out names another folder."
        ) from error
    say = console().print
    for line in summary(evaluation):
        say(plain(line))
    say(f"Written: {plain(out / REPORT_FILE)} (open it in a browser), {FIGURES_FILE}, {DOUBTFUL_FILE}")
