"""Each attack is run on a service with a hole, and finds it: an attack that finds nothing anywhere shows nothing."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jinja2 import Environment
from jwt.utils import base64url_decode
from playwright.sync_api import Browser

from service import auditing
from service.access import ClientKey
from service.api import (
    access,
    cases,
    enrolments,
    images,
    middleware,
    oidc,
    plans,
    request_checks,
    samples,
    strictness,
    subjects,
    sweeps,
)
from service.api.connections import PatientProtocol
from service.api.middleware import RequestMiddleware
from service.api_keys import ApiKeys
from service.cli import subjects as subject_commands
from service.errors import Unauthenticated
from service.evaluation import report
from service.logs import log_event
from service.store.sql_store import SqlStore
from tests.fake_embedder import FakeEmbedder
from tests.security import bombs, pages, rights, texts, times, tokens, wire
from tests.security.operations import operations
from tests.security.target import ELSEWHERE, FAILED_SIGN_INS, MARK, Target, target
from tests.server import Server

Patch = pytest.MonkeyPatch
Hole = Callable[[Patch], None]

SLEEP_S = 0.003


@pytest.fixture
def prey(tmp_path: Path) -> Iterator[Target]:
    """A target of the test's own: an attack that gets in may change it."""
    with target(tmp_path) as found:
        yield found


def guard_that_lets_everybody_in(patch: Patch) -> None:
    patch.setattr(access.Rule, "check", lambda *_: None)


def bodies_that_may_name_any_gallery(patch: Patch) -> None:
    for module in (cases, plans, sweeps):
        patch.setattr(module, "require", lambda *_: None)


def look_up_without_the_gallery(name: str) -> Hole:
    """The record finds an object by its id alone, in whichever gallery it is."""

    def plant(patch: Patch) -> None:
        as_ever = getattr(SqlStore, name)

        def anywhere(store: SqlStore, gallery_id: str, *rest: Any) -> Any:
            for each in [gallery_id, *(found.gallery_id for found in store.galleries())]:
                try:
                    return as_ever(store, each, *rest)
                except Exception as error:  # noqa: BLE001  (of whatever kind: it is not there)
                    last = error
            raise last

        patch.setattr(SqlStore, name, anywhere)

    return plant


_LOOK_UPS = ("subject", "case", "kept_sample")


@pytest.mark.parametrize(
    "hole",
    [guard_that_lets_everybody_in, bodies_that_may_name_any_gallery, *map(look_up_without_the_gallery, _LOOK_UPS)],
    ids=["guard", "bodies", *_LOOK_UPS],
)
def test_rights_that_are_not_held_to_galleries_are_found(prey: Target, monkeypatch: Patch, hole: Hole) -> None:
    hole(monkeypatch)
    assert rights.foreign_objects(prey)


def verified_less(**left_out: bool) -> Hole:
    """A verifier that leaves out a check of PyJWT."""

    def plant(patch: Patch) -> None:
        as_ever = jwt.decode

        def decode(token: str, key: Any, **asked: Any) -> Any:
            return as_ever(token, key, **{**asked, "options": {**asked["options"], **left_out}})

        patch.setattr(jwt, "decode", decode)

    return plant


def taken_too(is_taken: Callable[[str, Any], bool]) -> Hole:
    """A verifier that takes some tokens whatever the library says."""

    def plant(patch: Patch) -> None:
        as_ever, read_as_ever = jwt.decode, oidc._read_header

        def read(token: str) -> tuple[str | None, str]:
            try:
                return read_as_ever(token)
            except Unauthenticated:
                return "k1", "RS256"

        def decode(token: str, key: Any, **asked: Any) -> Any:
            if is_taken(token, key):
                return as_ever(token, options={"verify_signature": False})
            return as_ever(token, key, **asked)

        patch.setattr(oidc, "_read_header", read)
        patch.setattr(jwt, "decode", decode)

    return plant


def _is_unsigned(token: str, _key: Any) -> bool:
    return str(jwt.get_unverified_header(token).get("alg")).lower() == "none"


def _is_signed_with_the_public_key(token: str, key: Any) -> bool:
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed_part, _, signature = token.rpartition(".")
    return jwt.get_algorithm_by_name("HS256").verify(signed_part.encode(), pem, base64url_decode(signature))


def any_kid_is_the_first_key(patch: Patch) -> None:
    as_ever = oidc._read_header
    patch.setattr(oidc, "_read_header", lambda token: ("k1", as_ever(token)[1]))


