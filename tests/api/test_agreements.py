"""Sharing agreements over HTTP: what each level tells, to whom, and what both sides see."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access import Caller, Grant, Role
from tests.api.live import fake_app, fake_settings, running, wait_until_ready
from tests.api.problems import problem_of

OWNER, PARTNER, STRANGER = "client:owner", "client:partner", "client:stranger"
LEVELS = ("hit_or_no_hit", "candidate_references", "full")
GRANTS = {
    OWNER: (Grant(Role.ADMIN, frozenset({"owned"})), Grant(Role.ENROLLER, frozenset({"owned"}))),
    PARTNER: (Grant(Role.ENROLLER, frozenset({"theirs"})), Grant(Role.ANALYST, frozenset({"theirs"}))),
    STRANGER: (Grant(Role.ADMIN, frozenset({"theirs"})),),
}


class KnownCallers:
    """Stands in for what proves who calls: the request names its caller."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for name, value in scope.get("headers", ()):
            if name == b"x-test-caller":
                client_id = value.decode()
                scope.setdefault("state", {})["caller"] = Caller(client_id, GRANTS[client_id])
        await self._app(scope, receive, send)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    app = fake_app(fake_settings(tmp_path_factory.mktemp("agreements") / "var"))
    app.add_middleware(KnownCallers)
    with running(app) as url:
        with httpx.Client(base_url=url, timeout=30) as client:
            wait_until_ready(client)
            for name in ("owned", "theirs"):
                assert client.post("/v1/galleries", json={"gallery_id": name}).status_code == 201
            enrol(client, "owned", b"anna/1", subject_id="S-anna")
            for number in range(20):
                enrol(client, "owned", f"many/{number}".encode(), subject_id=f"S-many-{number}")
        yield url


def enrol(client: httpx.Client, gallery: str, sample: bytes, **fields: str) -> dict[str, Any]:
    answer = client.post(f"/v1/galleries/{gallery}/enrolments", files={"sample": sample}, data=fields)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def client_of(url: str, caller: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=30, headers={"X-Test-Caller": caller, "X-Request-ID": "as-given"})


@pytest.fixture
def owner(url: str) -> Iterator[httpx.Client]:
    with client_of(url, OWNER) as client:
        yield client


@pytest.fixture
def partner(url: str) -> Iterator[httpx.Client]:
    with client_of(url, PARTNER) as client:
        yield client


@pytest.fixture
def stranger(url: str) -> Iterator[httpx.Client]:
    with client_of(url, STRANGER) as client:
        yield client


def terms(**changed: object) -> dict[str, object]:
    ends_at = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    wanted = {"partner_id": PARTNER, "purpose": "double-registration", "disclosure": "full", "ends_at": ends_at}
    return wanted | changed


def make(owner: httpx.Client, **changed: object) -> str:
    answer = owner.post("/v1/galleries/owned/agreements", json=terms(**changed))
    assert answer.status_code == 201, answer.text
    agreement_id: str = answer.json()["agreement_id"]
    return agreement_id


def search(client: httpx.Client, agreement_id: str, sample: bytes) -> httpx.Response:
    return client.post(f"/v1/agreements/{agreement_id}/identifications", files={"sample": sample})


def test_an_agreement_is_seen_by_both_sides(owner: httpx.Client, partner: httpx.Client) -> None:
    agreement_id = make(owner, description="Annex 2 of the letter of May")

    (mine,) = [each for each in partner.get("/v1/agreements?limit=200").json()["items"]
               if each["agreement_id"] == agreement_id]  # fmt: skip
    own = owner.get("/v1/galleries/owned/agreements?limit=200").json()["items"]
    (theirs,) = [each for each in own if each["agreement_id"] == agreement_id]

    assert (mine["state"], mine["gallery_id"], mine["searches_per_day"]) == ("active", "owned", 100)
    assert {name: theirs[name] for name in mine} == mine
    assert set(theirs) - set(mine) == {"created_by", "ended_by"}


def test_hit_or_no_hit_tells_nothing_else(owner: httpx.Client, partner: httpx.Client) -> None:
    agreement_id = make(owner, disclosure="hit_or_no_hit")

    answers = {name: search(partner, agreement_id, f"{name}/99".encode()) for name in ("anna", "many", "nobody")}

    assert {answer.status_code for answer in answers.values()} == {200}
    for name, answer in answers.items():
        assert answer.json() == {
            "kind": "identification_only",
            "agreement_id": agreement_id,
            "hit": name != "nobody",
            "complete": True,
        }
    assert answers["anna"].content == answers["many"].content  # one candidate, and twenty
    assert answers["anna"].content.replace(b"true", b"false", 1) == answers["nobody"].content
    headers = [{**answer.headers, "date": "", "content-length": ""} for answer in answers.values()]
    assert headers[0] == headers[1] == headers[2]
    assert answers["anna"].headers["content-length"] == answers["many"].headers["content-length"]


def test_candidate_references_are_the_owners_ids_in_their_order(owner: httpx.Client, partner: httpx.Client) -> None:
    agreement_id = make(owner, disclosure="candidate_references")

    body = search(partner, agreement_id, b"anna/99").json()

    assert body == {
        "kind": "identification_only",
        "agreement_id": agreement_id,
        "hit": True,
        "complete": True,
        "candidates": [{"rank": 1, "subject_id": "S-anna"}],
    }
    many = search(partner, agreement_id, b"many/99").json()["candidates"]
    assert [each["rank"] for each in many] == list(range(1, 21))
    assert search(partner, agreement_id, b"nobody/99").json()["candidates"] == []


