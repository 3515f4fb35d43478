"""`biodedup gallery` and `biodedup stats`: what the galleries hold and how strict they are."""

from typing import Annotated

import typer

from service.cli.client import DEFAULT_URL, GalleryArgument, Json, ServiceClient, UrlOption, gallery_path
from service.cli.show import console, one_in, plain, score_text, table, warn
from service.cli.sweeps import sweep_gallery
from service.decision import percent
from service.domain import QualityGate

ReviewOption = Annotated[
    float | None,
    typer.Option("--review-fpir", min=1e-6, max=0.5, help="Share of new people that may be flagged by mistake."),
]
DuplicateOption = Annotated[
    float | None, typer.Option("--duplicate-fpir", min=1e-6, max=0.5, help="The same for the outcome DUPLICATE.")
]
VerificationOption = Annotated[
    float | None,
    typer.Option("--verification-fmr", min=1e-6, max=0.1, help="Share of wrong pairs that 1:1 comparisons may accept."),
]
KeepOption = Annotated[
    bool | None, typer.Option("--keep-samples/--no-keep-samples", help="Whether the photographs themselves are kept.")
]
GateOption = Annotated[
    QualityGate | None,
    typer.Option("--quality-gate", help="Which samples an enrolment refuses for their quality (docs/quality.md)."),
]

SexFilterOption = Annotated[
    bool | None, typer.Option("--filter-by-sex/--no-filter-by-sex", help="Lower threshold among one recorded sex.")
]
YearFilterOption = Annotated[
    bool | None,
    typer.Option(
        "--filter-by-birth-year/--no-filter-by-birth-year", help="Lower threshold among people born in similar years."
    ),
]
ToleranceOption = Annotated[
    int | None,
    typer.Option("--birth-year-tolerance", min=0, max=50, help="Years that two years of birth may lie apart."),
]
AgeOption = Annotated[
    int | None, typer.Option("--min-duplicate-age", min=0, max=120, help="Age below which nothing is DUPLICATE.")
]
UnknownAgeOption = Annotated[
    bool | None,
    typer.Option("--review-unknown-age/--no-review-unknown-age", help="Whether unknown ages count as younger."),
]

gallery_commands = typer.Typer(
    no_args_is_help=True,
    help="List, show, make and set galleries.\n\nExample: biodedup gallery show default\n\n"
    "Exit codes: 0 done, 1 refused by the service or no service, 2 wrong usage.",
)


@gallery_commands.command("list")
def list_galleries(url: UrlOption = DEFAULT_URL) -> None:
    """List the galleries of the service.

    Example: biodedup gallery list

    Exit codes: 0 done, 1 no service answers, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        items = client.get("/v1/galleries")["items"]
    rows = [
        [
            plain(item["gallery_id"]),
            plain(item["pack_id"]),
            f"{item['counts']['subjects']:,}",
            f"{item['counts']['templates']:,}",
            f"{item['counts']['open_cases']:,}",
        ]
        for item in items
    ]
    console().print(table("Galleries", ["gallery", "model pack", "subjects", "templates", "open cases"], rows))


@gallery_commands.command("show")
def show_gallery(gallery: GalleryArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Show what a gallery holds, its thresholds and what they are expected to miss.

    Example: biodedup gallery show default

    Exit codes: 0 done, 1 no such gallery or no service, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        print_gallery(client.get(gallery_path(gallery)))


@gallery_commands.command("create")
def create_gallery(
    gallery: GalleryArgument,
    *,
    pack: Annotated[str | None, typer.Option("--pack", help="Model pack; `models migrate` changes it later.")] = None,
    review_fpir: ReviewOption = None,
    duplicate_fpir: DuplicateOption = None,
    verification_fmr: VerificationOption = None,
    keep_samples: KeepOption = None,
    quality_gate: GateOption = None,
    filter_by_sex: SexFilterOption = None,
    filter_by_birth_year: YearFilterOption = None,
    birth_year_tolerance: ToleranceOption = None,
    min_duplicate_age: AgeOption = None,
    review_unknown_age: UnknownAgeOption = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Make a gallery. What is not given comes from the settings of the service.

    Example: biodedup gallery create camp-north --review-fpir 0.02

    Exit codes: 0 made, 1 refused (the name is taken, the pack is not loaded) or no service, 2 wrong usage.
    """
    rates = _rates(review_fpir, duplicate_fpir, verification_fmr)
    body: Json = (
        {"pack_id": pack}
        | rates
        | _rules(quality_gate, keep_samples=keep_samples)
        | {
            "filter_by_sex": filter_by_sex,
            "filter_by_birth_year": filter_by_birth_year,
            "birth_year_tolerance": birth_year_tolerance,
            "min_duplicate_age": min_duplicate_age,
            "review_unknown_age": review_unknown_age,
        }
    )
    wanted = {"gallery_id": gallery} | {name: value for name, value in body.items() if value is not None}
    with ServiceClient(url) as client:
        print_gallery(client.post_json("/v1/galleries", wanted))


