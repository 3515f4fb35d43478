"""`biodedup agreements`: who may search whose gallery, and every search that was made."""

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from service.agreement import Disclosure
from service.cli.client import DEFAULT_URL, GalleryArgument, Json, ServiceClient, UrlOption, gallery_path
from service.cli.show import candidates_table, console, plain, table, warn

IdArgument = Annotated[str, typer.Argument(metavar="AGREEMENT", help="As `list` shows it.", show_default=False)]
SideOption = Annotated[
    str | None, typer.Option("--gallery", "-g", help="Your gallery that is searched. Without it: you are the partner.")
]


class Level(StrEnum):
    """What an answer tells."""

    HIT_OR_NO_HIT = "hit-or-no-hit"
    CANDIDATE_REFERENCES = "candidate-references"
    FULL = "full"


_PARTNER = typer.Option("--partner", help="The client that may search, such as client:partner-agency.")
_PURPOSE = typer.Option("--purpose", help="What for, as a code such as double-registration.")
_UNTIL = typer.Option("--until", formats=["%Y-%m-%d"], help="The first day (UTC) on which it no longer holds.")
_FROM = typer.Option("--from", formats=["%Y-%m-%d"], help="The first day (UTC) on which it holds; now if not given.")
_LEVEL = typer.Option("--disclosure", help="What an answer tells: docs/partners.md.")
_PER_DAY = typer.Option("--per-day", min=1, max=100_000, help="Searches of a day (UTC).")
_WORDS = typer.Option("--description", help="In words, such as the letter it was agreed in; nothing of any person.")

agreement_commands = typer.Typer(
    no_args_is_help=True,
    help="Let a partner agency search a gallery, for one purpose and until a day, and see every search.\n\n"
    "A partner's search is identification only: it enrols nobody and gets what the agreement lets be told, at the "
    "least whether there is a hit. An agreement is never changed: end it and make another.\n\n"
    "Example: biodedup agreements list --gallery camp-north\n\n"
    "Exit codes: 0 done, 1 refused by the service or no service, 2 wrong usage.",
)


