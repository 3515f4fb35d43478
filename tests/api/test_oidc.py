"""Tokens of an OpenID Connect provider: a real one in a process of its own, and keys of the test's own."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from service.access import Caller, Grant, Role
from service.api.oidc import FETCHED_EVERY_S, KEYS_KEPT_S, OidcProvider, OidcSettings
from service.errors import ProviderUnavailable, Unauthenticated
from tests.api.credentials import AUDIENCE, claims, new_rsa_key, signed
from tests.api.own_provider import Pages, by_hand, jwk, serving
from tests.api.provider import Provider

JANE = Caller("oidc:jane", (Grant(Role.ADMIN),))
KEY, OTHER_KEY = new_rsa_key(), new_rsa_key()


class Seconds:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def asked(issuer: str, seconds: Seconds | None = None) -> OidcProvider:
    return OidcProvider(OidcSettings(issuer, AUDIENCE, "biodedup_roles"), seconds or Seconds())


def whose(provider: OidcProvider, token: str) -> Caller:
    """As a request asks: by the keys at hand first."""
    return provider.remembered(token) or provider.look_up(token)


def test_a_real_provider_logs_somebody_in(tmp_path: Path) -> None:
    with Provider(tmp_path) as real:
        token = real.token("jane", biodedup_roles=["analyst:camp", "auditor:*", "chief:*", 3])
        found = whose(asked(real.issuer), token)
        assert found == Caller("oidc:jane", (Grant(Role.ANALYST, frozenset({"camp"})), Grant(Role.AUDITOR)))
        assert whose(asked(real.issuer), real.token("joe")).grants == ()
        for other in (real.token("jane", audience="another"), f"{token[:-8]}AAAAAAAA"):
            with pytest.raises(Unauthenticated):
                whose(asked(real.issuer), other)
        with pytest.raises(Unauthenticated):  # by another name it is another issuer
            whose(asked(real.issuer.replace("127.0.0.1", "localhost")), token)


def test_a_real_provider_changes_its_key(tmp_path: Path) -> None:
    seconds = Seconds()
    with Provider(tmp_path) as real:
        provider = asked(real.issuer, seconds)
        before = real.token()
        whose(provider, before)
        real.rotate_key()
        after = real.token()
        with pytest.raises(Unauthenticated):  # asked a moment ago
            whose(provider, after)
        seconds.now += FETCHED_EVERY_S
        assert whose(provider, after).client_id == "oidc:jane"
        with pytest.raises(Unauthenticated):
            whose(provider, before)


def test_a_provider_that_is_gone_holds_up_only_keys_that_are_not_known(tmp_path: Path) -> None:
    seconds = Seconds()
    with Provider(tmp_path) as real:
        provider = asked(real.issuer, seconds)
        known = real.token()
        whose(provider, known)
    seconds.now += KEYS_KEPT_S - 1
    assert whose(provider, known).client_id == "oidc:jane"
    seconds.now += FETCHED_EVERY_S
    with pytest.raises(ProviderUnavailable):
        whose(provider, known)
    with pytest.raises(ProviderUnavailable):
        whose(asked(real.issuer), known)


@pytest.fixture
def pages() -> Iterator[Pages]:
    with serving(Pages([jwk(KEY)])) as pages:
        yield pages


def test_a_provider_that_hangs_holds_up_nobody_whose_key_is_known(tmp_path: Path) -> None:
    seconds = Seconds()
    with Provider(tmp_path) as real:
        provider = asked(real.issuer, seconds)
        known = real.token()
        whose(provider, known)
        real.hang()
        seconds.now += KEYS_KEPT_S / 2
        for _ in range(50):
            assert provider.remembered(known) == Caller("oidc:jane", ())
        renewal = renewal_of(provider)
        assert renewal.is_alive()  # it waits, and nobody with it
        real.go_on()
        renewal.join(30)
        seconds.now += KEYS_KEPT_S / 2 + 1
        assert provider.remembered(known) is not None  # by keys that were fetched meanwhile


def renewal_of(provider: OidcProvider) -> threading.Thread:
    assert provider._renewal is not None
    return provider._renewal


def token(pages: Pages, key: Any = KEY, algorithm: str = "RS256", kid: str | None = "k1", **changed: Any) -> str:
    return signed(key, claims(pages.issuer, **changed), algorithm, **({"kid": kid} if kid else {}))


def refused(pages: Pages, credential: str) -> bool:
    try:
        whose(asked(pages.issuer), credential)
    except Unauthenticated:
        return True
    return False


def test_a_token_that_holds_proves_its_subject(pages: Pages) -> None:
    assert whose(asked(pages.issuer), token(pages)) == JANE
    assert whose(asked(pages.issuer), token(pages, kid=None)) == JANE
    assert whose(asked(pages.issuer), token(pages, aud=["other", AUDIENCE])) == JANE


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://login.example.org"},
        {"iss": None},
        {"aud": "another"},
        {"aud": ["another"]},
        {"aud": None},
        {"aud": []},
        {"exp": -40},
        {"exp": None},
        {"exp": "tomorrow"},
        {"iat": 3600},
        {"iat": None},
        {"nbf": 3600},
        {"sub": None},
        {"sub": ""},
        {"sub": "jane\nadmin"},
        {"sub": "ja ne"},
        {"sub": 256 * "j"},
        {"biodedup_roles": "admin:*"},
        {"biodedup_roles": {"admin": "*"}},
    ],
    # the times among them differ from one process of the tests to the next
    ids=lambda changed: f"{next(iter(changed))}-{type(next(iter(changed.values()))).__name__}",
)
def test_a_claim_that_is_not_as_it_should_be_is_refused(pages: Pages, changed: dict[str, Any]) -> None:
    # moments are given in seconds from now
    moments = {name: int(time.time()) + value for name, value in changed.items() if isinstance(value, int)}
    content = claims(pages.issuer, **changed | moments)
    try:
        forged = signed(KEY, content, kid="k1")
    except TypeError:  # PyJWT signs no such thing; others do
        forged = by_hand({"alg": "RS256", "kid": "k1"}, content, KEY)
    assert refused(pages, forged)


def test_clocks_may_differ_by_half_a_minute(pages: Pages) -> None:
    now = int(time.time())
    assert whose(asked(pages.issuer), token(pages, exp=now - 20, iat=now - 600)) == JANE
    assert whose(asked(pages.issuer), token(pages, iat=now + 20, nbf=now + 20)) == JANE


def test_no_algorithm_is_taken_by_which_a_token_signs_itself(pages: Pages) -> None:
    content = claims(pages.issuer)
    public = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for algorithm in ("HS256", "hs256", "none", "None", "RS256 ", "", 5, None, ["RS256"], {"RS256": 1}):
        assert refused(pages, by_hand({"alg": algorithm, "kid": "k1"}, content, public))
    assert refused(pages, signed(None, content, "none", kid="k1"))
    for algorithm in ("PS256", "RS512", "ES256", "EdDSA"):
        assert refused(pages, by_hand({"alg": algorithm, "kid": "k1"}, content, KEY))
    assert not refused(pages, by_hand({"alg": "RS256", "kid": "k1"}, content, KEY))


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c", "url"])
def test_a_key_that_a_token_brings_along_is_not_looked_at(pages: Pages, name: str) -> None:
    with serving(Pages([jwk(OTHER_KEY)])) as stranger:
        brought: Any = jwk(OTHER_KEY) if name == "jwk" else [f"{stranger.issuer}/jwks"]
        brought = brought[0] if isinstance(brought, list) and name != "x5c" else brought
        assert refused(pages, signed(OTHER_KEY, claims(pages.issuer), kid="k1", **{name: brought}))
        assert refused(pages, signed(OTHER_KEY, claims(pages.issuer), kid="k2", **{name: brought}))
        assert stranger.asked == []


@pytest.mark.parametrize("kid", ["k2", "../jwks", "' OR 1=1", "", "k1\x00"])
def test_another_key_id_finds_no_key(pages: Pages, kid: str) -> None:
    assert refused(pages, signed(KEY, claims(pages.issuer), kid=kid))


def test_extensions_that_must_be_understood_are_refused(pages: Pages) -> None:
    assert refused(pages, by_hand({"alg": "RS256", "kid": "k1", "crit": ["exp"]}, claims(pages.issuer), KEY))
    assert refused(
        pages, by_hand({"alg": "RS256", "kid": "k1", "crit": ["b64"], "b64": False}, claims(pages.issuer), KEY)
    )


@pytest.mark.parametrize("credential", ["", ".", "..", "...", "a.b.c", "a" * 9000, "é.é.é", "bearer", "e30.e30.e30"])
def test_what_is_no_token_is_refused(pages: Pages, credential: str) -> None:
    assert refused(pages, credential)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (KEY, "RS512"),
        (KEY, "PS256"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
    ],
    ids=["RS512", "PS256", "ES256", "EdDSA"],
)
def test_keys_of_every_asymmetric_kind_are_taken(pages: Pages, key: Any, algorithm: str) -> None:
    pages.keys = [jwk(key)]
    assert whose(asked(pages.issuer), token(pages, key, algorithm)) == JANE


def test_keys_that_may_not_sign_are_passed_over(pages: Pages) -> None:
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "k1"}
    small = jwk(rsa.generate_private_key(public_exponent=65537, key_size=1024))
    for other in (jwk(KEY, use="enc"), jwk(KEY, alg="HS256"), jwk(KEY, alg="PS256"), secret, small, {"kty": "RSA"}, 7):
        pages.keys = [other]
        assert refused(pages, token(pages))
    pages.keys = [secret, 7, {"kty": "RSA", "kid": "k1"}, jwk(KEY, use="sig", alg="RS256")]
    assert whose(asked(pages.issuer), token(pages)) == JANE


def test_a_token_without_key_id_takes_a_provider_with_one_key(pages: Pages) -> None:
    pages.keys = [jwk(KEY), jwk(OTHER_KEY, "k2")]
    assert refused(pages, token(pages, kid=None))
    assert whose(asked(pages.issuer), token(pages)) == JANE


def unavailable(pages: Pages) -> bool:
    try:
        whose(asked(pages.issuer), token(pages))
    except ProviderUnavailable:
        return True
    return False


def test_only_the_provider_that_was_named_is_asked(pages: Pages) -> None:
    with serving(Pages([jwk(KEY)])) as stranger:
        pages.redirects = {"/jwks": f"{stranger.issuer}/jwks"}
        assert unavailable(pages)
        pages.redirects = {"/.well-known/openid-configuration": f"{stranger.issuer}/"}
        assert unavailable(pages)
        assert stranger.asked == []


@pytest.mark.parametrize(
    "changed",
    [{"issuer": "https://login.example.org"}, {"issuer": None}, {"jwks_uri": None}, {"jwks_uri": "file:///etc/passwd"}],
    ids=str,
)
def test_a_discovery_document_that_does_not_fit_is_not_used(pages: Pages, changed: dict[str, Any]) -> None:
    pages.changed = changed
    assert unavailable(pages)


@pytest.mark.parametrize(
    "keys", [None, {}, "k1", [[]] * 10 + ["x" * 2_000_000]], ids=["null", "object", "text", "huge"]
)
def test_an_answer_that_is_no_set_of_keys_is_not_used(pages: Pages, keys: Any) -> None:
    pages.keys = keys
    assert unavailable(pages)


def test_unknown_key_ids_ask_the_provider_once_in_ten_seconds(pages: Pages) -> None:
    seconds = Seconds()
    provider = asked(pages.issuer, seconds)
    assert whose(provider, token(pages)) == JANE
    for _ in range(50):
        with pytest.raises(Unauthenticated):
            whose(provider, token(pages, kid="k2"))
    assert pages.asked.count("/jwks") == 1
    seconds.now += FETCHED_EVERY_S
    pages.keys = [jwk(OTHER_KEY, "k2")]
    assert whose(provider, token(pages, OTHER_KEY, kid="k2")) == JANE
    with pytest.raises(Unauthenticated):
        whose(provider, token(pages))


def test_keys_are_kept_for_an_hour_at_most_and_renewed_before(pages: Pages) -> None:
    seconds = Seconds()
    provider = asked(pages.issuer, seconds)
    whose(provider, token(pages))
    seconds.now += KEYS_KEPT_S / 2 - 1
    assert provider.remembered(token(pages)) == JANE
    assert pages.asked.count("/jwks") == 1
    seconds.now += 1
    pages.keys = []
    assert provider.remembered(token(pages)) == JANE
    renewal_of(provider).join(30)
    with pytest.raises(Unauthenticated):
        whose(provider, token(pages))


def test_keys_that_could_not_be_renewed_are_not_kept_beyond_an_hour(pages: Pages) -> None:
    seconds = Seconds()
    provider = asked(pages.issuer, seconds)
    whose(provider, token(pages))
    seconds.now += KEYS_KEPT_S - 1
    pages.changed = {"issuer": "another"}
    assert provider.remembered(token(pages)) == JANE
    renewal_of(provider).join(30)
    seconds.now += 1
    assert provider.remembered(token(pages)) is None


def test_who_has_a_known_key_does_not_wait_for_the_provider(pages: Pages) -> None:
    seconds = Seconds()
    provider = asked(pages.issuer, seconds)
    whose(provider, token(pages))
    seconds.now += FETCHED_EVERY_S
    pages.go_on.clear()
    try:
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(provider.look_up, token(pages, kid="k2"))
            while len(pages.asked) < 3:
                assert not waiting.done()
            assert provider.remembered(token(pages)) == JANE
            assert not waiting.done()
            pages.go_on.set()
            assert isinstance(waiting.exception(10), Unauthenticated)
    finally:
        pages.go_on.set()
