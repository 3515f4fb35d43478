"""Attacks with tokens that nobody issued: by another algorithm, key, audience or issuer, or at another time."""

import time
from collections.abc import Iterator
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.api.credentials import AUDIENCE, claims, new_rsa_key, signed
from tests.api.own_provider import Pages, by_hand, jwk, serving
from tests.security.target import PROVIDER_KEY, Target

_OWN_KEY = new_rsa_key()  # the attacker's


def forged_tokens(target: Target) -> list[str]:
    """Every token is refused in one way, and nothing that it points to is asked."""
    content = claims(target.provider.issuer)
    if target.ask("GET", "/v1/clients", signed(PROVIDER_KEY, content, kid="k1")).status_code != 200:
        return ["a token that holds is refused"]
    with serving(Pages([jwk(_OWN_KEY)])) as stranger:
        forged = {**dict(_by_algorithm(content)), **dict(_by_key(content, stranger)), **dict(_by_claim(content))}
        answers = {name: target.ask("GET", "/v1/clients", token) for name, token in forged.items()}
        found = [f"{name}: {answer.status_code}" for name, answer in answers.items() if answer.status_code != 401]
        if stranger.asked:
            found.append(f"an address in a token was asked: {stranger.asked[0]}")
    if len({answer.text.replace(answer.headers["x-request-id"], "") for answer in answers.values()}) > 1:
        found.append("the answer tells what is wrong with a token")
    return found


def _by_algorithm(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    public = PROVIDER_KEY.public_key()
    algorithms: tuple[Any, ...] = ("none", "None", "nOnE", "HS256", "hs256", "RS256 ", "", None, ["RS256"], {}, 1)
    for algorithm in algorithms:
        head = {"alg": algorithm, "kid": "k1"}
        for form in (Encoding.PEM, Encoding.DER):
            secret = public.public_bytes(form, PublicFormat.SubjectPublicKeyInfo)
            yield f"alg {algorithm!r}, signed with the public key, {form}", by_hand(head, content, secret)
        unsigned = by_hand(head, content, b"").rpartition(".")[0] + "."
        yield f"alg {algorithm!r}, not signed", unsigned
    for algorithm in ("PS256", "RS512", "ES256", "EdDSA"):
        yield (
            f"alg {algorithm} over a signature of RS256",
            by_hand({"alg": algorithm, "kid": "k1"}, content, PROVIDER_KEY),
        )
    whole = signed(PROVIDER_KEY, content, kid="k1")
    first, _, rest = whole.partition(".")
    yield "without its signature", f"{first}.{rest.partition('.')[0]}."
    yield (
        "with another content",
        f"{first}.{signed(_OWN_KEY, {**content, 'sub': 'boss'}).split('.')[1]}.{rest.split('.')[1]}",
    )
    yield "with one changed sign", whole[:-10] + ("A" if whole[-10] != "A" else "B") + whole[-9:]


def _by_key(content: dict[str, Any], stranger: Pages) -> Iterator[tuple[str, str]]:
    address = f"{stranger.issuer}/jwks"
    ids = (
        "k1",
        "k2",
        "../../../../dev/null",
        "/etc/passwd",
        "' OR '1'='1",
        "k1' UNION SELECT 'x",
        address,
        "k1\0",
        "",
        "*",
    )
    for kid in ids:
        yield f"kid {kid!r}, an own key", signed(_OWN_KEY, content, kid=kid)
        yield f"kid {kid!r}, an empty secret", by_hand({"alg": "HS256", "kid": kid}, content, b"")
    for kid in ids[1:]:
        yield f"kid {kid!r}, the provider's key", signed(PROVIDER_KEY, content, kid=kid)
    for odd in (5, None, ["k1"], {"k1": 1}, True):
        yield f"kid {odd!r}", by_hand({"alg": "RS256", "kid": odd}, content, _OWN_KEY)
    pointers: tuple[tuple[str, Any], ...] = (
        ("jku", address),
        ("x5u", address),
        ("jwk", jwk(_OWN_KEY)),
        ("x5c", ["AAAA"]),
        ("jwks_uri", address),
    )
    for name, value in pointers:
        for kid in ("k1", "k2"):
            yield f"{name}, kid {kid}", signed(_OWN_KEY, content, kid=kid, **{name: value})
    yield "an unknown extension", by_hand({"alg": "RS256", "kid": "k1", "crit": ["exp"]}, content, PROVIDER_KEY)
    yield "a key of another kind", jwt.encode(content, ec.generate_private_key(ec.SECP256R1()), "ES256", {"kid": "k1"})


def _by_claim(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    now = int(time.time())
    changes: tuple[dict[str, Any], ...] = (
        {"aud": "another"}, {"aud": [f"{AUDIENCE}2"]}, {"aud": []}, {"aud": AUDIENCE.upper()},
        {"iss": "https://login.example.org"}, {"iss": content["iss"] + "/"}, {"iss": content["iss"] + "@evil.example"},
        {"exp": now - 60}, {"exp": 0}, {"exp": -1}, {"nbf": now + 3600}, {"iat": now + 3600},
        {"sub": ""}, {"sub": "a\nb"}, {"sub": "x" * 256}, {"biodedup_roles": "admin:*"},
    )  # fmt: skip
    for change in changes:
        yield f"{change}", signed(PROVIDER_KEY, {**content, **change}, kid="k1")
    for name in ("aud", "iss", "exp", "iat", "sub"):
        left = {each: value for each, value in content.items() if each != name}
        yield f"without {name}", signed(PROVIDER_KEY, left, kid="k1")
    # what PyJWT would not sign
    for change in (
        {"iss": [content["iss"]]},
        {"exp": "9e99"},
        {"exp": [now + 60]},
        {"exp": None},
        {"aud": {AUDIENCE: 1}},
    ):
        yield f"{change}", by_hand({"alg": "RS256", "kid": "k1"}, {**content, **change}, PROVIDER_KEY)
    yield "too long", signed(PROVIDER_KEY, {**content, "more": "x" * 12_000}, kid="k1")
