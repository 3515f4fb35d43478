"""The work of `biodedup calibrate`: reads labelled photographs, fits, and writes the calibration."""

from dataclasses import dataclass
from pathlib import Path

from service.calibration import Calibration, fmr_for_fpir
from service.calibration_fit import MatedScores, Source, calibrate, mated_scores
from service.cli.failures import CommandFailed
from service.cli.labelled import read_faces, stored_calibration
from service.cli.show import console, plain, score_text, table, warn
from service.decision import percent
from service.domain import FacePolicy
from service.face.extractor import template_model_id
from service.face.model_packs import installed_pack
from service.population import Population, population_of
from service.settings import Settings

_SHOWN_SIZES = (1_000, 10_000, 100_000, 1_000_000)


@dataclass(frozen=True, slots=True)
class Options:
    """The command line, checked."""

    source: Path
    pack_id: str
    population: str
    out: Path
    face_policy: FacePolicy


def run(settings: Settings, options: Options) -> None:
    """Fit, and write the calibration.

    Raises:
        CommandFailed: the photographs cannot be used, or the file cannot be written.
        ModelPackError
    """
    pack_id = options.pack_id
    installed = installed_pack(settings.models_dir, pack_id, accepted_licences=frozenset(settings.accepted_licences))
    faces = read_faces(settings, installed, options.source, options.face_policy)
    population = population_of(faces.embeddings, faces.people)
    # an older one may be of other templates, but it is only asked for mates where these people have none
    before = stored_calibration(settings.models_dir / pack_id / "calibration.json")
    made = Source(pack_id, template_model_id(installed), "photographs", options.population)
    mated = mated_scores(population, options.population) or _mated_of(before)
    calibration = _calibrate(made, population, mated)
    try:
        options.out.write_text(calibration.to_json(), encoding="utf-8")
    except OSError as error:
        raise CommandFailed(
            f"{options.out} cannot be written: {error.strerror}",
            "report_unwritable",
            advice="--out names another file.",
        ) from error
    show(calibration, before if before is not None and before.model_id == calibration.model_id else None)
    console().print(f"Written: {plain(options.out)}. It changes nothing yet; see `biodedup calibrations --help`.")


def _mated_of(before: Calibration | None) -> MatedScores:
    """Raises CommandFailed."""
    if before is None:
        raise CommandFailed(
            "too few of these people have two photographs, and the pack has no calibration to take misses from",
            "people_too_few",
            advice="Give 50 people or more a second photograph.",
        )
    return MatedScores.of(before)


def _calibrate(source: Source, population: Population, mated: MatedScores) -> Calibration:
    try:
        with console().status("calibrating") as status:
            return calibrate(source, population, mated, step=status.update)
    except ValueError as error:
        raise CommandFailed(
            str(error), "people_too_few", advice="Each sub-folder is one person; see biodedup calibrate --help."
        ) from error


def show(calibration: Calibration, before: Calibration | None) -> None:
    """Print what a calibration asks for in galleries of several sizes, beside the one before."""
    rows = [_row(calibration, size) + ([] if before is None else _row(before, size)[1:]) for size in _SHOWN_SIZES]
    names = ["gallery size", "review from score", "expected misses"]
    if before is not None:
        names += ["the pack's own", "its expected misses"]
    console().print(table("Review thresholds for false alarms of 1 % of new people", names, rows))
    console().print(
        f"{plain(calibration.calibration_id)}: {calibration.people:,} people, {calibration.comparisons:,} pairs, "
        f"measured to a score of {score_text(calibration.measured_to)}, beyond by extreme value theory."
    )
    if calibration.found_mates >= 1:
        warn(
            [
                f"about {calibration.found_mates:,.0f} pairs of people look like one person under two names. "
                "The fit left them out; `biodedup evaluate` lists them."
            ]
        )


def _row(calibration: Calibration, size: int) -> list[str]:
    threshold = calibration.threshold(fmr_for_fpir(0.01, size))
    low, high = calibration.expected_fnir_interval(threshold)
    shown = f"{percent(calibration.expected_fnir(threshold))} ({percent(low)} to {percent(high)})"
    return [f"{size:,}", score_text(threshold), shown]
