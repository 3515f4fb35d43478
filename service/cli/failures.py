"""What a command says when it cannot do its job: one clear line, what to do, and never a traceback."""

import sys
from typing import Any

import httpx
import typer
from typer.core import TyperGroup

from service.errors import BiodedupError

EXIT_FAILED = 1
EXIT_STOPPED = 130  # 128 + SIGINT, as shells count

_SENTENCE = 400  # characters: longer than any first sentence

_ADVICE = {
    "settings_invalid": "docs/settings.md describes every setting.",
    "var_in_use": "Talk to that process over HTTP, stop it, or choose another folder with BIODEDUP_VAR_DIR.",
    "var_unusable": "Set BIODEDUP_VAR_DIR to a folder that this user can make and write; `biodedup check` looks at it.",
    "gallery_not_found": "`biodedup gallery list` shows the galleries, `biodedup gallery create` makes one.",
    "disk_space_short": "Free some, or put BIODEDUP_VAR_DIR on a larger disk (with what is in the folder now).",
    "master_key_unusable": "docs/encryption.md says where the master key is kept and how it is restored.",
    "ledger_corrupt": "docs/erasure.md says what the ledger is and how it is mended.",
    "receipt_invalid": "Take the receipt as it was sent, and the public key of the service that sent it.",
    "keys_missing": "docs/encryption.md says what to restore.",
    "templates_invalid": "docs/cli.md describes the files. Nothing of the rows from there on was written.",
    "store_unavailable": "Look at the database and the room on its disk; `biodedup check` says more.",
    "overloaded": "Try again in a moment.",
    "unauthenticated": "Set BIODEDUP_API_KEY to a key that holds, or give `biodedup --key-file FILE` before the "
    "command; an administrator makes one with `biodedup clients add`.",
    "forbidden": "docs/access.md says which role it takes; `biodedup clients list` shows who has which.",
    "client_not_found": "`biodedup clients list` shows the clients.",
    "client_exists": "A name is given once: choose another; `biodedup clients rotate` gives a client a new key.",
    "not_ready": "`biodedup check` says what is missing.",
    "pack_not_loaded": "Name the pack in BIODEDUP_EXTRA_PACKS and start the service again.",
    "no_face": "Send a photograph that shows the face from the front, uncovered and not too small.",
    "several_faces": "Send a photograph of one person, or cut it to that person first. Who runs the service "
    "may have it take the largest or the middle face (BIODEDUP_FACE_POLICY).",
}


class CommandFailed(Exception):
    """A command cannot go on. `code` is for machines, `advice` says what a person can do."""

    def __init__(
        self, message: str, code: str, *, advice: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.advice = advice
        self.retry_after_s = retry_after_s


class CommandGroup(TyperGroup):
    """A Typer group that turns deliberate errors into a line on standard error and exit status 1."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the first sentence of every command in full; Typer's own list breaks it off at the end of the line."""
        known = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, found.get_short_help_str(_SENTENCE)) for name, found in known if found])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (CommandFailed, BiodedupError) as failure:
            report_failure(failure)
            raise typer.Exit(EXIT_FAILED) from failure
        except httpx.InvalidURL as failure:
            report_failure(CommandFailed(f"the address of the service cannot be read: {failure}", "url_invalid"))
            raise typer.Exit(EXIT_FAILED) from failure


def report_failure(failure: CommandFailed | BiodedupError) -> None:
    """Write `error: message (code)` to standard error, a line for each line of the message, then the advice."""
    for line in failure.message.splitlines() or [""]:
        print(f"error: {line} ({failure.code})", file=sys.stderr)  # noqa: T201  (a command speaks)
    advice = getattr(failure, "advice", None) or _ADVICE.get(failure.code)
    if advice is not None:
        print(f"       {advice}", file=sys.stderr)  # noqa: T201  (a command speaks)
