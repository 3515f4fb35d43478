"""Tokens of an OpenID Connect provider: which caller one proves. The home of PyJWT."""

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt

from service.access import MAX_GRANTS, Caller, Grant, read_grants
from service.errors import ProviderUnavailable, Unauthenticated
from service.logs import log_event

_log = logging.getLogger(__name__)

LEEWAY_S = 30
KEYS_KEPT_S = 3600.0
FETCHED_EVERY_S = 10.0

_RENEWED_AFTER_S = KEYS_KEPT_S / 2  # so that a short outage of the provider is not noticed
_FETCH_S = 5.0  # for an answer of the provider as a whole
_MAX_ANSWER_BYTES = 1024 * 1024
_MAX_TOKEN = 8192  # characters
_MIN_RSA_BITS = 2048  # RFC 7518, 3.3
_SUBJECT = re.compile(r"[!-~]{1,255}")  # OpenID Connect Core, 2: ASCII, 255 at most; without blanks, for the trail

# asymmetric alone: with HS* the provider's public key would be a secret that everybody has (RFC 8725, 2.1)
_ALGORITHMS = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}
_KNOWN_ALGORITHMS = frozenset(name for names in _ALGORITHMS.values() for name in names)


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """What is asked of tokens.

    Args:
        issuer: `iss`, and where the discovery document is.
        audience: must be in `aud`.
        roles_claim: a list of texts such as `analyst:camp` and `auditor:*`; what is none of these counts for nothing.
    """

    issuer: str
    audience: str
    roles_claim: str


@dataclass(frozen=True, slots=True)
class _Key:
    key: Any
    algorithms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Keys:
    """The provider's keys by their ids, and when they were fetched."""

    by_id: Mapping[str, _Key]
    fetched_s: float


class _KeyUnknown(Exception):
    """The token names a key that is not known here, or a nameless one whose signature does not fit."""


class OidcProvider:
    """Proves callers by the tokens of one provider. May be used by several threads.

    Args:
        settings: what is asked of tokens.
        seconds: a clock that never goes back.
    """

    def __init__(self, settings: OidcSettings, seconds: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._seconds = seconds
        self._keys = _Keys({}, float("-inf"))
        self._tried_s = float("-inf")
        self._has_failed = False
        self._fetching = threading.Lock()
        self._starting = threading.Lock()
        self._renewal: threading.Thread | None = None

    def remembered(self, token: str) -> Caller | None:
        """Return whom a token proves by the keys that are at hand, without waiting; None: its key must be fetched.

        Keys that grow old are fetched meanwhile: a provider that hangs holds up nobody whose key is known.

        Raises:
            Unauthenticated
        """
        self._renew_meanwhile()
        try:
            return self._proven(token)
        except _KeyUnknown:
            return None

    def look_up(self, token: str) -> Caller:
        """Return whom a token proves, with keys that are fetched again where that may help.

        Raises:
            Unauthenticated
            ProviderUnavailable: the key is not known, and the provider does not answer.
        """
        with suppress(_KeyUnknown):
            return self._proven(token)
        self._renew()
        try:
            return self._proven(token)
        except _KeyUnknown:
            if self._has_failed:
                raise ProviderUnavailable("the identity provider does not answer; try again") from None
            raise refused() from None

    def _proven(self, token: str) -> Caller:
        """Raises Unauthenticated, _KeyUnknown."""
        kid, algorithm = _read_header(token)
        keys = self._keys.by_id if self._seconds() - self._keys.fetched_s < KEYS_KEPT_S else {}
        if kid is None and len(keys) == 1:  # OpenID Connect Core, 10.1: it may be left out where there is one key
            (key,) = keys.values()
        elif kid is None or kid not in keys:
            raise _KeyUnknown
        else:
            key = keys[kid]
        if algorithm not in key.algorithms:
            raise refused()
        try:
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                issuer=self._settings.issuer,
                audience=self._settings.audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except jwt.InvalidSignatureError:
            if kid is None:
                raise _KeyUnknown from None
            raise refused() from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError):
            raise refused() from None
        return self._caller(claims)

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        """Raises Unauthenticated."""
        subject, roles = claims["sub"], claims.get(self._settings.roles_claim, [])
        if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject) or not isinstance(roles, list):
            raise refused()
        grants: list[Grant] = []
        for text in roles[:MAX_GRANTS]:
            if isinstance(text, str):
                with suppress(ValueError):  # the provider's claim may name roles of other software
                    grants.extend(read_grants([text]))
        return Caller(f"oidc:{subject}", tuple(grants))

    def _renew_meanwhile(self) -> None:
        """Fetch keys that are old and still good on a thread of its own, one at a time."""
        now = self._seconds()
        is_due = _RENEWED_AFTER_S <= now - self._keys.fetched_s < KEYS_KEPT_S
        if not is_due or now - self._tried_s < FETCHED_EVERY_S:
            return
        with self._starting:
            if self._renewal is None or not self._renewal.is_alive():
                self._renewal = threading.Thread(target=self._renew, name="oidc-keys", daemon=True)
                self._renewal.start()

    def _renew(self) -> None:
        """Fetch the keys unless that was tried a moment ago; what fails leaves those that are there."""
        with self._fetching:
            if self._seconds() - self._tried_s < FETCHED_EVERY_S:
                return
            try:
                self._keys = _Keys(self._fetch_keys(), self._seconds())
                self._has_failed = False
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                self._has_failed = True
                log_event(_log, "oidc.keys_not_fetched", level=logging.WARNING, error_type=type(error).__name__)
            finally:
                self._tried_s = self._seconds()

    def _fetch_keys(self) -> dict[str, _Key]:
        """Raises httpx.HTTPError, httpx.InvalidURL, ValueError."""
        issuer = self._settings.issuer
        # redirects are not followed: the addresses that are asked are those of the settings and of the document there
        with httpx.Client(timeout=_FETCH_S, follow_redirects=False) as http:
            found = _fetch(http, f"{issuer.rstrip('/')}/.well-known/openid-configuration")
            if found.get("issuer") != issuer:
                raise ValueError("the discovery document is of another issuer")
            address = found.get("jwks_uri")
            if not isinstance(address, str) or urlsplit(address).scheme not in {"https", urlsplit(issuer).scheme}:
                raise ValueError("the discovery document names no address of keys that may be used")
            return _read_keys(_fetch(http, address))


