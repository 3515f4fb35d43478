"""`biodedup calibrate`: what the scores of a model mean for an operation's own people."""

import os
from pathlib import Path
from typing import Annotated

import typer

from service.cli.evaluate import PackOption, PolicyOption
from service.settings import load_settings

SourceArgument = Annotated[
    Path, typer.Argument(metavar="DIR-or-CSV", help="A folder or a CSV file.", exists=True, show_default=False)
]
PopulationOption = Annotated[
    str, typer.Option("--population", help="Who the people are, in plain words: every answer says it.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="File to write. Default: calibration-PACK.json.", dir_okay=False)
]


def calibrate(
    source: SourceArgument,
    *,
    population: PopulationOption,
    pack: PackOption = None,
    out: OutOption = None,
    face_policy: PolicyOption = None,
) -> None:
    """Learn from labelled photographs how rarely different people score high, and write it as a calibration.

    Every threshold follows from a calibration: it turns a score into a rate of false matches. The one that comes with a
    pack was made of other people than yours. Photographs are given as for `biodedup evaluate`: a sub-folder a person,
    or a CSV file with the columns path and subject_id. At least 100 people, better 1,000 or more; how much may be
    missed is measured too where 50 of them have several photographs, else it is taken from the pack.

    A few wrong labels do no harm: pairs that look like one person are told apart by the fit, and counted. The file
    changes nothing by itself: `biodedup calibrations add GALLERY FILE` and `use` put it to work. Without labelled
    photographs, `biodedup calibrations make GALLERY` learns from the templates of a gallery.

    Example: biodedup calibrate photographs/ --population "adults registered in the north, 2026"

    Exit codes: 0 written, 1 too few people or no model pack, 2 wrong usage.
    """
    from service.cli.calibrating import Options, run  # noqa: PLC0415  (imports onnxruntime: two seconds)

    settings = load_settings(os.environ)
    pack_id = pack or settings.pack
    run(
        settings,
        Options(
            source=source,
            pack_id=pack_id,
            population=population,
            out=out or Path(f"calibration-{pack_id}.json"),
            face_policy=face_policy or settings.face_policy,
        ),
    )
