"""`biodedup export-access`: the page on who may call what, made of the table that is held."""

from service.access import Role
from service.api.access import RULES, Rule, Scope

_START = """# Who may call what

This page is made by `biodedup export-access` from the table that every request is held to (`service/api/access.py`);
a test calls each row with each role, in another gallery, and with credentials that do not hold. [Decision
0021](decisions/0021-callers.md) says why it is as it is.

## Roles

| role | is trusted with |
|---|---|
| `enroller` | a registration system: enrols, identifies, verifies, and reads its own answers again |
| `analyst` | reviews flagged pairs: reads people and cases, and decides |
| `supervisor` | what an analyst may; and erases people, takes encounters out, sets retention rules and legal holds |
| `auditor` | reads settings, reports, the audit trail and who may call; changes nothing |
| `operator` | runs the service: index, metrics, sweeps, models; sees nobody |
| `admin` | what an operator may; and galleries, error rates, calibrations, clients, agreements, trail; sees nobody |

A caller has each role in named galleries (`analyst:camp`) or in all (`analyst:*`). An administrator of all galleries
can make a client with any role, and so give itself any right: watch `biodedup clients list`.

## Answers

- No credential, or one that is unknown, wrong, expired, revoked or of another issuer: 401 `unauthenticated`, in the
  same words for all of them.
- No role that allows it: 403 `forbidden`, decided by the caller's grants alone and before anything is read. A
  gallery that is not there and one that is not the caller's get the same answer.
- `X-Purpose` names what a request is for, as a code of the caller's own (a to z, 0 to 9, `_`, `.`, `-`; at most 64);
  it goes into the audit trail.

Where: *gallery*, the role in the gallery of the path; *all*, the role in all galleries (`ROLE:*`); *any*, the role
in at least one gallery, and only the caller's galleries are shown or taken; *known*,
whoever proves who they are, with a role or without one, and each gets their own; *open*, nobody is asked.

## Routes

"""

_SCOPES = {
    Scope.OPEN: "open",
    Scope.GALLERY: "gallery",
    Scope.SERVICE: "all",
    Scope.SOMEWHERE: "any",
    Scope.KNOWN: "known",
}


def access_page() -> str:
    """Return the page as Markdown, with the rows in the order of the table."""
    head = ["route", "where", *(role.value for role in Role), "why"]
    lines = [_row(head), _row(["---"] * len(head)), *(_row(_cells(rule)) for rule in RULES)]
    return _START + "\n".join(lines) + "\n"


def _cells(rule: Rule) -> list[str]:
    marks = ["yes" if rule.scope is Scope.OPEN or role in rule.roles else "" for role in Role]
    return [f"`{rule.method} {rule.path}`", _SCOPES[rule.scope], *marks, rule.reason]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