@agreement_commands.command("add")
def add_agreement(
    gallery: GalleryArgument,
    *,
    partner: Annotated[str, _PARTNER],
    purpose: Annotated[str, _PURPOSE],
    until: Annotated[datetime, _UNTIL],
    begins: Annotated[datetime | None, _FROM] = None,
    disclosure: Annotated[Level, _LEVEL] = Level.HIT_OR_NO_HIT,
    per_day: Annotated[int, _PER_DAY] = 100,
    description: Annotated[str | None, _WORDS] = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Let a partner search a gallery of yours. It ends by itself on the day given.

    It replaces no other: each search names the agreement that it is made under, by its level and within its number of
    searches. You are warned where another one of the partner is for the same purpose.

    Example: biodedup agreements add camp-north --partner client:partner-agency --purpose double-registration --until 2027-01-01

    Exit codes: 0 made, 1 no such gallery, refused or no service, 2 wrong usage.
    """  # noqa: E501  an example is one line, to be copied
    body: dict[str, object] = {
        "partner_id": partner,
        "purpose": purpose,
        "disclosure": Disclosure[disclosure.name].value,
        "ends_at": _moment(until),
        "searches_per_day": per_day,
    }
    body |= {} if begins is None else {"starts_at": _moment(begins)}
    body |= {} if description is None else {"description": description}
    path = gallery_path(gallery, "agreements")
    with ServiceClient(url) as client:
        made = client.post_json(path, body)
        _show([made])  # at once: whatever fails from here on, there is one now
        others = [each["agreement_id"] for each in _all(client, path) if _is_beside(each, made)]
    if others:
        warn([f"{partner} may search for this purpose under {', '.join(others)} too: end what this one is to replace"])
    console().print(f"The partner searches with: biodedup identify FILE --agreement {made['agreement_id']}")


def _is_beside(other: Json, made: Json) -> bool:
    """Whether another agreement, that has not ended, lets the same partner search for the same purpose."""
    shared = ("partner_id", "purpose")
    is_same = all(other[name] == made[name] for name in shared)
    return is_same and other["agreement_id"] != made["agreement_id"] and other["state"] != "ended"


@agreement_commands.command("list")
def list_agreements(gallery: SideOption = None, url: UrlOption = DEFAULT_URL) -> None:
    """Show the agreements about a gallery of yours, or those under which you may search.

    Example: biodedup agreements list

    Example: biodedup agreements list --gallery camp-north

    Exit codes: 0 done, 1 no such gallery or no service, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        _show(_all(client, "/v1/agreements" if gallery is None else gallery_path(gallery, "agreements")))


@agreement_commands.command("end")
def end_agreement(gallery: GalleryArgument, agreement: IdArgument, url: UrlOption = DEFAULT_URL) -> None:
    """End an agreement before its date, from this moment on.

    Example: biodedup agreements end camp-north 0123456789abcdef0123456789abcdef

    Exit codes: 0 ended, 1 no such agreement or no service, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        _show([client.post_json(gallery_path(gallery, "agreements", agreement, "end"), {})])


@agreement_commands.command("uses")
def list_uses(agreement: IdArgument, gallery: SideOption = None, url: UrlOption = DEFAULT_URL) -> None:
    """Show every search under an agreement: when, by whom, and whether there was a hit. Both sides see the same.

    Example: biodedup agreements uses 0123456789abcdef0123456789abcdef --gallery camp-north

    Exit codes: 0 done, 1 no such agreement or no service, 2 wrong usage.
    """
    own = f"{agreement_path(agreement)}/uses"
    with ServiceClient(url) as client:
        items = _all(client, own if gallery is None else gallery_path(gallery, "agreements", agreement, "uses"))
    columns = ["when", "by", "outcome", "everything searched", "purpose"]
    console().print(table("Searches", columns, [_use_line(use) for use in items]))


def search_as_partner(client: ServiceClient, agreement: str, sample: Path, fields: dict[str, str]) -> None:
    """Search under an agreement and say what it lets be told."""
    path = f"{agreement_path(agreement)}/identifications"
    answer = client.post_samples(path, [("sample", sample.read_bytes())], fields)
    out, is_hit = console(), answer["hit"] if "hit" in answer else answer["found"]
    complete = answer["complete"] if "complete" in answer else answer["searched"]["complete"]
    if "thresholds" in answer and answer["candidates"]:
        out.print(candidates_table(answer["candidates"], answer["thresholds"]))
    elif answer.get("candidates"):
        lines = [[str(each["rank"]), plain(each["subject_id"])] for each in answer["candidates"]]
        out.print(table("Candidates", ["rank", "subject"], lines))
    out.print("[bold]Hit[/bold]: the other agency may know this person." if is_hit else "[bold]No hit[/bold].")
    out.print("Identification only: nobody was enrolled, and the search is noted on both sides.")
    if not complete:
        warn(["not everything could be searched: no hit does not say that the person is unknown"])


def agreement_path(agreement_id: str) -> str:
    return f"/v1/agreements/{quote(agreement_id, safe='')}"


def _all(client: ServiceClient, path: str) -> list[Json]:
    """Return all items of a listing, page by page."""
    items: list[Json] = []
    after: dict[str, str] = {}
    while True:
        page = client.send("GET", path, params={"limit": "200", **after})
        items += page["items"]
        if page["next_after"] is None:
            return items
        after = {"after": page["next_after"]}


def _moment(day: datetime) -> str:
    return day.replace(tzinfo=UTC).isoformat()


def _show(items: list[Json]) -> None:
    columns = ["agreement", "gallery", "partner", "purpose", "tells", "a day", "from", "until", "state"]
    console().print(table("Agreements", columns, [_line(item) for item in items]))


def _line(item: Json) -> list[str]:
    named = [item[name] for name in ("agreement_id", "gallery_id", "partner_id", "purpose", "disclosure")]
    return [
        *(plain(each) for each in named),
        f"{item['searches_per_day']:,}",
        item["starts_at"][:10],
        item["ends_at"][:10],
        plain(item["state"]),
    ]


def _use_line(use: Json) -> list[str]:
    outcome = use["outcome"] or "cut off"
    complete = {True: "yes", False: "NO", None: "-"}[use["complete"]]
    why = f"{outcome}: {use['error_code']}" if use["error_code"] else outcome
    return [plain(use["used_at"]), plain(use["used_by"]), plain(why), complete, plain(use["purpose"] or "-")]
