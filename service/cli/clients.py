"""`biodedup clients`: which programs may call the service, what they may do, and until when."""

import os
import re
from datetime import datetime
from typing import Annotated
from urllib.parse import quote

import typer

from service.access import read_grants
from service.cli.client import DEFAULT_URL, Json, ServiceClient, UrlOption
from service.cli.record import open_record
from service.cli.show import console, plain, table, warn
from service.settings import load_settings

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d{1,6})([smhd])")

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the client: a code, such as desk-7.", show_default=False)
]
RoleOption = Annotated[
    list[str] | None,
    typer.Option(
        "--role",
        metavar="ROLE[:GALLERY]",
        help="What it may: enroller, analyst, supervisor, auditor, operator or admin; in one gallery, or in all. "
        "May be given several times. Without it: only what agreements name the client for.",
        show_default=False,
    ),
]
ExpiresOption = Annotated[
    str | None,
    typer.Option("--expires", metavar="TIME", help="When the key ends, such as 90d or 12h; else as the service says."),
]
OverlapOption = Annotated[str, typer.Option("--overlap", metavar="TIME", help="How long the earlier keys still hold.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

client_commands = typer.Typer(
    no_args_is_help=True,
    help="Say which programs may call the service with an API key. It takes the key of an administrator of all "
    "galleries, in BIODEDUP_API_KEY or by `biodedup --key-file FILE`.\n\n"
    "Example: biodedup clients add desk-7 --role enroller:default\n\n"
    "Exit codes: 0 done, 1 refused by the service or no service, 2 wrong usage.",
)


@client_commands.command("add")
def add_client(
    name: NameArgument, role: RoleOption = None, expires: ExpiresOption = None, url: UrlOption = DEFAULT_URL
) -> None:
    """Make a client, and show its key: this once, on standard output. A name is never given twice.

    A role may name a gallery that is made later; you are warned where there is none yet.

    Example: biodedup clients add desk-7 --role enroller:camp --role analyst:camp --expires 90d

    Exit codes: 0 made, 1 the name is taken, refused or no service, 2 wrong usage.
    """
    body = {"name": name, "grants": _grants(role or []), "lifetime_s": _seconds(expires, "--expires")}
    with ServiceClient(url) as client:
        made = client.post_json("/v1/clients", body)
        _show_key(made)
        warn(_of_no_gallery(client, made["grants"]))


@client_commands.command("list")
def list_clients(url: UrlOption = DEFAULT_URL) -> None:
    """List all clients with their roles and keys, revoked ones among them. No key can be read again.

    Example: biodedup clients list

    Exit codes: 0 done, 1 refused or no service, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        items = client.get("/v1/clients")["items"]
    rows = [row for item in items for row in _rows(item)]
    console().print(table("Clients", ["client", "may", "key", "made", "ends", "last used", "state"], rows))


@client_commands.command("rotate")
def rotate_client(
    name: NameArgument, overlap: OverlapOption = "24h", expires: ExpiresOption = None, url: UrlOption = DEFAULT_URL
) -> None:
    """Give a client another key, and show it: this once. The keys it has go on until the overlap is over.

    Example: biodedup clients rotate desk-7 --overlap 24h

    Exit codes: 0 done, 1 no such client, refused or no service, 2 wrong usage.
    """
    body = {"overlap_s": _seconds(overlap, "--overlap"), "lifetime_s": _seconds(expires, "--expires")}
    with ServiceClient(url) as client:
        _show_key(client.post_json(f"/v1/clients/{quote(name, safe='')}/rotations", body))


@client_commands.command("revoke")
def revoke_client(name: NameArgument, *, yes: YesOption = False, url: UrlOption = DEFAULT_URL) -> None:
    """End a client and all its keys, at once and for good. Other processes on the same database follow in two seconds.

    Example: biodedup clients revoke desk-7

    Exit codes: 0 done, 1 no such client, refused or no service, 2 wrong usage.
    """
    if not yes:
        typer.confirm(f"End {name} and all its keys for good?", abort=True)
    with ServiceClient(url) as client:
        ended = client.send("DELETE", f"/v1/clients/{quote(name, safe='')}")
    console().print(f"{plain(ended['name'])} is revoked.")


@client_commands.command("recover")
def recover_admin() -> None:
    """Make a further administrator, for those who lost every key of one. The service must be stopped.

    It opens the record of the settings itself (BIODEDUP_VAR_DIR or BIODEDUP_DATABASE_URL): whoever can write there may
    do this. The other clients stay; look at them with `biodedup clients list`, and revoke what is lost.

    Example: biodedup clients recover

    Exit codes: 0 done, 1 a service runs on the folder, or there is no record, 2 wrong usage.
    """
    from service.app import recover_admin  # noqa: PLC0415  (imports onnxruntime and faiss: a second)

    settings = load_settings(os.environ)
    with open_record(settings) as store:
        made = recover_admin(store, settings)
    out = console()
    out.print(f"The client {plain(made.client.name)} was made, with the role admin in all galleries. Its key:")
    out.print(f"  {made.key}")


def _of_no_gallery(client: ServiceClient, grants: list[str]) -> list[str]:
    """Return what to say of roles in galleries that are not there: they may be made later, or be misspelt."""
    known = {each["gallery_id"] for each in client.get("/v1/galleries")["items"]}
    named = dict.fromkeys(text.partition(":")[2] for text in grants)
    missing = [each for each in named if each not in known | {"*"}]
    return [f"there is no gallery `{each}`: the role holds as soon as one of this name is made" for each in missing]


def _grants(roles: list[str]) -> list[str]:
    """Return what is sent of `ROLE` and `ROLE:GALLERY`. Raises typer.BadParameter."""
    texts = [text if ":" in text else f"{text}:*" for text in roles]
    try:
        read_grants(texts)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--role") from None
    return texts


def _seconds(text: str | None, option: str) -> int | None:
    """Raises typer.BadParameter."""
    if text is None:
        return None
    parts = _DURATION.fullmatch(text)
    if parts is None:
        raise typer.BadParameter("write a time like 90d, 24h, 30m or 0s", param_hint=option)
    return int(parts[1]) * _UNITS_S[parts[2]]


def _show_key(made: Json) -> None:
    out = console()
    newest = made["keys"][-1]
    what = ", ".join(made["grants"]) or "do what sharing agreements name it for"
    out.print(f"{plain(made['name'])} may {plain(what)}, until {_day(newest['expires_at'])}.")
    out.print("Its key is shown this once; keep it where you keep passwords:")
    out.print(f"  {made['key']}")


def _rows(item: Json) -> list[list[str]]:
    """A line for each key; the client and what it may on the first."""
    first = [plain(item["name"]), "\n".join(plain(grant) for grant in item["grants"])]
    return [
        [
            *(first if number == 0 else ["", ""]),
            plain(key["key_id"]),
            _day(key["created_at"]),
            _day(key["expires_at"]),
            "never" if key["last_used_at"] is None else _day(key["last_used_at"]),
            _state(key),
        ]
        for number, key in enumerate(item["keys"])
    ]


def _state(key: Json) -> str:
    if key["revoked_at"] is not None:
        return "revoked"
    ends = datetime.fromisoformat(key["expires_at"])
    return "holds" if datetime.now(ends.tzinfo) < ends else "ended"


def _day(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"