def keys_are_fetched_from_where_a_token_says(patch: Patch) -> None:
    as_ever = oidc._read_header

    def read(token: str) -> tuple[str | None, str]:
        address = jwt.get_unverified_header(token).get("jku") if token.count(".") == 2 else None
        if address:
            httpx.get(address)
        return as_ever(token)

    patch.setattr(oidc, "_read_header", read)


def refusals_that_say_why(patch: Patch) -> None:
    patch.setattr(oidc, "_read_header", _told(oidc._read_header))


def _told(as_ever: Callable[[str], tuple[str | None, str]]) -> Callable[[str], tuple[str | None, str]]:
    def read(token: str) -> tuple[str | None, str]:
        try:
            return as_ever(token)
        except Unauthenticated:
            raise Unauthenticated("the header of this token is wrong") from None

    return read


# what must be among the findings: a hole may make other tokens fail in other ways too
_TOKEN_HOLES = {
    "with another content: 200": verified_less(verify_signature=False),
    "{'aud': 'another'}: 200": verified_less(verify_aud=False),
    "{'iss': 'https://login.example.org'}: 200": verified_less(verify_iss=False),
    "{'exp': 0}: 200": verified_less(verify_exp=False),
    "alg 'none', not signed: 200": taken_too(_is_unsigned),
    "alg 'HS256', signed with the public key, Encoding.PEM: 200": taken_too(_is_signed_with_the_public_key),
    "kid '/etc/passwd', the provider's key: 200": any_kid_is_the_first_key,
    "an address in a token was asked: /jwks": keys_are_fetched_from_where_a_token_says,
    "the answer tells what is wrong with a token": refusals_that_say_why,
}


@pytest.mark.parametrize(("finding", "hole"), _TOKEN_HOLES.items(), ids=_TOKEN_HOLES)
def test_a_verifier_that_takes_more_than_it_should_is_found(
    victim: Target, monkeypatch: Patch, finding: str, hole: Hole
) -> None:
    hole(monkeypatch)
    assert finding in tokens.forged_tokens(victim)


def test_a_verifier_that_takes_tokens_of_tomorrow_is_found(victim: Target, monkeypatch: Patch) -> None:
    verified_less(verify_nbf=False)(monkeypatch)
    assert [each for each in tokens.forged_tokens(victim) if each.startswith("{'nbf'")]


def keys_that_are_remembered_after_their_end(patch: Patch) -> None:
    patch.setattr(ApiKeys, "forget", lambda _: None)


def keys_that_never_end(patch: Patch) -> None:
    patch.setattr(ClientKey, "holds_at", lambda *_: True)


def one_room_for_the_names_of_requests(patch: Patch) -> None:
    patch.setattr(enrolments, "own_name", lambda _caller, name: name)


def one_room_for_the_names_of_erasures(patch: Patch) -> None:
    patch.setattr(subjects, "own_name", lambda _caller, name: name)


def tokens_that_are_remembered(patch: Patch) -> None:
    as_ever, kept = oidc.OidcProvider._proven, {}

    def proven(provider: Any, token: str) -> Any:
        if token not in kept:
            kept[token] = as_ever(provider, token)
        return kept[token]

    patch.setattr(oidc.OidcProvider, "_proven", proven)


_REPLAY_HOLES = {
    "a revoked key is let in": keys_that_are_remembered_after_their_end,
    "an expired key is let in": keys_that_never_end,
    "a token is let in after its end": tokens_that_are_remembered,
    "the Idempotency-Key of another client is known, and in the way": one_room_for_the_names_of_requests,
    "the receipt of an erasure is given to another client": one_room_for_the_names_of_erasures,
}


@pytest.mark.parametrize(("finding", "hole"), _REPLAY_HOLES.items(), ids=_REPLAY_HOLES)
def test_what_holds_longer_than_it_should_is_found(
    victim: Target, monkeypatch: Patch, finding: str, hole: Hole
) -> None:
    hole(monkeypatch)
    assert finding in rights.replayed(victim)


def unknown_keys_that_take_a_shorter_way(patch: Patch) -> None:
    as_ever = ApiKeys.look_up

    def look_up(keys: ApiKeys, text: str) -> Any:
        return None if keys._clients.of_key(text.split("_")[1]) is None else as_ever(keys, text)

    patch.setattr(ApiKeys, "look_up", look_up)


