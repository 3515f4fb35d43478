"""Attacks on what a caller may: other people's objects, guessed keys, credentials and requests used again."""

import hmac
import itertools
import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, event

from service import api_keys
from service.access import Client, Role
from service.api.access import Scope
from service.api.oidc import LEEWAY_S
from tests.api.credentials import claims, in_gallery, signed
from tests.security.operations import Operation, operations, with_text
from tests.security.target import ELSEWHERE, FAILED_SIGN_INS, HERE, MARK, NOWHERE, PROVIDER_KEY, Target

Ids = Mapping[str, frozenset[Any]]
"""By kind: `subject_id`, `case_id`..."""

_UNKNOWN_NUMBER, _UNKNOWN_TEXT = 987_654, "no-such-id"
_ID = re.compile(r"(\w+_)?id|position|name")
_REFUSED = {401, 403}


def foreign_objects(target: Target) -> list[str]:
    """Broken object-level authorisation: everything of another gallery, by each id, in each place that takes one.

    The caller has every role in one gallery. With an id of the other one it must learn no more than with an id that
    nobody has, and change nothing.
    """
    all_rights, insider = target.key(), target.key(galleries=(HERE,))
    own = harvest(target, all_rights, HERE)
    foreign = _only_there(harvest(target, all_rights, ELSEWHERE), own)
    before = _content(target, all_rights)
    found: list[str] = []
    sent: list[str] = []
    # ids in bodies last: an enrolment may be called as one over there is, and lists name it from then on
    for requests in (_in_addresses, _in_bodies):
        for operation in operations():
            if operation.rule.scope is not Scope.OPEN:
                for pair in requests(operation, own, foreign):
                    found += _compare(target, operation, insider, pair, sent)
    if _content(target, all_rights) != before:
        found.append("the other gallery was changed")
    return found


_Pair = tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]], str]
"""Two requests (path, keywords), with an id of the other gallery and with one that nobody has; and which id it is."""


def _in_addresses(operation: Operation, own: Ids, foreign: Ids) -> Iterator[_Pair]:
    names = operation.path_names
    body = operation.body()
    plain = {"json": body} if body is not None else {}
    if "gallery_id" in names:
        unknown_ids = {name: _unknown(foreign, name) for name in names}
        nobody = {**unknown_ids, "gallery_id": NOWHERE}
        for ids in ({name: _one(foreign, name) for name in names}, unknown_ids):
            there = {**ids, "gallery_id": ELSEWHERE}
            yield (_path(operation, there), plain), (_path(operation, nobody), plain), "the gallery"
    rest = path_ids(operation, own)
    for name in names:
        if name not in {"gallery_id", "position"}:
            first, second = ({**rest, name: each} for each in (_one(foreign, name), _unknown(foreign, name)))
            yield (_path(operation, first), plain), (_path(operation, second), plain), name
    address = _path(operation, rest)
    for name in operation.query_names:
        for value in _some(foreign, name):
            unknown = _UNKNOWN_NUMBER if str(value).isdigit() else _UNKNOWN_TEXT
            first, second = ({"params": {name: each}, **plain} for each in (value, unknown))
            yield (address, first), (address, second), f"?{name}"


def _in_bodies(operation: Operation, own: Ids, foreign: Ids) -> Iterator[_Pair]:
    body, address = operation.body(), _path(operation, path_ids(operation, own))
    for place in operation.places():
        if place[0] != "json" or body is None or not _ID.fullmatch(place[1]):
            continue
        is_gallery = place[1].endswith("gallery_id")
        for value in [ELSEWHERE] if is_gallery else _some(foreign, place[1]):
            unknown = NOWHERE if is_gallery else _UNKNOWN_TEXT
            first, second = ({"json": with_text(body, place[1:], each)} for each in (value, unknown))
            yield (address, first), (address, second), "/".join(place)


def path_ids(operation: Operation, own: Ids) -> dict[str, Any]:
    """Return values for the path of an operation: ids that are there, in the attacker's own gallery."""
    return {name: HERE if name == "gallery_id" else _one(own, name) for name in operation.path_names}


def _only_there(foreign: Ids, own: Ids) -> Ids:
    """Leave out what both galleries have, such as the name of a pack."""
    rest = {kind: values - own.get(kind, frozenset()) for kind, values in foreign.items() if kind != "position"}
    return {**rest, "position": foreign["position"]}


