"""Who may call what: the one table of every route and the roles that it takes, and how a request is held to it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from service.access import Caller, Role
from service.errors import Forbidden

ENROLLER, ANALYST, SUPERVISOR = Role.ENROLLER, Role.ANALYST, Role.SUPERVISOR
AUDITOR, OPERATOR, ADMIN = Role.AUDITOR, Role.OPERATOR, Role.ADMIN

ALL_ROLES = frozenset(Role)


class Scope(Enum):
    """Where a caller must have one of the roles."""

    OPEN = "open"  # nobody is asked
    GALLERY = "gallery"  # in the gallery of the path
    SERVICE = "service"  # in all galleries: it belongs to none of them
    KNOWN = "known"  # nowhere: whoever proves who they are; the route gives each what is their own
    SOMEWHERE = "somewhere"  # in any gallery: the route looks at which


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: whoever has one of the roles may, everybody else may not."""

    method: str
    path: str
    scope: Scope
    roles: frozenset[Role]
    reason: str

    def check(self, caller: Caller, gallery_id: str | None) -> None:
        """Decide by the caller's grants alone: a gallery that is not there is refused like one that is not theirs.

        Raises:
            Forbidden
        """
        if self.scope in {Scope.OPEN, Scope.KNOWN}:
            return
        if self.scope is Scope.SOMEWHERE:
            is_allowed = caller.may_somewhere(self.roles)
        else:
            is_allowed = caller.may(self.roles, gallery_id if self.scope is Scope.GALLERY else None)
        if not is_allowed:
            raise forbidden()


def forbidden() -> Forbidden:
    return Forbidden("your roles do not allow this here")


def require(caller: Caller, roles: Iterable[Role], gallery_id: str) -> None:
    """Refuse where a request touches a gallery beside that of its path. Raises Forbidden."""
    if not caller.may(frozenset(roles), gallery_id):
        raise forbidden()


_G = "/v1/galleries/{gallery_id}"
_READERS = (ANALYST, SUPERVISOR)
_KEEPERS = (OPERATOR, ADMIN)
_OVERSEERS = (AUDITOR, OPERATOR, ADMIN)
_RETENTION_READERS = (SUPERVISOR, *_OVERSEERS)

SWEEPERS = frozenset(_KEEPERS)
"""Who may compare galleries: in both of them."""
CASE_READERS = frozenset(_READERS)
"""Who may see the people of a case: in the gallery of each."""
ALSO_SEARCHERS = frozenset({ENROLLER})
"""Whose enrolments may search a further gallery: in that one, too."""
PEOPLE_SEERS = frozenset({ENROLLER, *_READERS})
"""Who is told the names of candidates in a further gallery: in that one."""
PLANNERS = frozenset({SUPERVISOR, AUDITOR, OPERATOR, ADMIN})
"""Who may plan a campaign: for a gallery, in it."""
STATE_READERS = frozenset(_KEEPERS)
"""Who sees more of `/readyz` than whether the service is ready."""

_OPEN_PAGE = "Describes the interface; holds no data."

