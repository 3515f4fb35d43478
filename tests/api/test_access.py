"""Every route, called with each role, here and in another gallery, and with credentials that do not hold."""

import base64
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, event

from service.access import Client, Role
from service.api.access import RULES, Rule, Scope, check_table, rule_of
from service.api.context import Service
from service.api_keys import make_key
from tests.api.credentials import claims, header, in_gallery, new_rsa_key, signed
from tests.api.live import fake_app, fake_settings, running, wait_until_ready
from tests.api.problems import problem_of
from tests.api.provider import Provider

HERE, ELSEWHERE, NOWHERE = "camp", "town", "no-such-gallery"
SAMPLE = base64.b64encode(b"anna/1").decode()
REFUSED = {401, 403}

# what makes a request one that the route would do, where nothing in it is wrong; else any answer but a refusal is right
BODIES: dict[str, object] = {
    "enrolments": {"samples": [SAMPLE]},
    "identifications": {"sample": SAMPLE},
    "verifications": {"sample": SAMPLE, "reference_sample": SAMPLE},
    "plans": {"size_end": 100, "enrolments_per_day": 10, "duplicate_share": 0.1},
    "decision": {"verdict": None},
}
GUARDED = [rule for rule in RULES if rule.scope is not Scope.OPEN]
OPEN = [rule for rule in RULES if rule.scope is Scope.OPEN]


def name_of(rule: Rule) -> str:
    return f"{rule.method} {rule.path}"


guarded = pytest.mark.parametrize("rule", GUARDED, ids=name_of)


@dataclass
class World:
    """An application that asks who calls, and credentials of every kind."""

    http: httpx.Client
    service: Service
    provider: Provider
    issued: dict[str, str] = field(default_factory=dict)

    def key(self, name: str, *grants: Any) -> str:
        """Return the key of a client with these grants, made at the first call."""
        if name not in self.issued:
            self.issued[name] = self.service.clients.add(name, grants).key
        return self.issued[name]

    def send(self, rule: Rule, credential: str | None, gallery_id: str = HERE, **headers: str) -> httpx.Response:
        path = rule.path.format(
            gallery_id=gallery_id, subject_id="S-0", encounter_id="E-0", enrolment_id="N-0", case_id=4711, job_id=4711,
            name="nobody", position=0, report_id=4711, agreement_id="0" * 32,
        )  # fmt: skip
        body = BODIES.get(path.rpartition("/")[2], {}) if rule.method in {"POST", "PUT", "PATCH"} else None
        if credential is not None:
            headers |= header(credential)
        return self.http.request(rule.method, path, json=body, headers=headers)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("access")
    with Provider(folder) as provider:
        settings = fake_settings(
            folder / "var",
            auth="on",
            oidc_issuer=provider.issuer,
            oidc_audience="biodedup",
            limit_failed_sign_ins_per_minute=0,
        )
        app = fake_app(settings)
        with running(app) as url, httpx.Client(base_url=url, timeout=30) as http:
            wait_until_ready(http)
            world = World(http, app.state.startup.service(), provider)
            admin = header(world.key("first", in_gallery(Role.ADMIN)))
            for gallery_id in (HERE, ELSEWHERE):
                http.post("/v1/galleries", json={"gallery_id": gallery_id}, headers=admin).raise_for_status()
            yield world


@guarded
@pytest.mark.parametrize("role", Role)
def test_a_role_in_all_galleries_may_what_the_table_says(world: World, rule: Rule, role: Role) -> None:
    answer = world.send(rule, world.key(f"{role}-all", in_gallery(role)))
    assert (answer.status_code not in REFUSED) is (role in rule.roles), answer.text


@guarded
@pytest.mark.parametrize("role", Role)
def test_a_role_in_one_gallery_may_what_the_table_says_of_that_gallery(world: World, rule: Rule, role: Role) -> None:
    answer = world.send(rule, world.key(f"{role}-here", in_gallery(role, HERE)))
    is_allowed = role in rule.roles and rule.scope is not Scope.SERVICE
    assert (answer.status_code not in REFUSED) is is_allowed, answer.text