def _compare(target: Target, operation: Operation, insider: str, pair: _Pair, sent: list[str]) -> list[str]:
    (path, keywords), (other_path, other_keywords), which = pair
    sent.append(path + json.dumps(keywords))
    answer = target.ask(operation.method, path, insider, **keywords)
    control = target.ask(operation.method, other_path, insider, **other_keywords)
    found = []
    if not all(any(text in each for each in sent) for text in re.findall(rf"[\w-]*{MARK}[\w-]*", answer.text)):
        found.append(f"{operation.name}: with {which} of the other gallery it tells of people there")
    if _shape(answer) != _shape(control):
        statuses = f"{answer.status_code}, one that nobody has {control.status_code}"
        found.append(f"{operation.name}: {which} of the other gallery gets {statuses}")
    if which == "the gallery" and answer.status_code not in _REFUSED:
        found.append(f"{operation.name}: answers {answer.status_code} in a gallery that is not the caller's")
    return found


def _shape(answer: httpx.Response) -> tuple[int, Any]:
    """Return what two answers must have in common: the status, and of an error all that it says."""
    if answer.is_success:
        return answer.status_code, None
    problem = answer.json()
    return answer.status_code, (problem["code"], problem["message"])


def harvest(target: Target, key: str, gallery_id: str) -> Ids:
    """Return the ids of a gallery by their kinds, as its own people could read them."""
    found: defaultdict[str, set[Any]] = defaultdict(set)
    found["position"] = {0}
    for _ in range(2):  # what needs an id is read in the second round
        for operation in operations():
            if operation.method != "GET" or operation.rule.scope is not Scope.GALLERY:
                continue
            if any(name != "gallery_id" and not found[name] for name in operation.path_names):
                continue
            values = {name: next(iter(found[name]), "") for name in operation.path_names} | {"gallery_id": gallery_id}
            answer = target.ask("GET", _path(operation, values), key)
            if answer.headers.get("content-type") == "application/json":
                for kind, value in _ids_in(answer.json()):
                    found[kind].add(value)
    return {kind: frozenset(values) for kind, values in found.items()}


