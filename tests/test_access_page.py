"""The page on who may call what is the table that is held."""

from pathlib import Path

from service.access import Role
from service.api.access import RULES
from service.cli.access_page import access_page

PAGE = Path(__file__).resolve().parent.parent / "docs" / "access.md"


def test_the_page_is_what_the_table_says() -> None:
    assert PAGE.read_text() == access_page(), "run: biodedup export-access > docs/access.md"


def test_every_row_and_role_is_on_the_page() -> None:
    lines = access_page().splitlines()
    for rule in RULES:
        (line,) = (line for line in lines if line.startswith(f"| `{rule.method} {rule.path}` |"))
        marks = [cell.strip() for cell in line.split("|")[3 : 3 + len(Role)]]
        assert [mark == "yes" for mark in marks] == [not rule.roles or role in rule.roles for role in Role]
        assert rule.reason in line
    assert [role for role in Role if f"| `{role}` |" not in access_page()] == []
