"""Sharing agreements over HTTP: what each level tells, to whom, and what both sides see."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.credentials import header
from tests.api.live import asking
from tests.api.problems import problem_of

LEVELS = ("hit_or_no_hit", "candidate_references", "full")
PARTNER = "client:partner"
GRANTS = {
    "owner": [f"{role}:owned" for role in ("admin", "enroller", "analyst", "auditor")],
    "partner": [f"{role}:theirs" for role in ("enroller", "analyst", "supervisor", "auditor")],
    "stranger": ["admin:theirs", "auditor:theirs"],
    "everywhere": ["enroller:*", "supervisor:*", "auditor:*"],
    "alone": [],
}


@dataclass(frozen=True, slots=True)
class World:
    url: str
    keys: dict[str, str]

    def client(self, name: str) -> httpx.Client:
        """Return a client that calls with the key of `name`; each of its requests has the same id."""
        return httpx.Client(
            base_url=self.url, timeout=30, headers=header(self.keys[name]) | {"X-Request-ID": "as-given"}
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with asking(tmp_path_factory.mktemp("agreements")) as (admin, key):
        admin.headers.update(key)
        for name in ("owned", "theirs"):
            assert admin.post("/v1/galleries", json={"gallery_id": name}).status_code == 201
        world = World(str(admin.base_url), {name: key_of(admin, name, grants) for name, grants in GRANTS.items()})
        with world.client("everywhere") as desk:
            enrol(desk, "owned", b"anna/1", subject_id="S-anna")
            for number in range(20):
                enrol(desk, "owned", f"many/{number}".encode(), subject_id=f"S-many-{number}")
        yield world


def key_of(admin: httpx.Client, name: str, grants: list[str]) -> str:
    made = admin.post("/v1/clients", json={"name": name, "grants": grants})
    assert made.status_code == 201, made.text
    key: str = made.json()["key"]
    return key


def enrol(client: httpx.Client, gallery: str, sample: bytes, **fields: str) -> dict[str, Any]:
    answer = client.post(f"/v1/galleries/{gallery}/enrolments", files={"sample": sample}, data=fields)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
def owner(world: World) -> Iterator[httpx.Client]:
    with world.client("owner") as client:
        yield client


@pytest.fixture
def partner(world: World) -> Iterator[httpx.Client]:
    with world.client("partner") as client:
        yield client


@pytest.fixture
def stranger(world: World) -> Iterator[httpx.Client]:
    with world.client("stranger") as client:
        yield client


@pytest.fixture
def everywhere(world: World) -> Iterator[httpx.Client]:
    with world.client("everywhere") as client:
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


def test_only_who_may_in_the_gallery_makes_ends_and_sees_its_agreements(
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
        assert {problem_of(answer, 403) for answer in answers} == {"forbidden"}
        assert len({answer.content for answer in answers}) == 1
    assert search(partner, agreement_id, b"anna/99").status_code == 200


def test_a_partner_without_any_role_may_what_its_agreement_says(world: World, owner: httpx.Client) -> None:
    agreement_id = make(owner, partner_id="client:alone", disclosure="hit_or_no_hit")
    with world.client("alone") as alone:
        assert search(alone, agreement_id, b"anna/99").json()["hit"]
        assert [each["agreement_id"] for each in alone.get("/v1/agreements").json()["items"]] == [agreement_id]
        assert problem_of(alone.post("/v1/galleries/owned/identifications", files={"sample": b"anna/9"}), 403)
        assert problem_of(alone.get("/v1/galleries"), 403) == "forbidden"


def entries(client: httpx.Client, path: str, agreement_id: str) -> list[dict[str, Any]]:
    """Return what a chain says of an agreement."""
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = client.get(f"{path}/audit", params={"limit": "200", **after}).json()
        found += page["items"]
        if page["next_after"] is None:
            break
        after = {"after": page["next_after"]}
    return [each for each in found if agreement_id in {each["agreement_id"], each["details"].get("agreement_id")}]


@pytest.mark.parametrize(("sample", "outcome", "found"), [("anna", "hit", "found"), ("nobody", "no_hit", "not_found")])
def test_a_search_stands_in_the_chains_of_both_sides(
    owner: httpx.Client, partner: httpx.Client, sample: str, outcome: str, found: str
) -> None:
    agreement_id = make(owner, disclosure="hit_or_no_hit")
    partner.headers["X-Purpose"] = "double-registration"
    search(partner, agreement_id, f"{sample}/99".encode())

    theirs = entries(partner, "/v1/galleries/theirs", agreement_id)
    own = entries(owner, "/v1/galleries/owned", agreement_id)

    (used,) = theirs
    assert (used["event"], used["outcome"], used["client_id"]) == ("agreement.used", outcome, PARTNER)
    assert (used["purpose"], used["agreement_id"]) == ("double-registration", agreement_id)
    # a hit, and nothing of who it is
    assert set(used["details"]) == {"gallery_id", "use_id", "complete", "error_code"}
    assert [each["event"] for each in own] == ["agreement.made", "identification.made", "agreement.used"]
    assert [each["outcome"] for each in own[1:]] == [found, outcome]
    assert {(each["client_id"], each["agreement_id"]) for each in own[1:]} == {(PARTNER, agreement_id)}
    assert {name: own[2][name] for name in ("details", "outcome", "purpose", "client_id")} == {
        name: used[name] for name in ("details", "outcome", "purpose", "client_id")
    }


def test_the_chain_of_the_service_has_the_searches_of_who_has_no_gallery(
    world: World, owner: httpx.Client, everywhere: httpx.Client
) -> None:
    agreement_id = make(owner, partner_id="client:alone")
    with world.client("alone") as alone:
        search(alone, agreement_id, b"")
    (used,) = entries(everywhere, "/v1", agreement_id)
    assert (used["outcome"], used["details"]["error_code"]) == ("failed", "sample_empty")


def test_an_enrolment_stands_in_the_chain_of_each_gallery_that_it_searched(everywhere: httpx.Client) -> None:
    found = enrol(everywhere, "theirs", b"anna/41", also_search="owned", subject_id="S-41")
    assert found["outcome"] == "DUPLICATE"
    enrol(everywhere, "theirs", b"another/41", also_search="owned")

    pages = everywhere.get("/v1/galleries/owned/audit", params={"limit": 200, "event": "gallery.searched"}).json()

    first, second = pages["items"][-2:]
    assert (first["outcome"], first["client_id"]) == ("found", "client:everywhere")
    assert first["details"] == {"candidates": 1, "complete": True, "for_gallery_id": "theirs"}
    assert (second["outcome"], second["details"]["candidates"]) == ("not_found", 0)
    report = everywhere.get("/v1/galleries/owned/subjects/S-anna/access-report").json()
    assert ("gallery.searched", "candidate") in {(each["event"], each["role"]) for each in report["looks"]}
    assert found["case_ids"][0] in [each["case_id"] for each in report["cases"]]


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
        {"partner_id": "partner-agency"},
        {"unknown": 1},
    ],
)
def test_terms_that_make_no_sense_are_refused(owner: httpx.Client, wrong: dict[str, object]) -> None:
    answer = owner.post("/v1/galleries/owned/agreements", json=terms(**wrong))
    assert problem_of(answer, 422) == "invalid_request"


def test_a_partners_search_counts_against_the_limits_of_its_client(tmp_path: Path) -> None:
    with asking(tmp_path, limit_searches_per_minute=2) as (admin, key):
        admin.headers.update(key)
        world = World(str(admin.base_url), {"partner": key_of(admin, "partner", [])})
        agreement_id = admin.post("/v1/galleries/default/agreements", json=terms()).json()["agreement_id"]
        with world.client("partner") as partner:
            answers = [search(partner, agreement_id, b"anna/99") for _ in range(3)]
            assert [answer.status_code for answer in answers] == [200, 200, 429]
            assert problem_of(answers[2], 429) == "rate_limited"
            # what was refused before it was looked at is no use of the agreement
            assert len(partner.get(f"/v1/agreements/{agreement_id}/uses").json()["items"]) == 2


def test_an_enroller_names_only_galleries_in_which_it_may_enrol(partner: httpx.Client) -> None:
    path = "/v1/galleries/theirs/enrolments"
    answer = partner.post(path, files={"sample": b"anna/5"}, data={"also_search": "owned"})
    unknown = partner.post(path, files={"sample": b"anna/5"}, data={"also_search": "nowhere"})
    assert problem_of(answer, 403) == problem_of(unknown, 403) == "forbidden"
    assert answer.content == unknown.content


def test_people_of_another_gallery_are_named_to_those_who_may_see_them(
    everywhere: httpx.Client, partner: httpx.Client
) -> None:
    found = enrol(everywhere, "theirs", b"anna/7", also_search="owned", subject_id="S-41")
    path = f"/v1/galleries/theirs/enrolments/{found['enrolment_id']}"
    assert [each["subject_id"] for each in everywhere.get(path).json()["candidates"]] == ["S-anna"]

    (seen,) = partner.get(path).json()["candidates"]

    assert (seen["gallery_id"], seen["score"]) == ("owned", found["candidates"][0]["score"])
    assert (seen["subject_id"], seen["encounter_id"], seen["reference_id"]) == (None, None, None)
    listed = partner.get("/v1/galleries/theirs/enrolments?limit=200").json()["items"][-1]
    assert listed["candidates"] == [seen]


def test_sizes_of_another_gallery_are_told_to_those_who_have_a_role_there(
    everywhere: httpx.Client, partner: httpx.Client
) -> None:
    found = enrol(everywhere, "theirs", b"stranger/71", also_search="owned")
    path = f"/v1/galleries/theirs/enrolments/{found['enrolment_id']}"
    own, other = found["searched"]["galleries"]
    assert own["gallery_size"] + other["gallery_size"] == found["searched"]["gallery_size"]
    assert other["gallery_size"] > 20
    assert everywhere.get(path).json() == found

    seen = partner.get(path).json()

    (left_out,) = seen["warnings"]
    assert left_out == "Warnings, thresholds and sizes are left out: you have no role in owned."
    assert seen["searched"]["miss_bound"] is None
    report = partner.get(f"/v1/galleries/theirs/subjects/{found['subject_id']}/access-report").json()
    assert report["encounters"][0]["enrolment"]["warnings"] == [left_out]
    whole = everywhere.get(f"/v1/galleries/theirs/subjects/{found['subject_id']}/access-report").json()
    assert whole["encounters"][0]["enrolment"]["warnings"] == found["warnings"]
    nothing = {"gallery_size": None, "high_water_mark": None, "miss_bound": None}
    assert seen["searched"]["galleries"] == [own, other | nothing]
    assert seen["searched"]["gallery_size"] == own["gallery_size"]
    assert (seen["thresholds"], seen["searched"]["filter"], seen["outcome"]) == (None, None, found["outcome"])
    assert partner.get("/v1/galleries/theirs/enrolments?limit=200").json()["items"][-1] == seen


def test_who_may_not_see_the_other_person_does_not_decide(everywhere: httpx.Client, partner: httpx.Client) -> None:
    found = enrol(everywhere, "theirs", b"anna/8", also_search="owned", subject_id="S-41")
    path = f"/v1/galleries/theirs/cases/{found['case_ids'][0]}/decision"
    verdict = {"verdict": "SAME_PERSON"}
    assert problem_of(partner.put(path, json=verdict), 403) == "forbidden"
    assert everywhere.put(path, json=verdict).status_code == 200
    report = everywhere.get("/v1/galleries/owned/subjects/S-anna/access-report").json()
    assert ("case.decided", "theirs") in {(each["event"], each["chain"]) for each in report["looks"]}
