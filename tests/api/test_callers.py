"""What a caller that was proved sees, leaves behind, and gives to others."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from service.access import Grant, Role
from service.acting import Actor, current_actor
from service.store.sql_store import SqlStore
from tests.api.credentials import header, in_gallery
from tests.api.live import fake_app, fake_settings, running, wait_until_ready
from tests.api.problems import problem_of

HERE, ELSEWHERE = "camp", "town"
_SWEEP_S = 60


class World:
    def __init__(self, http: httpx.Client, admin_key: str) -> None:
        self.http = http
        self.admin = header(admin_key)
        self._keys: dict[str, dict[str, str]] = {}

    def caller(self, name: str, *grants: Grant) -> dict[str, str]:
        """Return the header of a client, made at the first call."""
        if name not in self._keys:
            texts = [f"{each.role}:{gallery}" for each in grants for gallery in (each.gallery_ids or {"*"})]
            made = self.http.post("/v1/clients", json={"name": name, "grants": texts}, headers=self.admin)
            assert made.status_code == 201, made.text
            self._keys[name] = header(made.json()["key"])
        return self._keys[name]

    def enrol(self, gallery_id: str, sample: bytes, subject_id: str) -> dict[str, Any]:
        desk = self.caller("desk", in_gallery(Role.ENROLLER))
        files, data = {"sample": sample}, {"subject_id": subject_id}
        made = self.http.post(f"/v1/galleries/{gallery_id}/enrolments", files=files, data=data, headers=desk)
        assert made.status_code == 201, made.text
        found: dict[str, Any] = made.json()
        return found

    def sweep(self) -> int:
        """Compare the two galleries; return the sweep's number once it has ended."""
        runner = self.caller("runner", in_gallery(Role.OPERATOR))
        path = f"/v1/galleries/{HERE}/sweeps"
        job_id = self.http.post(path, json={"other_gallery_id": ELSEWHERE}, headers=runner).json()["job_id"]
        deadline = time.monotonic() + _SWEEP_S
        while time.monotonic() < deadline:
            if self.http.get(f"{path}/{job_id}", headers=runner).json()["state"] == "done":
                return int(job_id)
            time.sleep(0.1)
        raise AssertionError("the sweep did not end")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    app = fake_app(fake_settings(tmp_path_factory.mktemp("callers") / "var", auth="on", key_days=30))
    with running(app) as url, httpx.Client(base_url=url, timeout=30) as http:
        wait_until_ready(http)
        first = app.state.startup.service().clients.begin()
        assert first is not None
        world = World(http, first.key)
        for gallery_id in (HERE, ELSEWHERE):
            http.post("/v1/galleries", json={"gallery_id": gallery_id}, headers=world.admin).raise_for_status()
        yield world


@pytest.fixture(scope="module")
def pair(world: World) -> str:
    """Path of the case of a person who is in both galleries; it belongs to the first."""
    world.enrol(HERE, b"anna/1", "S-here")
    world.enrol(ELSEWHERE, b"anna/2", "S-elsewhere")
    job_id = world.sweep()
    both = world.caller("both", in_gallery(Role.ANALYST, HERE, ELSEWHERE))
    (case,) = world.http.get(f"/v1/galleries/{HERE}/cases", params={"job_id": job_id}, headers=both).json()["items"]
    return f"/v1/galleries/{HERE}/cases/{case['case_id']}"


def test_who_reads_both_galleries_sees_both_people_of_a_pair(world: World, pair: str) -> None:
    case = world.http.get(pair, headers=world.caller("both")).json()
    assert (case["subject_id"], case["candidate"]["subject_id"]) == ("S-here", "S-elsewhere")


def test_who_reads_one_gallery_sees_nothing_of_the_other_person(world: World, pair: str) -> None:
    one = world.caller("one", in_gallery(Role.ANALYST, HERE), in_gallery(Role.AUDITOR, ELSEWHERE))
    listed = world.http.get(pair.rpartition("/")[0], headers=one)
    single = world.http.get(pair, headers=one)
    for answer in (listed, single):
        assert "S-here" in answer.text
        assert "S-elsewhere" not in answer.text
    candidate = single.json()["candidate"]
    hidden = ("subject_id", "encounter_id", "reference_id", "age_at_capture", "years_between")
    assert [candidate[name] for name in hidden] == [None] * 5
    assert candidate["gallery_id"] == ELSEWHERE


def test_a_pair_across_galleries_is_decided_by_who_sees_both(world: World, pair: str) -> None:
    body = {"verdict": "SAME_PERSON"}
    one = world.caller("one", in_gallery(Role.ANALYST, HERE), in_gallery(Role.AUDITOR, ELSEWHERE))
    assert problem_of(world.http.put(f"{pair}/decision", json=body, headers=one), 403) == "forbidden"
    assert world.http.get(pair, headers=world.caller("both")).json()["verdict"] is None
    decided = world.http.put(f"{pair}/decision", json=body, headers=world.caller("both"))
    assert (decided.status_code, decided.json()["verdict"]) == (200, "SAME_PERSON")