def test_guesses_without_end_are_found(prey: Target) -> None:
    """The limit is off."""
    found = rights.guessed_keys(prey)
    assert any("guesses of one address" in each for each in found)
    assert any("guess that is right" in each for each in found)


def test_keys_that_are_compared_otherwise_are_found(tmp_path: Path, monkeypatch: Patch) -> None:
    with target(tmp_path, limit_failed_sign_ins_per_minute=FAILED_SIGN_INS) as asked:
        unknown_keys_that_take_a_shorter_way(monkeypatch)
        assert any("constant time" in each for each in rights.guessed_keys(asked))


def bodies_without_an_end(patch: Patch) -> None:
    patch.setattr(RequestMiddleware, "_limited", lambda _self, _scope, receive: receive)


def requests_that_nobody_checks(patch: Patch) -> None:
    patch.setattr(request_checks, "check", lambda _: None)


@pytest.mark.parametrize("hole", [bodies_without_an_end, requests_that_nobody_checks])
def test_requests_without_a_limit_are_found(victim: Target, monkeypatch: Patch, hole: Hole) -> None:
    hole(monkeypatch)
    monkeypatch.setattr(wire, "PATIENCE_S", 1.0)
    assert wire.oversized_requests(victim)


def test_ambiguous_requests_that_are_worked_on_are_found(victim: Target, monkeypatch: Patch) -> None:
    requests_that_nobody_checks(monkeypatch)
    assert wire.smuggled_requests(victim)


def headers_without_a_deadline(patch: Patch) -> None:
    patch.setattr(PatientProtocol, "_expect_within", lambda *_: None)


def readers_without_a_deadline(patch: Patch) -> None:
    patch.setattr(PatientProtocol, "_expect_reader", lambda _: None)


@pytest.mark.parametrize("hole", [headers_without_a_deadline, readers_without_a_deadline])
def test_connections_without_a_deadline_are_found(tmp_path: Path, monkeypatch: Patch, hole: Hole) -> None:
    hole(monkeypatch)
    monkeypatch.setattr(wire, "PATIENCE_S", 2.0)
    with target(tmp_path, **wire.DEADLINES) as slow:
        assert wire.slow_requests(slow)


def paths_in_the_log(patch: Patch) -> None:
    as_ever = RequestMiddleware._record

    def record(middle: Any, scope: Any, status: int, seconds: float) -> None:
        as_ever(middle, scope, status, seconds)
        log_event(middleware._log, "request.answered", route=scope["path"][:200])

    patch.setattr(RequestMiddleware, "_record", record)


def lines_as_they_come(patch: Patch) -> None:
    as_ever = RequestMiddleware._record

    def record(middle: Any, scope: Any, status: int, seconds: float) -> None:
        as_ever(middle, scope, status, seconds)
        middleware._log.info("%s", scope["path"])

    patch.setattr(RequestMiddleware, "_record", record)
    patch.setattr("service.logs.JsonFormatter.format", lambda _self, record: record.getMessage())


def any_request_id(patch: Patch) -> None:
    def given(scope: Any) -> str:
        return unquote(dict(scope["headers"]).get(b"x-request-id", b"none").decode("latin-1"))

    patch.setattr(middleware, "_given_id", given)


def tables_with_formulas(patch: Patch) -> None:
    patch.setattr(auditing, "cell", str)


@pytest.mark.parametrize("hole", [paths_in_the_log, lines_as_they_come, any_request_id, tables_with_formulas])
def test_texts_that_leave_their_line_or_cell_are_found(victim: Target, monkeypatch: Patch, hole: Hole) -> None:
    hole(monkeypatch)
    assert texts.injected_lines(victim)


def test_a_statement_that_is_put_together_is_found(victim: Target, monkeypatch: Patch) -> None:
    as_ever = SqlStore.decide_case

    def decide(store: SqlStore, gallery_id: str, case_id: int, decision: Any) -> Any:
        with store._reading() as connection:
            connection.exec_driver_sql(f"SELECT '{decision.decided_by}'")
        return as_ever(store, gallery_id, case_id, decision)

    monkeypatch.setattr(SqlStore, "decide_case", decide)
    (deciding,) = (each for each in operations() if each.path.endswith("/decision"))
    assert texts.injected_queries(victim, [deciding])