def test_full_is_what_the_gallery_itself_answers(owner: httpx.Client, partner: httpx.Client) -> None:
    agreement_id = make(owner, disclosure="full")

    body = search(partner, agreement_id, b"anna/99").json()

    own = owner.post("/v1/galleries/owned/identifications", files={"sample": b"anna/99"}).json()
    assert body == {**own, "kind": "identification_only", "agreement_id": agreement_id}


@pytest.mark.parametrize("level", LEVELS)
def test_a_search_leaves_nothing_but_its_use(owner: httpx.Client, partner: httpx.Client, level: str) -> None:
    before = owner.get("/v1/galleries/owned").json()["counts"]
    agreement_id = make(owner, disclosure=level)
    search(partner, agreement_id, b"anna/99")
    search(partner, agreement_id, b"")

    assert owner.get("/v1/galleries/owned").json()["counts"] == before
    theirs = partner.get(f"/v1/agreements/{agreement_id}/uses").json()
    assert theirs == owner.get(f"/v1/galleries/owned/agreements/{agreement_id}/uses").json()
    assert [(each["used_by"], each["outcome"], each["error_code"]) for each in theirs["items"]] == [
        (PARTNER, "hit", None),
        (PARTNER, "failed", "sample_empty"),
    ]


def test_what_may_not_be_used_is_one_and_the_same_answer(
    owner: httpx.Client, partner: httpx.Client, stranger: httpx.Client
) -> None:
    ended, running_one = make(owner), make(owner)
    owner.post(f"/v1/galleries/owned/agreements/{ended}/end")
    later = make(owner, starts_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    answers = [
        search(partner, ended, b"anna/99"),
        search(partner, later, b"anna/99"),
        search(partner, "f" * 32, b"anna/99"),
        search(stranger, running_one, b"anna/99"),
        search(owner, running_one, b"anna/99"),
        search(partner, ended, b"no face"),
        stranger.get(f"/v1/agreements/{running_one}/uses"),
        owner.get(f"/v1/galleries/owned/agreements/{'f' * 32}/uses"),
    ]
    assert {problem_of(answer, 404) for answer in answers} == {"agreement_not_found"}
    assert len({answer.content for answer in answers}) == 1


def test_only_an_admin_of_the_gallery_makes_ends_and_sees_its_agreements(
    owner: httpx.Client, partner: httpx.Client, stranger: httpx.Client
) -> None:
    agreement_id = make(owner)
    path = "/v1/galleries/owned/agreements"
    for client in (partner, stranger):
        answers = [
            client.post(path, json=terms()),
            client.get(path),
            client.post(f"{path}/{agreement_id}/end"),
            client.get(f"{path}/{agreement_id}/uses"),
            client.get("/v1/galleries/nowhere/agreements"),
        ]
        assert {problem_of(answer, 404) for answer in answers} == {"gallery_not_found"}
        assert len({answer.content for answer in answers}) == 1
    assert search(partner, agreement_id, b"anna/99").status_code == 200


def test_the_searches_of_a_day_run_out(owner: httpx.Client, partner: httpx.Client) -> None:
    agreement_id = make(owner, searches_per_day=1)
    assert search(partner, agreement_id, b"anna/99").status_code == 200

    answer = search(partner, agreement_id, b"anna/99")

    assert problem_of(answer, 429) == "agreement_limit_reached"
    assert 0 < int(answer.headers["retry-after"]) <= 86_400


@pytest.mark.parametrize(
    "wrong",
    [
        {"disclosure": "everything"},
        {"ends_at": None},
        {"ends_at": "2020-01-01T00:00:00Z"},
        {"searches_per_day": 0},
        {"purpose": "two words"},
        {"partner_id": ""},
        {"unknown": 1},
    ],
)
def test_terms_that_make_no_sense_are_refused(owner: httpx.Client, wrong: dict[str, object]) -> None:
    answer = owner.post("/v1/galleries/owned/agreements", json=terms(**wrong))
    assert problem_of(answer, 422) == "invalid_request"


def test_an_enroller_names_only_galleries_in_which_it_may_enrol(partner: httpx.Client, owner: httpx.Client) -> None:
    path = "/v1/galleries/theirs/enrolments"
    answer = partner.post(path, files={"sample": b"anna/5"}, data={"also_search": "owned"})
    unknown = partner.post(path, files={"sample": b"anna/5"}, data={"also_search": "nowhere"})
    assert problem_of(answer, 404) == problem_of(unknown, 404) == "gallery_not_found"
    assert answer.content == unknown.content


def test_people_of_another_gallery_are_named_to_those_who_may_see_them(url: str, partner: httpx.Client) -> None:
    with httpx.Client(base_url=url, timeout=30) as everywhere:
        found = enrol(everywhere, "theirs", b"anna/7", also_search="owned")
        path = f"/v1/galleries/theirs/enrolments/{found['enrolment_id']}"
        assert [each["subject_id"] for each in everywhere.get(path).json()["candidates"]] == ["S-anna"]

    (seen,) = partner.get(path).json()["candidates"]

    assert (seen["gallery_id"], seen["score"]) == ("owned", found["candidates"][0]["score"])
    assert (seen["subject_id"], seen["encounter_id"], seen["reference_id"]) == (None, None, None)
    listed = partner.get("/v1/galleries/theirs/enrolments").json()["items"][-1]
    assert listed["candidates"] == [seen]