@gallery_commands.command("set")
def set_gallery(
    gallery: GalleryArgument,
    *,
    review_fpir: ReviewOption = None,
    duplicate_fpir: DuplicateOption = None,
    verification_fmr: VerificationOption = None,
    keep_samples: KeepOption = None,
    quality_gate: GateOption = None,
    filter_by_sex: SexFilterOption = None,
    filter_by_birth_year: YearFilterOption = None,
    birth_year_tolerance: ToleranceOption = None,
    min_duplicate_age: AgeOption = None,
    review_unknown_age: UnknownAgeOption = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Set the error rates of a gallery, or what it keeps and refuses. Earlier answers stay as they were given.

    Example: biodedup gallery set default --review-fpir 0.05

    Exit codes: 0 set, 1 refused by the service or no service, 2 wrong usage.
    """
    rates = _rates(review_fpir, duplicate_fpir, verification_fmr)
    body: Json = (
        rates
        | _rules(quality_gate, keep_samples=keep_samples)
        | {
            "filter_by_sex": filter_by_sex,
            "filter_by_birth_year": filter_by_birth_year,
            "birth_year_tolerance": birth_year_tolerance,
            "min_duplicate_age": min_duplicate_age,
            "review_unknown_age": review_unknown_age,
        }
    )
    wanted = {name: value for name, value in body.items() if value is not None}
    if not wanted:
        raise typer.BadParameter("nothing to set: give at least one option")
    with ServiceClient(url) as client:
        print_gallery(client.patch_json(gallery_path(gallery), wanted))


gallery_commands.command("sweep")(sweep_gallery)


def stats(url: UrlOption = DEFAULT_URL) -> None:
    """Show what the service holds: templates, outcomes, thresholds, expected misses, and whether the index is in step.

    Example: biodedup stats

    Exit codes: 0 done, 1 no service answers, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        ready = client.get("/readyz", accept=(200, 503))
        items = client.get("/v1/galleries")["items"]
    out = console()
    out.print(f"The service at {plain(url)} is {plain(str(ready['status']).replace('_', ' '))}.")
    steps = {entry["gallery_id"]: entry for entry in ready["galleries"]}
    for item in items:
        print_gallery(item, steps.get(item["gallery_id"]))
    warn(ready["warnings"])


_GATES = {
    "off": "none",
    "standard": "poor photographs where something can be done about it (standard)",
    "strict": "all that are likely to be missed later (strict)",
}


def print_gallery(gallery: Json, step: Json | None = None) -> None:
    """Print a gallery as two columns; `step` is its entry of `/readyz`."""
    counts, thresholds = gallery["counts"], gallery["thresholds"]
    outcomes = ", ".join(f"{name} {number:,}" for name, number in counts["outcomes"].items()) or "none yet"
    rows = [
        ["model pack", plain(gallery["pack_id"])],
        ["subjects", f"{counts['subjects']:,}"],
        ["encounters", f"{counts['encounters']:,} ({counts['biometric_exceptions']:,} without a usable face)"],
        ["templates searched", f"{counts['templates']:,}"],
        ["outcomes", plain(outcomes)],
        ["open cases", f"{counts['open_cases']:,}"],
        ["review from score", _threshold(thresholds["review"], thresholds["review_fpir"], thresholds["review_fmr"])],
        [
            "duplicate from score",
            _threshold(thresholds["duplicate"], thresholds["duplicate_fpir"], thresholds["duplicate_fmr"]),
        ],
        ["expected misses", _misses(thresholds)],
        ["1:1 comparisons", f"accept {one_in(gallery['verification_fmr'])} wrong pairs"],
        ["photographs kept", "yes" if gallery["keep_samples"] else "no"],
        ["refused for quality", _GATES[gallery["quality_gate"]]],
        ["filter", _filter(gallery)],
        ["wrong metadata", _wrong_metadata(gallery["metadata"])],
        ["DUPLICATE only from", _least_age(gallery)],
    ]
    if gallery["standby_pack_id"] is not None:
        rows.insert(1, ["changes its model", _model_change(gallery)])
    if gallery["legal_hold"] is not None or gallery["held_subjects"]:
        rows.append(["legal hold", _holds(gallery)])
    if step is not None:
        rows.append(["index", _step(step)])
    console().print(table(f"Gallery {plain(gallery['gallery_id'])}", ["what", "now"], rows))
    warn(gallery["warnings"])


def _rates(review_fpir: float | None, duplicate_fpir: float | None, verification_fmr: float | None) -> Json:
    return {"review_fpir": review_fpir, "duplicate_fpir": duplicate_fpir, "verification_fmr": verification_fmr}


def _rules(quality_gate: QualityGate | None, *, keep_samples: bool | None) -> Json:
    return {"keep_samples": keep_samples, "quality_gate": quality_gate.value if quality_gate is not None else None}


def _model_change(gallery: Json) -> str:
    alone = gallery["counts"]["standby_only_templates"]
    return (
        f"{plain(gallery['pack_id'])} rules, {plain(gallery['standby_pack_id'])} stands by; {alone:,} templates that "
        "only the latter has are searched too (biodedup models migrate status)"
    )


def _holds(gallery: Json) -> str:
    held = gallery["legal_hold"]
    whole = "" if held is None else f"[red]the whole gallery since {plain(held['set_at'])}[/red]; "
    return f"{whole}{gallery['held_subjects']:,} subjects of their own"


def _filter(gallery: Json) -> str:
    by = ["sex"] if gallery["filter_by_sex"] else []
    if gallery["filter_by_birth_year"]:
        by.append(f"year of birth, {gallery['birth_year_tolerance']} years apart at most")
    return "a lower threshold by " + " and ".join(by) if by else "off"


def _wrong_metadata(metadata: Json) -> str:
    if not metadata["people"]:
        return "not known: of nobody sex or year of birth was recorded at two encounters"
    interval = f"{percent(metadata['share_lower'])} to {percent(metadata['share_upper'])}"
    return f"{percent(metadata['share'])} of {metadata['people']:,} people seen again ({interval})"


def _least_age(gallery: Json) -> str:
    unknown = "at most REVIEW" if gallery["review_unknown_age"] else "as if older"
    return f"age {gallery['min_duplicate_age']}; unknown age: {unknown}"


def _threshold(score: float | None, fpir: float, fmr: float) -> str:
    if score is None:
        return f"never: no score is sure enough for {percent(fpir)} false alarms"
    return f"{score_text(score)} ({percent(fpir)} false alarms; {one_in(fmr)} pairs of different people)"


def _misses(thresholds: Json) -> str:
    share = percent(thresholds["expected_fnir"])
    return f"{share} of duplicates, measured on {plain(thresholds['expected_fnir_population'])}"


def _step(step: Json) -> str:
    if step["in_step"]:
        return f"in step with the record (change {step['last_seq']:,})"
    return (
        f"[red]behind the record[/red]: change {step['high_water_mark']:,} of {step['last_seq']:,}, "
        f"{step['index_templates']:,} of {step['record_templates']:,} templates"
    )