def refused() -> Unauthenticated:
    """Return the one error of every credential that does not hold: which cause it is helps only who guesses."""
    return Unauthenticated("send `Authorization: Bearer` with an API key or a token that holds")


def _read_header(token: str) -> tuple[str | None, str]:
    """Return `kid` and `alg`; all else that a header may point to, such as `jku`, `x5u` and `jwk`, is not looked at.

    Raises:
        Unauthenticated
    """
    if len(token) > _MAX_TOKEN:
        raise refused()
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError):
        raise refused() from None
    kid, algorithm = header.get("kid"), header.get("alg")
    if (
        not isinstance(algorithm, str)
        or algorithm not in _KNOWN_ALGORITHMS
        or not (kid is None or isinstance(kid, str))
    ):
        raise refused()
    return kid, algorithm


def _fetch(http: httpx.Client, address: str) -> dict[str, Any]:
    """Return the JSON object at an address. Raises httpx.HTTPError, httpx.InvalidURL, ValueError."""
    deadline, content = time.monotonic() + _FETCH_S, bytearray()
    with http.stream("GET", address, headers={"Accept": "application/json"}) as response:
        if response.status_code != httpx.codes.OK:
            raise ValueError("the provider answers with another status than 200")
        for part in response.iter_bytes():
            content += part
            if len(content) > _MAX_ANSWER_BYTES or time.monotonic() > deadline:
                raise ValueError("the provider's answer is too long, or takes too long")
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError("the provider's answer is no JSON object")  # noqa: TRY004  (all that it may answer is one case)
    return found


def _read_keys(document: Mapping[str, Any]) -> dict[str, _Key]:
    """Return the keys of a JWK Set that may sign tokens; others in it are passed over. Raises ValueError."""
    listed = document.get("keys")
    if not isinstance(listed, list):
        raise ValueError("the provider's answer is no JWK Set")  # noqa: TRY004  (all that it may answer is one case)
    found: dict[str, _Key] = {}
    for number, each in enumerate(listed):
        if not isinstance(each, dict) or each.get("use", "sig") != "sig" or each.get("kty") not in _ALGORITHMS:
            continue
        algorithms = _ALGORITHMS[each["kty"]]
        if "alg" in each:
            algorithms = tuple(name for name in algorithms if name == each["alg"])
        if not algorithms:
            continue
        try:
            key = jwt.PyJWK(each, algorithms[0]).key
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue
        if each["kty"] == "RSA" and key.key_size < _MIN_RSA_BITS:
            continue
        found[str(each.get("kid", f"#{number}"))] = _Key(key, algorithms)
    return found
