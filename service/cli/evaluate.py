"""`biodedup evaluate`: how well a model pack tells an operation's own people apart."""

import os
from pathlib import Path
from typing import Annotated

import typer

from service.domain import FacePolicy
from service.settings import load_settings

SourceArgument = Annotated[
    Path, typer.Argument(metavar="DIR-or-CSV", help="A folder or a CSV file.", exists=True, show_default=False)
]
PackOption = Annotated[str | None, typer.Option("--pack", help="Model pack. Default: BIODEDUP_PACK.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder for the report, made if need be.", file_okay=False)]
PolicyOption = Annotated[
    FacePolicy | None,
    typer.Option("--face-policy", help="Who is meant where several faces are seen. Default: BIODEDUP_FACE_POLICY."),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Another seed, other divisions of the people.")]


def evaluate(
    source: SourceArgument,
    *,
    pack: PackOption = None,
    out: OutOption = Path("evaluation"),
    face_policy: PolicyOption = None,
    seed: SeedOption = 0,
) -> None:
    """Measure the error rates of a model pack on labelled photographs, and write a report to read in a browser.

    A folder: each sub-folder is a person, each file in it a photograph. A CSV file: the columns path (relative to the
    file) and subject_id, and what else is known: captured_at, birth_year, sex, site, and label.NAME for anything. The
    report compares the groups that these make.

    At least 20 people, better hundreds, most with two photographs or more. Nothing is enrolled, sent or kept but the
    report: report.html, figures.csv (every rate with its interval) and doubtful_pairs.csv (labels that may be wrong;
    it names files). No service needs to run. It takes some 20 ms a photograph and core, and a minute
    more for some thousand people; that minute grows with their square.

    Example: biodedup evaluate photographs/ --out evaluation

    Exit codes: 0 written, 1 too few people or no model pack, 2 wrong usage.
    """
    from service.cli.evaluating import Options, run  # noqa: PLC0415  (imports onnxruntime and matplotlib: two seconds)

    settings = load_settings(os.environ)
    run(settings, Options(source, pack or settings.pack, out, face_policy or settings.face_policy, seed))