RULES: tuple[Rule, ...] = tuple(
    Rule(method, path, scope, frozenset(roles), reason)
    for method, path, scope, roles, reason in (
        ("GET", "/healthz", Scope.OPEN, (), "Orchestrators ask it; says only that the process lives."),
        ("GET", "/readyz", Scope.OPEN, (), "As above; names of galleries and details only for operators and admins."),
        ("GET", "/", Scope.OPEN, (), "Leads to /docs."),
        ("GET", "/docs", Scope.OPEN, (), _OPEN_PAGE),
        ("GET", "/docs/oauth2-redirect", Scope.OPEN, (), _OPEN_PAGE),
        ("GET", "/redoc", Scope.OPEN, (), _OPEN_PAGE),
        ("GET", "/openapi.json", Scope.OPEN, (), _OPEN_PAGE),
        ("GET", "/static-offline-docs", Scope.OPEN, (), "Scripts and styles of those pages."),
        ("GET", "/metrics", Scope.SERVICE, _KEEPERS, "Names and sizes of all galleries; nothing of anybody."),
        (
            "POST",
            f"{_G}/enrolments",
            Scope.GALLERY,
            (ENROLLER,),
            "The work of a registration desk; in each further gallery that it searches, too.",
        ),
        ("POST", f"{_G}/identifications", Scope.GALLERY, (ENROLLER,), "The same question; enrols nobody."),
        ("POST", f"{_G}/verifications", Scope.GALLERY, (ENROLLER,), "Is the person who they say they are?"),
        (
            "GET",
            f"{_G}/enrolments/{{enrolment_id}}",
            Scope.GALLERY,
            (ENROLLER, *_READERS),
            "An enroller reads its answers again, by an id that only it was told; analysts see a case's candidates.",
        ),
        ("GET", f"{_G}/enrolments", Scope.GALLERY, _READERS, "A list names everybody: who enrols need not have it."),
        ("GET", f"{_G}/subjects", Scope.GALLERY, _READERS, "Names everybody in the gallery."),
        ("GET", f"{_G}/subjects/{{subject_id}}", Scope.GALLERY, _READERS, "To judge a case."),
        ("DELETE", f"{_G}/subjects/{{subject_id}}", Scope.GALLERY, (SUPERVISOR,), "Cannot be undone."),
        ("GET", f"{_G}/encounters", Scope.GALLERY, _READERS, "Names everybody in the gallery."),
        ("GET", f"{_G}/encounters/{{encounter_id}}", Scope.GALLERY, _READERS, "To judge a case."),
        (
            "PATCH",
            f"{_G}/encounters/{{encounter_id}}",
            Scope.GALLERY,
            (SUPERVISOR,),
            "Takes a person out of the search, or withdraws for ever.",
        ),
        ("GET", f"{_G}/cases", Scope.GALLERY, _READERS, "The analyst's queue."),
        ("GET", f"{_G}/cases/{{case_id}}", Scope.GALLERY, _READERS, "As above."),
        (
            "PUT",
            f"{_G}/cases/{{case_id}}/decision",
            Scope.GALLERY,
            _READERS,
            "The analyst's work; of a pair across two galleries, in both of them.",
        ),
        (
            "GET",
            f"{_G}/migration/missing",
            Scope.GALLERY,
            _READERS,
            "Names people: who runs the service sees a number.",
        ),
        (
            "GET",
            "/v1/galleries",
            Scope.SOMEWHERE,
            ALL_ROLES,
            "Lists only the galleries in which the caller has a role.",
        ),
        ("POST", "/v1/galleries", Scope.SERVICE, (ADMIN,), "Belongs to no gallery yet."),
        ("GET", _G, Scope.GALLERY, ALL_ROLES, "Settings, thresholds and counts; nothing of anybody."),
        ("PATCH", _G, Scope.GALLERY, (ADMIN,), "Error rates decide who is flagged."),
        ("GET", f"{_G}/retention", Scope.GALLERY, _RETENTION_READERS, "Rule and last report; nothing of anybody."),
        ("PUT", f"{_G}/retention", Scope.GALLERY, (SUPERVISOR,), "Decides who will be erased."),
        (
            "POST",
            f"{_G}/retention/reports",
            Scope.GALLERY,
            (SUPERVISOR,),
            "Erases nothing; puts the report before it aside.",
        ),
        ("GET", f"{_G}/retention/reports", Scope.GALLERY, _RETENTION_READERS, "Counts, rules and dates."),
        ("GET", f"{_G}/retention/reports/{{report_id}}", Scope.GALLERY, _RETENTION_READERS, "As above."),
        (
            "GET",
            f"{_G}/retention/reports/{{report_id}}/lines",
            Scope.GALLERY,
            (SUPERVISOR,),
            "Names people: who audits sees how many, why and until when.",
        ),
        ("POST", f"{_G}/retention/runs", Scope.GALLERY, (SUPERVISOR,), "Erases; cannot be undone."),
        ("GET", f"{_G}/holds", Scope.GALLERY, (SUPERVISOR,), "Names people."),
        ("GET", f"{_G}/hold", Scope.GALLERY, (SUPERVISOR,), "The reason may speak of people."),
        ("PUT", f"{_G}/hold", Scope.GALLERY, (SUPERVISOR,), "Stops every erasure in the gallery."),
        ("DELETE", f"{_G}/hold", Scope.GALLERY, (SUPERVISOR,), "Lets erasures go on."),
        ("GET", f"{_G}/subjects/{{subject_id}}/hold", Scope.GALLERY, (SUPERVISOR,), "The reason speaks of a person."),
        ("PUT", f"{_G}/subjects/{{subject_id}}/hold", Scope.GALLERY, (SUPERVISOR,), "Stops the person's erasure."),
        ("DELETE", f"{_G}/subjects/{{subject_id}}/hold", Scope.GALLERY, (SUPERVISOR,), "Lets it go on."),
        ("GET", f"{_G}/calibrations", Scope.GALLERY, _OVERSEERS, "What scores mean; nothing of anybody."),
        ("POST", f"{_G}/calibrations", Scope.GALLERY, (ADMIN,), "Decides who is flagged."),
        ("PUT", f"{_G}/calibration", Scope.GALLERY, (ADMIN,), "Decides who is flagged."),
        ("POST", f"{_G}/agreements", Scope.GALLERY, (ADMIN,), "Lets somebody else search the gallery."),
        ("GET", f"{_G}/agreements", Scope.GALLERY, (AUDITOR, ADMIN), "Who else may search the gallery."),
        ("POST", f"{_G}/agreements/{{agreement_id}}/end", Scope.GALLERY, (ADMIN,), "Takes that right away."),
        (
            "GET",
            f"{_G}/agreements/{{agreement_id}}/uses",
            Scope.GALLERY,
            (AUDITOR, ADMIN),
            "Who searched, when and what for; nothing of whom it was about.",
        ),
        ("GET", "/v1/agreements", Scope.KNOWN, ALL_ROLES, "Lists only those that name the caller as the partner."),
        (
            "GET",
            "/v1/agreements/{agreement_id}/uses",
            Scope.KNOWN,
            ALL_ROLES,
            "The caller's own searches; an agreement that does not name the caller is not found.",
        ),
        (
            "POST",
            "/v1/agreements/{agreement_id}/identifications",
            Scope.KNOWN,
            ALL_ROLES,
            "The agreement gives the right, to the client that it names, and to nobody by a role.",
        ),
        ("GET", f"{_G}/audit", Scope.GALLERY, (AUDITOR, ADMIN), "Who did what; whom it concerned stays sealed."),
        ("GET", f"{_G}/audit/export", Scope.GALLERY, (AUDITOR, ADMIN), "The same, as a file."),
        ("POST", f"{_G}/audit/verifications", Scope.GALLERY, (AUDITOR, ADMIN), "Whether the trail was changed."),
        ("GET", "/v1/audit", Scope.SERVICE, (AUDITOR, ADMIN), "What concerns no gallery: clients, keys."),
        ("GET", "/v1/audit/export", Scope.SERVICE, (AUDITOR, ADMIN), "The same, as a file."),
        ("POST", "/v1/audit/verifications", Scope.SERVICE, (AUDITOR, ADMIN), "Whether that trail was changed."),
        (
            "GET",
            f"{_G}/subjects/{{subject_id}}/access-report",
            Scope.GALLERY,
            (SUPERVISOR,),
            "All that is held of one person: for that person, on request.",
        ),
        (
            "GET",
            f"{_G}/encounters/{{encounter_id}}/samples/{{position}}",
            Scope.GALLERY,
            _READERS,
            "To judge a case by the photographs; each view is in the audit trail.",
        ),
        ("GET", f"{_G}/index", Scope.GALLERY, _OVERSEERS, "Sizes and states; nothing of anybody."),
        ("POST", f"{_G}/index/verifications", Scope.GALLERY, _KEEPERS, "Running the service."),
        ("POST", f"{_G}/index/rebuilds", Scope.GALLERY, _KEEPERS, "Running the service."),
        ("POST", f"{_G}/index/compactions", Scope.GALLERY, _KEEPERS, "Running the service."),
        ("GET", f"{_G}/sweeps", Scope.GALLERY, _OVERSEERS, "Progress and counts; nothing of anybody."),
        ("GET", f"{_G}/sweeps/{{job_id}}", Scope.GALLERY, _OVERSEERS, "As above."),
        (
            "POST",
            f"{_G}/sweeps",
            Scope.GALLERY,
            _KEEPERS,
            "Running the service; against another gallery, in both. What it finds, analysts see.",
        ),
        ("POST", f"{_G}/sweeps/{{job_id}}/cancellation", Scope.GALLERY, _KEEPERS, "Running the service."),
        (
            "POST",
            "/v1/plans",
            Scope.SOMEWHERE,
            PLANNERS,
            "Reads the size of a gallery, which must be one of the caller's; changes nothing.",
        ),
        ("POST", f"{_G}/migration", Scope.GALLERY, _KEEPERS, "Running the service: another model."),
        ("GET", f"{_G}/migration", Scope.GALLERY, _OVERSEERS, "Progress and counts; nothing of anybody."),
        ("GET", f"{_G}/migration/comparison", Scope.GALLERY, _OVERSEERS, "Rates; nothing of anybody."),
        ("POST", f"{_G}/migration/cut-over", Scope.GALLERY, _KEEPERS, "Running the service: another model."),
        ("POST", f"{_G}/migration/back", Scope.GALLERY, _KEEPERS, "Running the service: another model."),
        ("POST", f"{_G}/migration/finish", Scope.GALLERY, _KEEPERS, "Running the service: another model."),
        ("POST", f"{_G}/migration/cancellation", Scope.GALLERY, _KEEPERS, "Running the service: another model."),
        ("GET", "/v1/keys", Scope.SERVICE, (AUDITOR, *_KEEPERS), "Names and counts of keys; no key."),
        ("POST", "/v1/keys/rotations", Scope.SERVICE, _KEEPERS, "Running the service: another master key."),
        ("GET", "/v1/receipts/public-key", Scope.SOMEWHERE, ALL_ROLES, "Whoever holds a receipt may verify it."),
        ("GET", "/v1/clients", Scope.SERVICE, (AUDITOR, ADMIN), "Who may do what, and until when; no key."),
        ("POST", "/v1/clients", Scope.SERVICE, (ADMIN,), "Gives rights: an admin of one gallery cannot."),
        ("POST", "/v1/clients/{name}/rotations", Scope.SERVICE, (ADMIN,), "Gives a key, and so its rights."),
        ("DELETE", "/v1/clients/{name}", Scope.SERVICE, (ADMIN,), "Takes rights away."),
    )
)

_BY_ROUTE = {(rule.method, rule.path): rule for rule in RULES}


def rule_of(methods: Iterable[str], path: str) -> Rule:
    """Return the row of a route. Raises LookupError: it has none, or several methods."""
    (method,) = methods
    rule = _BY_ROUTE.get((method, path))
    if rule is None:
        raise LookupError(f"{method} {path} is not in the table of service/api/access.py: who may call it?")
    return rule


def check_table(routes: Iterable[tuple[str, str]]) -> None:
    """Hold the table to the routes of the application, both ways. Raises LookupError."""
    served = set(routes)
    strangers = [f"{method} {path}" for method, path in _BY_ROUTE.keys() ^ served]
    if strangers or len(_BY_ROUTE) != len(RULES):
        raise LookupError(f"service/api/access.py and the routes differ: {', '.join(sorted(strangers))}")
