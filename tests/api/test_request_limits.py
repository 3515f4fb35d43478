"""Limits are each client's own, and whoever guesses keys is stopped without locking out the desks beside it."""

from pathlib import Path

import httpx
import pytest

from tests.api.credentials import header
from tests.api.live import asking
from tests.api.problems import problem_of

WRONG = header("bdk_0123456789abcdef_" + "A" * 43)
_NOBODY = "127.0.0.1"


def made(client: httpx.Client, admin: dict[str, str], name: str) -> dict[str, str]:
    answer = client.post("/v1/clients", json={"name": name, "grants": ["enroller:*"]}, headers=admin)
    assert answer.status_code == 201, answer.text
    return header(answer.json()["key"])


def guess(client: httpx.Client, times: int, **headers: str) -> list[int]:
    return [client.get("/v1/galleries", headers={**WRONG, **headers}).status_code for _ in range(times)]


def test_one_client_uses_up_nothing_of_anothers(tmp_path: Path) -> None:
    with asking(tmp_path, limit_requests_per_minute=8) as (client, admin):
        one, other = made(client, admin, "one"), made(client, admin, "other")
        found = [client.get("/v1/galleries", headers=one).status_code for _ in range(10)]
        assert found == [200] * 8 + [429] * 2
        assert client.get("/v1/galleries", headers=other).status_code == 200


def test_what_a_client_may_not_do_counts_too(tmp_path: Path) -> None:
    with asking(tmp_path, limit_requests_per_minute=8) as (client, admin):
        one = made(client, admin, "one")
        found = [client.get("/v1/galleries/default/subjects", headers=one).status_code for _ in range(9)]
        assert found == [403] * 8 + [429]


def test_whoever_guesses_keys_is_stopped(tmp_path: Path) -> None:
    with asking(tmp_path, limit_failed_sign_ins_per_minute=5) as (client, _):
        assert guess(client, 5) == [401] * 5
        refused = client.get("/v1/galleries", headers=WRONG)
        assert problem_of(refused, 429) == "rate_limited"
        assert guess(client, 3) == [429] * 3
        for path in ("/readyz", "/metrics"):  # where a key could be tried as well
            assert client.get(path, headers=WRONG).status_code == 429
        assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("path", ["/readyz", "/metrics"])
def test_whoever_guesses_keys_where_machines_ask_is_stopped(tmp_path: Path, path: str) -> None:
    with asking(tmp_path, limit_failed_sign_ins_per_minute=3) as (client, _):
        found = [client.get(path, headers=WRONG).status_code for _ in range(5)]
        assert found == [401] * 3 + [429] * 2
        assert guess(client, 1) == [429]


@pytest.mark.parametrize("path", ["/readyz", "/metrics"])
def test_a_machine_that_asked_from_there_goes_on(tmp_path: Path, path: str) -> None:
    with asking(tmp_path, limit_failed_sign_ins_per_minute=3) as (client, admin):
        assert client.get(path, headers=admin).status_code == 200
        guess(client, 4)
        assert client.get(path, headers=admin).status_code == 200


def test_a_key_that_is_not_known_from_there_is_not_looked_at_then(tmp_path: Path) -> None:
    with asking(tmp_path, limit_failed_sign_ins_per_minute=5) as (client, admin):
        unused = made(client, admin, "one")
        guess(client, 5)
        assert client.get("/v1/galleries", headers=unused).status_code == 429


def test_a_desk_that_worked_from_there_goes_on(tmp_path: Path) -> None:
    with asking(tmp_path, limit_failed_sign_ins_per_minute=5) as (client, admin):
        desk = made(client, admin, "desk")
        assert client.get("/v1/galleries", headers=desk).status_code == 200
        guess(client, 8)
        assert client.get("/v1/galleries", headers=desk).status_code == 200


def test_a_revoked_key_is_no_way_around(tmp_path: Path) -> None:
    with asking(tmp_path, limit_failed_sign_ins_per_minute=5) as (client, admin):
        desk = made(client, admin, "desk")
        assert client.get("/v1/galleries", headers=desk).status_code == 200
        assert client.delete("/v1/clients/desk", headers=admin).status_code == 200
        found = [client.get("/v1/galleries", headers=desk).status_code for _ in range(6)]
        assert found == [401] * 5 + [429]


def test_a_request_without_a_credential_is_no_guess(tmp_path: Path) -> None:
    with asking(tmp_path, limit_failed_sign_ins_per_minute=2) as (client, _):
        assert [client.get("/v1/galleries").status_code for _ in range(6)] == [401] * 6
        assert guess(client, 2) == [401] * 2


def test_behind_a_trusted_proxy_each_address_has_its_own_guesses(tmp_path: Path) -> None:
    with asking(tmp_path, limit_failed_sign_ins_per_minute=3, trusted_proxies="127.0.0.0/8") as (client, _):
        assert guess(client, 5, **{"X-Forwarded-For": "198.51.100.7"}) == [401] * 3 + [429] * 2
        assert guess(client, 1, **{"X-Forwarded-For": "198.51.100.8"}) == [401]
        # what the guesser itself puts before the address that the proxy saw changes nothing
        assert guess(client, 1, **{"X-Forwarded-For": "203.0.113.9, 198.51.100.7"}) == [429]


def test_nobody_else_is_believed_whose_address_it_is(tmp_path: Path) -> None:
    with asking(tmp_path, limit_failed_sign_ins_per_minute=3) as (client, _):
        found = [guess(client, 1, **{"X-Forwarded-For": f"198.51.100.{number}"})[0] for number in range(5)]
        assert found == [401] * 3 + [429] * 2


def test_the_scheme_is_believed_of_a_trusted_proxy_alone(tmp_path: Path) -> None:
    https = {"X-Forwarded-Proto": "https"}
    with asking(tmp_path / "one", trusted_proxies=_NOBODY) as (client, _):
        assert "strict-transport-security" in client.get("/healthz", headers=https).headers
    with asking(tmp_path / "other", trusted_proxies="192.0.2.1") as (client, _):
        assert "strict-transport-security" not in client.get("/healthz", headers=https).headers


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Host": "127.0.0.1.evil.example"}, {"Origin": "https://evil.example"},
     {"Origin": "null"}, {"Host": "["}],
    ids=str,
)  # fmt: skip
def test_where_nobody_is_asked_pages_of_others_get_nothing(client: httpx.Client, headers: dict[str, str]) -> None:
    found = client.post("/v1/galleries", json={"gallery_id": "planted"}, headers=headers)
    assert problem_of(found, 403) == "forbidden"
    assert client.get("/v1/galleries/planted").status_code == 404


@pytest.mark.parametrize(
    "headers", [{"Host": "localhost:9999"}, {"Host": "[::1]:80"}, {"Origin": "http://127.0.0.1:1"}]
)
def test_where_nobody_is_asked_this_machines_own_pages_are_answered(
    client: httpx.Client, headers: dict[str, str]
) -> None:
    assert client.get("/v1/galleries", headers=headers).status_code == 200


def test_where_callers_prove_who_they_are_any_name_of_the_service_will_do(tmp_path: Path) -> None:
    with asking(tmp_path) as (client, admin):
        found = client.get("/v1/galleries", headers={**admin, "Host": "dedup.example", "Origin": "https://x.example"})
        assert found.status_code == 200
