"""On whose behalf the work of this thread is done: what the audit trail writes of each act."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, what for, and under which agreement."""

    client_id: str
    purpose: str | None = None
    """A code of the caller's own, never a sentence: `X-Purpose`."""
    agreement_id: str | None = None
    request_id: str | None = None


SERVICE = Actor("service")
"""What the service does by itself: sweeps, migrations, retention."""

_acting: ContextVar[Actor] = ContextVar("acting", default=SERVICE)


def current_actor() -> Actor:
    return _acting.get()


@contextmanager
def acting_as(actor: Actor) -> Iterator[None]:
    """Do what is inside on somebody's behalf; threads that FastAPI starts for a request take it along."""
    token = _acting.set(actor)
    try:
        yield
    finally:
        _acting.reset(token)
