"""`biodedup identify` and `biodedup verify`: one photograph, one answer in plain words."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.agreements import search_as_partner
from service.cli.client import (
    DEFAULT_URL,
    GalleryOption,
    Json,
    SampleFile,
    ServiceClient,
    UrlOption,
    gallery_path,
)
from service.cli.show import candidates_table, chance, console, one_in, plain, score_text, warn
from service.decision import percent

SecondFile = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE2]", help="A second photograph.", exists=True, dir_okay=False, show_default=False),
]
SubjectOption = Annotated[str | None, typer.Option("--subject", "-s", help="Compare with this enrolled subject.")]
FmrOption = Annotated[
    float | None,
    typer.Option("--verification-fmr", min=1e-6, max=0.1, help="Share of pairs of different people to accept."),
]


SexOption = Annotated[str | None, typer.Option("--sex", help="Of the person: a gallery that filters goes by it.")]
YearOption = Annotated[
    int | None, typer.Option("--birth-year", min=1900, max=2100, help="Of the person, for filters and ages.")
]


AgreementOption = Annotated[
    str | None, typer.Option("--agreement", help="Search the gallery of this sharing agreement instead.")
]


def identify(
    sample: SampleFile,
    *,
    gallery: GalleryOption = "default",
    sex: SexOption = None,
    birth_year: YearOption = None,
    agreement: AgreementOption = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Who is this? Search a gallery for the face in FILE. It enrols nobody.

    Example: biodedup identify visitor.jpg --gallery default

    Example: biodedup identify visitor.jpg -g camp-north --sex female --birth-year 1990

    With --agreement the gallery of a partner agency is searched, and the answer is what the agreement lets be told.

    Example: biodedup identify visitor.jpg --agreement 0123456789abcdef0123456789abcdef

    Exit codes: 0 the search was answered (found or not), 1 it was not (no usable face, no service), 2 wrong usage.
    """
    fields = {} if sex is None else {"sex": sex}
    fields |= {} if birth_year is None else {"birth_year": str(birth_year)}
    path = gallery_path(gallery, "identifications")
    with ServiceClient(url) as client:
        if agreement is not None:
            search_as_partner(client, agreement, sample, fields)
            return
        answer = client.post_samples(path, [("sample", sample.read_bytes())], fields)
    out, candidates, searched = console(), answer["candidates"], answer["searched"]
    if candidates:
        out.print(candidates_table(candidates, answer["thresholds"]))
    out.print(_found_sentence(candidates, answer["thresholds"], int(searched["gallery_size"])))
    out.print(_quality_sentence(answer))
    if not searched["complete"]:
        warn(["not everything could be searched: this answer does not say that the person is unknown"])
    warn(answer["warnings"])


def verify(
    sample: SampleFile,
    sample_2: SecondFile = None,
    *,
    subject: SubjectOption = None,
    gallery: GalleryOption = "default",
    verification_fmr: FmrOption = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Is this the person? Compare FILE with an enrolled subject (--subject) or with a second photograph (FILE2).

    Example: biodedup verify visitor.jpg --subject REG-0042

    Example: biodedup verify visitor.jpg passport.jpg

    Exit codes: 0 compared (match or not), 1 not compared (no usable face, no service), 2 wrong usage.
    """
    if (sample_2 is None) == (subject is None):
        raise typer.BadParameter("give either --subject ID or a second photograph FILE2")
    files = [("sample", sample.read_bytes())]
    fields = {} if verification_fmr is None else {"verification_fmr": repr(verification_fmr)}
    if sample_2 is not None:
        files.append(("reference_sample", sample_2.read_bytes()))
    else:
        fields["subject_id"] = str(subject)
    with ServiceClient(url) as client:
        answer = client.post_samples(gallery_path(gallery, "verifications"), files, fields)
    other = f"subject {subject}" if sample_2 is None else "the second photograph"
    console().print(_verified_sentence(answer, plain(other)))
    console().print(_quality_sentence(answer))


def _quality_sentence(answer: Json) -> str:
    unified = answer["quality"]["unified"]
    score = "not judged" if unified is None else f"{unified} of 100 (50 is usual)"
    better = "; ".join(plain(each["words"]) for each in answer["advice"])
    return f"Quality of the photograph: {score}. {f'For a better one: {better}.' if better else ''}".rstrip()


def _found_sentence(candidates: list[Json], thresholds: Json, gallery_size: int) -> str:
    review = score_text(thresholds["review"])
    if not gallery_size:
        return (
            "[bold]There was nobody to compare with[/bold]: this gallery is empty. `biodedup gallery list` names the "
            "galleries and how many people each holds; --gallery chooses one."
        )
    if not candidates:
        return (
            f"[bold]Not found[/bold] among {gallery_size:,} templates: nobody scores {review} or more. This threshold "
            f"is expected to miss {percent(thresholds['expected_fnir'])} of the people who are enrolled."
        )
    best = candidates[0]
    # a score of the pack that stands by has a threshold of its own, and none of these scales
    above = f"is at or above the threshold {review}" if best["pack_id"] is None else f"by {plain(best['pack_id'])}"
    return (
        f"[bold]Possibly {plain(best['subject_id'] or 'an erased subject')}[/bold]: score {score_text(best['score'])} "
        f"{above}. Chance that two different people score this high: {chance(best)}. "
        "A person must decide."
    )


def _verified_sentence(answer: Json, other: str) -> str:
    verdict, relation = (
        ("[bold green]Match[/bold green]", "is at or above")
        if answer["matched"]
        else ("[bold red]No match[/bold red]", "is below")
    )
    return (
        f"{verdict} with {other}: score {score_text(answer['score'])} {relation} the threshold "
        f"{score_text(answer['threshold'])}, which accepts {one_in(answer['verification_fmr'])} pairs of different "
        f"people and is expected to refuse {percent(answer['expected_fnmr'])} of the right ones. Chance that two "
        f"different people score this high: {chance(answer)}."
    )