@pytest.mark.parametrize("rule", [rule for rule in GUARDED if rule.scope is Scope.GALLERY], ids=name_of)
@pytest.mark.parametrize("role", Role)
def test_another_s_gallery_and_one_that_is_not_there_are_refused_alike(world: World, rule: Rule, role: Role) -> None:
    key = world.key(f"{role}-here", in_gallery(role, HERE))
    answers = [world.send(rule, key, gallery_id) for gallery_id in (ELSEWHERE, NOWHERE)]
    assert [problem_of(answer, 403) for answer in answers] == ["forbidden"] * 2
    first, second = ({**answer.json(), "request_id": ""} for answer in answers)
    assert first == second
    assert [set(answer.headers) for answer in answers[:1]] == [set(answer.headers) for answer in answers[1:]]


@pytest.fixture(scope="module")
def broken(world: World) -> dict[str, str | None]:
    """Credentials that do not hold, each of somebody who might do everything."""
    everything = [in_gallery(role) for role in Role]
    now = datetime.now(UTC)
    expired, kept = make_key(now - timedelta(days=2), timedelta(days=1))
    world.service.store.clients.add(Client("expired", tuple(everything), now, keys=(kept,)))  # type: ignore[attr-defined]  # of the real record
    revoked = world.key("revoked", *everything)
    world.service.clients.revoke("revoked")
    issuer, key = world.provider.issuer, new_rsa_key()
    good = world.key("good", *everything)
    return {
        "none": None,
        "an expired key": expired,
        "a revoked key": revoked,
        "a wrong secret": good[:-1] + ("A" if good[-1] != "A" else "B"),
        "an unknown key": make_key(now, timedelta(days=1))[0],
        "half a key": good[:30],
        "an expired token": signed(key, claims(issuer, exp=1)),
        "a foreign token": signed(key, claims(issuer)),
        "a token of another issuer": signed(key, claims("https://login.example.org")),
        "an unsigned token": signed(None, claims(issuer), "none"),
        "no token": "x",
    }


@guarded
def test_a_credential_that_does_not_hold_is_refused_in_one_way(
    world: World, rule: Rule, broken: dict[str, str | None]
) -> None:
    answers = {name: world.send(rule, credential) for name, credential in broken.items()}
    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(broken, 401)
    assert {answer.headers["www-authenticate"] for answer in answers.values()} == {"Bearer"}
    assert {(answer.json()["code"], answer.json()["message"]) for answer in answers.values()} == {
        ("unauthenticated", "send `Authorization: Bearer` with an API key or a token that holds")
    }


@guarded
def test_a_token_of_the_provider_may_what_its_roles_may(world: World, rule: Rule) -> None:
    role = sorted(rule.roles)[0]
    may = world.issued.setdefault(f"token {role}", world.provider.token(f"{role}", biodedup_roles=[f"{role}:*"]))
    may_not = world.issued.setdefault("token", world.provider.token("nobody", biodedup_roles=["chief:*", 7]))
    assert world.send(rule, may).status_code not in REFUSED
    if rule.scope is Scope.KNOWN:
        assert world.send(rule, may_not).status_code in {200, 404}
    else:
        assert problem_of(world.send(rule, may_not), 403) == "forbidden"


@pytest.mark.parametrize("rule", OPEN, ids=name_of)
def test_what_is_open_is_open_to_all(world: World, rule: Rule) -> None:
    assert world.send(rule, None).status_code in {200, 307, 404}  # the folder of scripts and styles shows no list


def test_readiness_tells_its_details_only_to_who_runs_the_service(world: World) -> None:
    def ready(credential: str | None) -> httpx.Response:
        return world.http.get("/readyz", headers=header(credential) if credential else {})

    for role in Role:
        found = ready(world.key(f"{role}-all", in_gallery(role))).json()
        assert found["status"] == "ready"
        assert bool(found["galleries"]) is (role in {Role.OPERATOR, Role.ADMIN})
    for credential in (None, world.key("admin-here", in_gallery(Role.ADMIN, HERE))):
        assert (ready(credential).json()["galleries"], ready(credential).json()["warnings"]) == ([], [])
    assert problem_of(ready("x"), 401) == "unauthenticated"


def test_the_list_of_galleries_holds_only_the_caller_s(world: World) -> None:
    def listed(credential: str) -> set[str]:
        items = world.http.get("/v1/galleries", headers=header(credential)).json()["items"]
        return {item["gallery_id"] for item in items}

    assert listed(world.key("auditor-here", in_gallery(Role.AUDITOR, HERE))) == {HERE}
    assert listed(world.key("auditor-all", in_gallery(Role.AUDITOR))) >= {HERE, ELSEWHERE, "default"}


