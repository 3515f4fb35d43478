"""The work of `biodedup evaluate`: reads labelled photographs, measures, and writes the report."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from service.calibration import Calibration
from service.cli.failures import CommandFailed
from service.cli.labelled import read_faces, stored_calibration
from service.cli.show import console, plain, warn
from service.domain import FacePolicy
from service.evaluation.doubtful import DoubtfulPair
from service.evaluation.evaluation import FEWEST_PEOPLE, Evaluation
from service.evaluation.evaluation import evaluate as evaluate_faces
from service.evaluation.figures import to_csv
from service.evaluation.photographs import FaceSet
from service.evaluation.report import DOUBTFUL_FILE, FIGURES_FILE, REPORT_FILE, About, render, summary, warnings
from service.face.extractor import template_model_id
from service.face.model_packs import installed_pack
from service.settings import Settings
from service.spreadsheets import cell


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
    installed = installed_pack(settings.models_dir, pack_id, accepted_licences=frozenset(settings.accepted_licences))
    calibration = stored_calibration(settings.models_dir / pack_id / "calibration.json")
    faces = read_faces(settings, installed, options.source, options.face_policy)
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


def write_doubtful(file: Path, pairs: Iterable[DoubtfulPair]) -> None:
    """Write a line for each pair. Raises OSError."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["first", "second", "score", "one_person_by_label"])
        writer.writerows([cell(each.first), cell(each.second), f"{each.score:.4f}", each.mated] for each in pairs)


def _write(out: Path, evaluation: Evaluation, page: str) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / REPORT_FILE).write_text(page, encoding="utf-8")
        (out / FIGURES_FILE).write_text(to_csv(evaluation.figures), encoding="utf-8")
        write_doubtful(out / DOUBTFUL_FILE, evaluation.doubts.listed)
    except OSError as error:
        raise CommandFailed(
            f"{out} cannot be written: {error.strerror}", "report_unwritable", advice="--out names another folder."
        ) from error
    say = console().print
    for line in summary(evaluation):
        say(plain(line))
    warn(warnings(evaluation))
    say(f"Written: {plain(out / REPORT_FILE)} (open it in a browser), {FIGURES_FILE}, {DOUBTFUL_FILE}")
