"""Every command teaches, refuses wrong usage with 2, and fails with one clear line and 1."""

from typing import Any

import pytest
import typer

from service.__main__ import commands
from tests.cli.conftest import run
from tests.server import free_port

COMMANDS = (
    ["serve"],
    ["enrol"],
    ["import-templates"],
    ["identify"],
    ["verify"],
    ["stats"],
    ["check"],
    ["plan"],
    ["export-openapi"],
    ["models"],
    ["models", "list"],
    ["models", "fetch"],
    ["models", "verify"],
    ["models", "path"],
    ["models", "migrate"],
    ["models", "migrate", "start"],
    ["models", "migrate", "status"],
    ["models", "migrate", "compare"],
    ["models", "migrate", "missing"],
    ["models", "migrate", "cut-over"],
    ["models", "migrate", "back"],
    ["models", "migrate", "finish"],
    ["models", "migrate", "cancel"],
    ["export-access"],
    ["clients"],
    ["clients", "add"],
    ["clients", "list"],
    ["clients", "rotate"],
    ["clients", "revoke"],
    ["clients", "recover"],
    ["gallery"],
    ["gallery", "list"],
    ["gallery", "show"],
    ["gallery", "create"],
    ["gallery", "set"],
    ["gallery", "sweep"],
    ["audit"],
    ["audit", "verify"],
    ["audit", "export"],
    ["subject"],
    ["subject", "report"],
    ["subject", "erase"],
    ["receipts"],
    ["receipts", "verify"],
    ["receipts", "public-key"],
    ["keys"],
    ["keys", "status"],
    ["keys", "rotate"],
    ["keys", "backup"],
    ["keys", "restore"],
    ["index"],
    ["index", "status"],
    ["index", "verify"],
    ["index", "rebuild"],
    ["index", "compact"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_gives_an_example_and_the_exit_codes(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Example: " in result.stdout
    assert f"biodedup {' '.join(command)}" in " ".join(result.stdout.split())
    assert "Exit codes:" in result.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_names_options_and_commands_in_full_in_a_narrow_terminal(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = run(*command, "--help").stdout
    words = shown.replace(",", " ").split()
    found: Any = typer.main.get_command(commands)
    for name in command:
        found = found.commands[name]
    named = [name for option in found.params for name in (*option.opts, *option.secondary_opts) if name[0] == "-"]
    assert [name for name in [*named, *getattr(found, "commands", ())] if name not in words] == []
    assert "<bool>" not in shown
    assert "..." not in shown.replace("[ARGS]...", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["unknown"],
        ["enrol"],
        ["enrol", "does-not-exist"],
        ["import-templates", "does-not-exist.npy", "--model-id", "m"],
        ["import-templates", __file__],
        ["identify", "does-not-exist.jpg"],
        ["verify", __file__],
        ["verify", __file__, __file__, "--subject", "a"],
        ["models", "migrate", "start", "default"],
        ["models", "migrate", "cut-over", "default", "--accept-missing", "-1"],
        ["gallery", "set", "default"],
        ["gallery", "create", "a", "--review-fpir", "2"],
        ["clients", "add", "desk", "--role", "chief"],
        ["clients", "add", "desk", "--role", "enroller:ca mp"],
        ["clients", "add", "desk", "--role", "enroller", "--expires", "90"],
        ["clients", "rotate", "desk", "--overlap", "soon"],
        ["--key-file"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["stats"], ["gallery", "list"], ["index", "verify"], ["identify", __file__], ["verify", __file__, __file__]],
    ids=" ".join,
)
def test_without_a_service_one_line_says_how_to_start_it(arguments: list[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    result = run(*arguments, "--url", url)
    assert result.exit_code == 1
    first, *advice = result.stderr.splitlines()
    assert first == f"error: no service answers at {url}; start it with `biodedup serve` (no_service)"
    assert len(advice) == 1


def test_the_url_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("BIODEDUP_URL", url)
    assert url in run("stats").stderr


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://[::1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    result = run("stats", "--url", url)
    assert result.exit_code == 1
    assert "url_invalid" in result.stderr


@pytest.mark.parametrize("arguments", [["serve"], ["models", "list"], ["enrol", "."]], ids=" ".join)
def test_a_misspelt_setting_stops_the_command(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setenv("BIODEDUP_REVIEW_FPRI", "0.02")
    result = run(*arguments)
    assert result.exit_code == 1
    assert "error: BIODEDUP_REVIEW_FPRI is not a setting; did you mean BIODEDUP_REVIEW_FPIR?" in result.stderr


def test_an_unknown_pack_is_named() -> None:
    result = run("models", "fetch", "no-such-pack")
    assert result.exit_code == 1
    assert "(pack_unknown)" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_exported_document_is_the_api_description() -> None:
    result = run("export-openapi")
    assert result.exit_code == 0
    assert result.stdout.startswith("openapi: ")