def _ids_in(answer: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(answer, dict):
        for name, value in answer.items():
            if isinstance(value, str | int) and _ID.fullmatch(name):
                yield name, value
            yield from _ids_in(value)
    elif isinstance(answer, list):
        yield from itertools.chain.from_iterable(map(_ids_in, answer))


def _some(ids: Ids, name: str) -> list[Any]:
    """Return an id of the kind that a name tells of: `other_gallery_id` is a gallery_id."""
    if name == "after":  # where a page goes on: a number or an id
        return [*_some(ids, "case_id"), *_some(ids, "subject_id")]
    return next((sorted(ids[kind], key=str)[:1] for kind in ids if ids[kind] and name.endswith(kind)), [])


def _one(ids: Ids, name: str) -> Any:
    return next(iter(_some(ids, name)), _unknown(ids, name))


def _unknown(ids: Ids, name: str) -> Any:
    """Return an id of the kind that nobody has: a number where those that are known are numbers."""
    if name == "position":
        return 0
    return _UNKNOWN_NUMBER if any(isinstance(each, int) for each in _some(ids, name)) else _UNKNOWN_TEXT


def _path(operation: Operation, values: Mapping[str, Any]) -> str:
    return operation.path.format(**values)


def _content(target: Target, key: str) -> list[Any]:
    """Return what the other gallery holds, without what tells only that somebody looked."""
    path = f"/v1/galleries/{ELSEWHERE}"
    parts = ("", "/subjects", "/encounters", "/cases", "/sweeps", "/calibrations", "/enrolments")
    return [target.ask("GET", path + part, key).json() for part in parts]


def exercised_ids(target: Target) -> set[str]:
    """Return the kinds of ids of which the other gallery has one: the others are attacked in name alone."""
    foreign = harvest(target, target.key(), ELSEWHERE)
    return {kind for kind, values in foreign.items() if values}


def guessed_keys(target: Target) -> list[str]:
    """Whoever tries keys is told nothing and stopped soon; the limit is that of the target's settings."""
    key = target.key(Role.AUDITOR)
    path, found = "/v1/galleries", []
    guesses = [
        wrong_secret(key),
        api_keys.make_key(datetime.now(UTC), timedelta(days=1))[0],
        f"{api_keys.PREFIX}x",
        key[:-1],
    ]
    answers = [target.ask("GET", path, guess) for guess in guesses]
    told = {(each.status_code, each.json()["message"], *sorted(set(each.headers) - {"date"})) for each in answers}
    if len(told) != 1:
        found.append("a wrong secret, an unknown key and no key at all are told apart")
    found += _comparisons(target, key)
    statuses = [target.ask("GET", path, wrong_secret(key)).status_code for _ in range(2 * FAILED_SIGN_INS)]
    if statuses.count(401) > FAILED_SIGN_INS:
        found.append(f"{statuses.count(401)} guesses of one address in a row were looked at")
    fresh = target.key(Role.AUDITOR)
    if target.ask("GET", path, fresh).status_code != 429:
        found.append("a guess that is right is still let in when the limit is passed")
    return found


def _comparisons(target: Target, key: str) -> list[str]:
    """A secret is compared in constant time, and an unknown key id takes the way of a wrong secret."""
    done: list[str] = []

    class Counting:
        @staticmethod
        def compare_digest(first: bytes, second: bytes) -> bool:
            done.append(f"{len(first)} bytes compared")
            return hmac.compare_digest(first, second)

    def asked(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if threading.current_thread() is here and statement.startswith("SELECT"):
            done.append("record asked")

    here, ways, secret = threading.current_thread(), [], key.split("_", 2)[2]
    event.listen(Engine, "before_cursor_execute", asked)
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(api_keys, "hmac", Counting)
            for guess in (wrong_secret(key), f"{api_keys.PREFIX}{'0' * 16}_{secret}"):
                done.clear()
                target.service.clients.keys.look_up(guess)
                ways.append(list(done))
    finally:
        event.remove(Engine, "before_cursor_execute", asked)
    way = ["record asked", "32 bytes compared"]
    return [] if ways == [way, way] else [f"secrets are not compared in one way and in constant time: {ways}"]


def wrong_secret(key: str) -> str:
    """Return a key of the same id that is not its client's."""
    return key[:-1] + ("A" if key[-1] != "A" else "B")


def replayed(target: Target) -> list[str]:
    """What held once and does not any more; and the request names of somebody else."""
    return [*_old_keys(target), *_old_token(target), *_names_of_requests(target)]


def _old_keys(target: Target) -> list[str]:
    clients, path, found = target.service.clients, "/v1/galleries", []

    def is_let_in(key: str) -> bool:
        return target.ask("GET", path, key).status_code != 401

    revoked, rotated = (clients.add(f"replayed-{target.key()[4:20]}", [in_gallery(Role.AUDITOR)]) for _ in range(2))
    for made in (revoked, rotated):
        assert is_let_in(made.key)  # and so remembered
    clients.revoke(revoked.client.name)
    clients.rotate(rotated.client.name, timedelta(0))
    found += [
        f"a {name} key is let in" for name, made in (("revoked", revoked), ("replaced", rotated)) if is_let_in(made.key)
    ]
    now = datetime.now(UTC)
    expired, kept = api_keys.make_key(now - timedelta(days=2), timedelta(days=1))
    client = Client(f"expired-{kept.key_id}", (in_gallery(Role.AUDITOR),), now, keys=(kept,))
    target.service.store.clients.add(client)  # type: ignore[attr-defined]  # of the real record
    return [*found, "an expired key is let in"] if is_let_in(expired) else found


def _old_token(target: Target) -> list[str]:
    """A token that was let in, and so perhaps remembered, after its end; the clock of the service goes on meanwhile."""
    short = signed(PROVIDER_KEY, claims(target.provider.issuer, exp=int(time.time()) - LEEWAY_S + 1), kid="k1")
    if target.ask("GET", "/v1/galleries", short).status_code != 200:
        return ["a token that holds is refused"]
    time.sleep(1.5)
    return ["a token is let in after its end"] if target.ask("GET", "/v1/galleries", short).status_code != 401 else []


def _names_of_requests(target: Target) -> list[str]:
    """An Idempotency-Key is its client's own: another one's tells nothing, and is in nobody's way."""
    one, other = (target.key(Role.ENROLLER, galleries=(HERE,)) for _ in range(2))
    name = {"Idempotency-Key": f"enrol-{one[4:20]}"}
    path, found = f"/v1/galleries/{HERE}/enrolments", []

    def enrol(key: str, sample: bytes) -> httpx.Response:
        return target.ask("POST", path, key, files={"sample": sample}, headers=name)

    first = enrol(one, b"dora/1")
    if enrol(other, b"emil/1").status_code == 409:
        found.append("the Idempotency-Key of another client is known, and in the way")
    again = enrol(other, b"dora/1")
    if "idempotency-replayed" in again.headers or first.json()["enrolment_id"] in again.text:
        found.append("a repeat by another client gets the first client's answer")
    repeat = enrol(one, b"dora/1")
    if repeat.json().get("enrolment_id") != first.json()["enrolment_id"]:
        found.append("a repeat by the same client gets another answer")
    return [*found, *_names_of_erasures(target, f"/v1/galleries/{HERE}/subjects/{first.json()['subject_id']}")]


def _names_of_erasures(target: Target, path: str) -> list[str]:
    one, other = (target.key(Role.SUPERVISOR, galleries=(HERE,)) for _ in range(2))
    name = {"Idempotency-Key": f"erase-{one[4:20]}"}
    receipt = target.ask("DELETE", path, one, headers=name)
    found = [] if receipt.status_code == 200 else [f"an erasure is answered {receipt.status_code}"]
    if target.ask("DELETE", path, other, headers=name).status_code != 404:
        found.append("the receipt of an erasure is given to another client")
    if target.ask("DELETE", path, one, headers=name).content != receipt.content:
        found.append("a repeated erasure gets another receipt")
    return found
