"""Who calls, and what a caller may do where: roles, and the galleries that each is limited to."""

import re
from collections.abc import Iterable, Set
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

EVERYWHERE = "*"
MAX_GRANTS = 200

_GRANT = re.compile(r"([a-z]+):(\*|[A-Za-z0-9][A-Za-z0-9._-]{0,63})")


class Role(StrEnum):
    """What a caller is trusted with; a caller may have several, each for other galleries."""

    ENROLLER = "enroller"  # a registration system: enrols, identifies, verifies
    ANALYST = "analyst"  # reviews flagged pairs: reads people and cases, decides
    SUPERVISOR = "supervisor"  # what an analyst may, and erases, withdraws, reopens, holds
    AUDITOR = "auditor"  # reads the audit trail, settings and reports; changes nothing
    OPERATOR = "operator"  # runs the service: index, metrics, models, sweeps; sees nobody
    ADMIN = "admin"  # galleries, clients, agreements, error rates


@dataclass(frozen=True, slots=True)
class Grant:
    """A role, and where it holds."""

    role: Role
    gallery_ids: frozenset[str] | None = None
    """None: in every gallery, those to come among them."""

    def holds_in(self, gallery_id: str | None) -> bool:
        """Whether it holds in a gallery; None: for what belongs to no gallery, which takes a grant for all of them."""
        return self.gallery_ids is None or (gallery_id is not None and gallery_id in self.gallery_ids)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request, as its key or token proved."""

    client_id: str
    """`client:NAME` of an API key, `oidc:SUBJECT` of a token, `local` where nobody is asked."""
    grants: tuple[Grant, ...]

    def may(self, roles: Set[Role], gallery_id: str | None = None) -> bool:
        """Whether one of the roles is the caller's, in this gallery or, for None, beyond all galleries."""
        return any(grant.role in roles and grant.holds_in(gallery_id) for grant in self.grants)

    def may_somewhere(self, roles: Set[Role]) -> bool:
        """Whether one of the roles is the caller's in any gallery at all."""
        return any(grant.role in roles for grant in self.grants)

    @property
    def named_gallery_ids(self) -> tuple[str, ...]:
        """The galleries that the grants name, in the order of their names; a grant for all galleries names none."""
        return tuple(sorted({each for grant in self.grants for each in grant.gallery_ids or ()}))

    def sees(self, gallery_id: str) -> bool:
        """Whether the caller has any role in a gallery."""
        return self.may(frozenset(Role), gallery_id)


LOCAL = Caller("local", (Grant(Role.ADMIN), *(Grant(role) for role in Role if role is not Role.ADMIN)))
"""Whoever reaches a service that asks nobody who is calling: it listens on this machine alone."""


@dataclass(frozen=True, slots=True)
class ClientKey:
    """An API key as it is kept: nobody can make the key of it again."""

    key_id: str
    secret_digest: bytes
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    def holds_at(self, now: datetime) -> bool:
        return self.revoked_at is None and now < self.expires_at


@dataclass(frozen=True, slots=True)
class Client:
    """A program that calls with API keys. One that was revoked stays, so that its name is not taken by another."""

    name: str
    grants: tuple[Grant, ...]
    created_at: datetime
    revoked_at: datetime | None = None
    keys: tuple[ClientKey, ...] = ()
    """Oldest first."""

    @property
    def caller(self) -> Caller:
        return Caller(f"client:{self.name}", self.grants)


def read_grants(texts: Iterable[str]) -> tuple[Grant, ...]:
    """Return the grants of texts such as `enroller:camp` and `auditor:*`, those of one role together.

    Raises:
        ValueError: one does not have this form, names no role, or there are more than `MAX_GRANTS`.
    """
    found: dict[Role, set[str]] = {}
    for number, text in enumerate(texts):
        parts = _GRANT.fullmatch(text)
        if parts is None or parts[1] not in set(Role) or number >= MAX_GRANTS:
            raise ValueError(
                f"at most {MAX_GRANTS} times ROLE:GALLERY, or ROLE:{EVERYWHERE} for all galleries; "
                f"the roles are {', '.join(Role)}"
            )
        found.setdefault(Role(parts[1]), set()).add(parts[2])
    return tuple(
        Grant(role, None if EVERYWHERE in galleries else frozenset(galleries)) for role, galleries in found.items()
    )


def grant_texts(grants: Iterable[Grant]) -> list[str]:
    """Return what `read_grants` reads, in a stable order."""
    return [
        f"{grant.role}:{gallery_id}"
        for grant in sorted(grants, key=lambda each: each.role)
        for gallery_id in ([EVERYWHERE] if grant.gallery_ids is None else sorted(grant.gallery_ids))
    ]
