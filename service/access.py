"""Who calls, and what a caller may do where: roles, and the galleries that each is limited to."""

from collections.abc import Set
from dataclasses import dataclass
from enum import StrEnum


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

    def sees(self, gallery_id: str) -> bool:
        """Whether the caller has any role in a gallery."""
        return self.may(frozenset(Role), gallery_id)


LOCAL = Caller("local", (Grant(Role.ADMIN), *(Grant(role) for role in Role if role is not Role.ADMIN)))
"""Whoever reaches a service that asks nobody who is calling: it listens on this machine alone."""