def addresses_in_json_are_asked(patch: Patch) -> None:
    as_ever = strictness.check_json

    def check(data: bytes) -> None:
        as_ever(data)
        for address in re.findall(rb"http://[^\"]+", data):
            httpx.get(address.decode(), timeout=1)

    patch.setattr(samples, "check_json", check)


def addresses_in_images_are_asked(patch: Patch) -> None:
    as_ever = FakeEmbedder.extract

    def extract(embedder: Any, data: bytes, policy: Any) -> Any:
        for address in re.findall(rb'SYSTEM "(http://[^"]+)', data):
            with suppress(httpx.HTTPError):
                httpx.get(address.decode(), timeout=1)
        return as_ever(embedder, data, policy)

    patch.setattr(FakeEmbedder, "extract", extract)


_ASKING = [addresses_in_json_are_asked, addresses_in_images_are_asked, keys_are_fetched_from_where_a_token_says]


@pytest.mark.parametrize("hole", _ASKING)
def test_addresses_that_are_asked_are_found(victim: Target, monkeypatch: Patch, hole: Hole) -> None:
    hole(monkeypatch)
    assert texts.followed_addresses(victim)


def guard_that_looks_first(patch: Patch) -> None:
    as_ever = access.Rule.check

    def check(rule: Any, caller: Any, gallery_id: str | None) -> None:
        if gallery_id == ELSEWHERE:
            time.sleep(SLEEP_S)
        as_ever(rule, caller, gallery_id)

    patch.setattr(access.Rule, "check", check)


def record_that_looks_everywhere(patch: Patch) -> None:
    as_ever = SqlStore.subject

    def subject(store: SqlStore, gallery_id: str, subject_id: str) -> Any:
        if MARK in subject_id:
            time.sleep(SLEEP_S)
        return as_ever(store, gallery_id, subject_id)

    patch.setattr(SqlStore, "subject", subject)


def digests_made_only_for_known_keys(patch: Patch) -> None:
    as_ever = ApiKeys.look_up

    def look_up(keys: ApiKeys, text: str) -> Any:
        if keys._clients.of_key(text.split("_")[1]) is not None:
            time.sleep(SLEEP_S)
        return as_ever(keys, text)

    patch.setattr(ApiKeys, "look_up", look_up)


_TIME_HOLES = {
    "another's gallery": guard_that_looks_first,
    "another's subject": record_that_looks_everywhere,
    "a known key id": digests_made_only_for_known_keys,
}


@pytest.mark.parametrize(("about", "hole"), _TIME_HOLES.items(), ids=_TIME_HOLES)
def test_three_milliseconds_more_are_found(victim: Target, monkeypatch: Patch, about: str, hole: Hole) -> None:
    hole(monkeypatch)
    assert any("ms" in each for each in times.told_by_time(victim, about))


@pytest.mark.models
def test_pictures_that_are_decoded_whatever_they_claim_are_found(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"BIODEDUP_MAX_PIXELS": "100000000", "BIODEDUP_DECODE_TIMEOUT_S": "60"}) as server:
        assert bombs.image_bombs(server, [bombs.over_the_limit()])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if pages.CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with pages.browsing() as found:
        yield found


def templates_that_escape_nothing(patch: Patch) -> None:
    for module in (subject_commands, report):
        patch.setattr(module, "Environment", lambda autoescape, **options: Environment(autoescape=False, **options))


def samples_that_are_pages(patch: Patch) -> None:
    patch.setattr(images, "media_type_of", lambda _: "text/html")


@pytest.mark.browser
def test_markup_that_becomes_part_of_a_report_is_found(
    victim: Target, browser: Browser, tmp_path: Path, monkeypatch: Patch
) -> None:
    templates_that_escape_nothing(monkeypatch)
    found = pages.hostile_reports(victim, browser, tmp_path)
    assert {each.partition(":")[0] for each in found} == {"access report", "evaluation"}


@pytest.mark.browser
def test_markup_that_becomes_part_of_an_answer_is_found(victim: Target, browser: Browser, monkeypatch: Patch) -> None:
    samples_that_are_pages(monkeypatch)
    assert pages.hostile_answers(victim, browser)


@pytest.mark.browser
def test_foreign_pages_that_may_send_anything_are_found(tmp_path: Path, browser: Browser, monkeypatch: Patch) -> None:
    monkeypatch.setattr(request_checks, "check_local", lambda _: None)
    with target(tmp_path, auth="off") as asked:
        assert pages.cross_site_requests(asked, browser)
