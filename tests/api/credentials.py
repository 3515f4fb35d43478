"""Tokens signed by a test itself, and the callers of an application that asks who calls."""

import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from service.access import Grant, Role

AUDIENCE = "biodedup"


def header(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


def in_gallery(role: Role, *gallery_ids: str) -> Grant:
    """The role in these galleries; in none of them: everywhere."""
    return Grant(role, frozenset(gallery_ids) or None)


def new_rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def claims(issuer: str, **changed: Any) -> dict[str, Any]:
    """Claims that hold, but for those that are given; None leaves one out."""
    now = int(time.time())
    whole = {
        "iss": issuer,
        "aud": AUDIENCE,
        "sub": "jane",
        "iat": now,
        "exp": now + 600,
        "biodedup_roles": ["admin:*"],
        **changed,
    }
    return {name: value for name, value in whole.items() if value is not None}


def signed(key: Any, content: dict[str, Any], algorithm: str = "RS256", **headers: Any) -> str:
    return jwt.encode(content, key, algorithm=algorithm, headers=headers)