@pytest.mark.parametrize("other", [ELSEWHERE, NOWHERE])
@pytest.mark.parametrize(
    ("path", "name"), [(f"/v1/galleries/{HERE}/sweeps", "other_gallery_id"), ("/v1/plans", "gallery_id")]
)
def test_a_gallery_named_in_the_body_must_be_the_caller_s_too(world: World, path: str, name: str, other: str) -> None:
    body = {name: other, **({"dry_run": True} if "sweeps" in path else BODIES["plans"])}  # type: ignore[dict-item]  # a dict
    here = world.key("operator-here", in_gallery(Role.OPERATOR, HERE))
    assert problem_of(world.http.post(path, json=body, headers=header(here)), 403) == "forbidden"
    both = world.key("operator-all", in_gallery(Role.OPERATOR))
    assert world.http.post(path, json=body, headers=header(both)).status_code == (200 if other == ELSEWHERE else 404)


def test_an_encoded_name_opens_no_other_gallery(world: World) -> None:
    key = header(world.key("analyst-here", in_gallery(Role.ANALYST, HERE)))
    for name in (f"{HERE}%2F..%2F{ELSEWHERE}", f"{ELSEWHERE}%00", f"..%2F{ELSEWHERE}", "%74own", "%2A", "*"):
        assert world.http.get(f"/v1/galleries/{name}/subjects", headers=key).status_code in {400, 403, 404}


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "TRACE"])
def test_another_method_is_no_way_around(world: World, method: str) -> None:
    assert world.http.request(method, f"/v1/galleries/{HERE}/cases").status_code == 405


def test_several_credentials_are_none(world: World) -> None:
    key = world.key("analyst-all", in_gallery(Role.ANALYST))
    headers = [("Authorization", f"Bearer {key}"), ("Authorization", f"Bearer {key}")]
    assert problem_of(world.http.get(f"/v1/galleries/{HERE}/cases", headers=headers), 401) == "unauthenticated"
    for text in (f"Basic {key}", f"bdk {key}", key, f"Bearer{key}", "Bearer"):
        answer = world.http.get(f"/v1/galleries/{HERE}/cases", headers={"Authorization": text})
        assert problem_of(answer, 401) == "unauthenticated"


@pytest.mark.parametrize(
    ("purpose", "status"), [("distribution", 200), ("a.b-c_9", 200), ("Two words", 422), ("", 422), ("a" * 65, 422)]
)
def test_a_purpose_is_a_code(world: World, purpose: str, status: int) -> None:
    key = header(world.key("analyst-all", in_gallery(Role.ANALYST)))
    answer = world.http.get(f"/v1/galleries/{HERE}/cases", headers={**key, "X-Purpose": purpose})
    assert answer.status_code == status


def test_a_route_without_a_row_is_no_route() -> None:
    with pytest.raises(LookupError, match="GET /v1/backdoor"):
        rule_of({"GET"}, "/v1/backdoor")
    routes = [(rule.method, rule.path) for rule in RULES]
    check_table(routes)
    with pytest.raises(LookupError, match="/v1/backdoor"):
        check_table([*routes, ("GET", "/v1/backdoor")])
    with pytest.raises(LookupError, match="/metrics"):
        check_table([route for route in routes if route != ("GET", "/metrics")])


def test_nothing_is_looked_at_for_who_may_not(world: World) -> None:
    statements: list[str] = []

    def asked(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if threading.current_thread().name.startswith("AnyIO"):  # the work of a request; others look for jobs meanwhile
            statements.append(statement)

    may, may_not = (world.key(f"{role}-here", in_gallery(role, HERE)) for role in (Role.ANALYST, Role.ENROLLER))
    rule = rule_of({"GET"}, "/v1/galleries/{gallery_id}/subjects")
    event.listen(Engine, "before_cursor_execute", asked)
    try:
        refused = [world.send(rule, may_not, gallery_id) for gallery_id in (HERE, ELSEWHERE, NOWHERE)]
        of_keys = [statement for statement in statements if "client" in statement or statement.startswith("BEGIN")]
        assert statements == of_keys
        assert {answer.status_code for answer in refused} == {403}
        assert world.send(rule, may).status_code == 200
        assert any("FROM subjects" in statement for statement in statements)
    finally:
        event.remove(Engine, "before_cursor_execute", asked)