def test_a_decision_names_the_caller_that_was_proved(world: World) -> None:
    world.enrol(HERE, b"ben/1", "S-ben")
    (case_id,) = world.enrol(HERE, b"ben/2", "S-ben-again")["case_ids"]
    path = f"/v1/galleries/{HERE}/cases/{case_id}/decision"
    analyst = world.caller("hq", in_gallery(Role.ANALYST, HERE))
    for said, expected in (({}, "client:hq"), ({"decided_by": "client:boss"}, "client:hq/client:boss")):
        body = {"verdict": "SAME_PERSON", **said}
        assert world.http.put(path, json=body, headers=analyst).json()["decided_by"] == expected


def test_the_work_of_a_request_is_done_on_its_caller_s_behalf(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Actor] = []
    as_ever = SqlStore.decide_case

    def decide(*arguments: Any) -> Any:
        seen.append(current_actor())
        return as_ever(*arguments)

    monkeypatch.setattr(SqlStore, "decide_case", decide)
    world.enrol(HERE, b"carl/1", "S-carl")
    (case_id,) = world.enrol(HERE, b"carl/2", "S-carl-again")["case_ids"]
    analyst = world.caller("hq", in_gallery(Role.ANALYST, HERE))
    headers = {**analyst, "X-Purpose": "review.weekly", "X-Request-ID": "r-1"}
    world.http.put(f"/v1/galleries/{HERE}/cases/{case_id}/decision", json={"verdict": None}, headers=headers)
    assert seen == [Actor("client:hq", "review.weekly", None, "r-1")]


def test_a_key_is_shown_once_and_kept_by_nobody_on_the_way(world: World) -> None:
    made = world.http.post("/v1/clients", json={"name": "once", "grants": ["operator:*"]}, headers=world.admin)
    key = made.json()["key"]
    assert made.headers["cache-control"] == "no-store"
    listed = world.http.get("/v1/clients", headers=world.admin)
    assert key.split("_", 2)[2] not in listed.text
    (item,) = (item for item in listed.json()["items"] if item["name"] == "once")
    (kept,) = item["keys"]
    assert (item["grants"], kept["key_id"], kept["last_used_at"]) == (["operator:*"], key.split("_")[1], None)
    ends = datetime.fromisoformat(kept["expires_at"])
    assert timedelta(days=29) < ends - datetime.now(UTC) <= timedelta(days=30)


def test_a_key_that_was_given_a_time_ends_then(world: World) -> None:
    body = {"name": "short", "grants": ["operator:*"], "lifetime_s": 60}
    (kept,) = world.http.post("/v1/clients", json=body, headers=world.admin).json()["keys"]
    lasts = datetime.fromisoformat(kept["expires_at"]) - datetime.fromisoformat(kept["created_at"])
    assert lasts == timedelta(seconds=60)


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "Capital"},
        {"name": "a b"},
        {"name": ""},
        {"name": 65 * "a"},
        {"grants": ["chief:*"]},
        {"grants": ["enroller"]},
        {"grants": ["enroller:../x"]},
        {"grants": 201 * ["enroller:camp"]},
        {"lifetime_s": 59},
        {"lifetime_s": 10**12},
        {"key": "bdk_of_my_own"},
    ],
    ids=str,
)
def test_a_client_that_cannot_be_is_refused(world: World, changed: dict[str, Any]) -> None:
    body = {"name": "wanted", "grants": ["enroller:camp"], **changed}
    assert problem_of(world.http.post("/v1/clients", json=body, headers=world.admin), 422) == "invalid_request"


def test_an_administrator_of_one_gallery_makes_no_clients(world: World) -> None:
    local = world.caller("local-admin", in_gallery(Role.ADMIN, HERE))
    for body in ({"name": "mine", "grants": [f"admin:{HERE}"]}, {"name": "mine", "grants": ["admin:*"]}):
        assert problem_of(world.http.post("/v1/clients", json=body, headers=local), 403) == "forbidden"


def test_the_name_of_a_request_is_its_client_s_own(world: World) -> None:
    one, other = (world.caller(name, in_gallery(Role.ENROLLER, HERE)) for name in ("desk-1", "desk-2"))

    def enrol(desk: dict[str, str], sample: bytes) -> httpx.Response:
        headers = {**desk, "Idempotency-Key": "1"}
        return world.http.post(f"/v1/galleries/{HERE}/enrolments", files={"sample": sample}, headers=headers)

    first, second = enrol(one, b"dora/1"), enrol(other, b"emil/1")
    assert (first.status_code, second.status_code) == (201, 201)
    assert problem_of(enrol(other, b"dora/1"), 409) == "idempotency_key_reused"
    again = enrol(one, b"dora/1")
    assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")


def test_no_key_and_no_caller_is_in_the_files_of_the_record(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    secret = world.admin["Authorization"].split("_", 2)[2].encode()
    folders = [folder for folder in tmp_path_factory.getbasetemp().glob("callers*") if folder.is_dir()]
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert any(file.name == "biodedup.sqlite" for file in files)
    assert [file for file in files if secret in file.read_bytes()] == []
