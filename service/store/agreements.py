"""Sharing agreements in the record, and every search under them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, or_, select, update

from service.agreement import (
    Agreement,
    AgreementState,
    AgreementUse,
    Disclosure,
    NewUse,
    Terms,
    UseOutcome,
    UseResult,
    day_of,
)
from service.domain import Page
from service.errors import AgreementLimitReached, AgreementNotFound, PurposeNotAgreed
from service.store.reading import read_gallery
from service.store.records import to_number
from service.store.rows import AnyRow
from service.store.tables import agreement_uses, agreements, audit

Open = Callable[[], AbstractContextManager[Connection]]
_TERMS = tuple(Terms.__slots__)


class SqlAgreements:
    """`service.ports.Agreements` over functions that open a transaction to read and one to write."""

    def __init__(self, read: Open, write: Open) -> None:
        self._read = read
        self._write = write

    def add(self, agreement: Agreement) -> None:
        """Keep a new agreement. Raises GalleryNotFound."""
        terms = {name: getattr(agreement.terms, name) for name in _TERMS}
        row = {
            **terms,
            "disclosure": agreement.terms.disclosure.value,
            "agreement_id": agreement.agreement_id,
            "gallery_id": agreement.gallery_id,
            "created_by": agreement.created_by,
            "created_at": agreement.created_at,
        }
        with self._write() as connection:
            read_gallery(connection, agreement.gallery_id)
            connection.execute(insert(agreements), row)
            details = {
                "agreement_id": agreement.agreement_id,
                "partner_id": agreement.terms.partner_id,
                "purpose": agreement.terms.purpose,
                "disclosure": agreement.terms.disclosure.value,
                "starts_at": agreement.terms.starts_at.isoformat(),
                "ends_at": agreement.terms.ends_at.isoformat(),
                "searches_per_day": agreement.terms.searches_per_day,
                "by": agreement.created_by,
            }
            _note(connection, agreement.gallery_id, "agreement.made", details, agreement.created_at)

    def end(self, gallery_id: str, agreement_id: str, ended_by: str, now: datetime) -> Agreement:
        """End an agreement; one that ended already stays as it is. Raises GalleryNotFound, AgreementNotFound."""
        with self._write() as connection:
            read_gallery(connection, gallery_id)
            before = _locked(connection, agreement_id)
            if before is None or before.gallery_id != gallery_id:
                raise AgreementNotFound("there is no such agreement")
            if before.state(now) is AgreementState.ENDED:
                return before
            ended = update(agreements).where(agreements.c.agreement_id == agreement_id)
            row = connection.execute(ended.values(ended_at=now, ended_by=ended_by).returning(*agreements.c)).one()
            _note(connection, gallery_id, "agreement.ended", {"agreement_id": agreement_id, "by": ended_by}, now)
            return _to_agreement(row)

    def of_gallery(self, gallery_id: str, after: str | None, limit: int) -> Page[Agreement]:
        """Return the agreements about a gallery in the order of their ids. Raises GalleryNotFound."""
        with self._read() as connection:
            read_gallery(connection, gallery_id)
            return _page(connection, agreements.c.gallery_id == gallery_id, after, limit)

    def of_partner(self, partner_id: str, after: str | None, limit: int) -> Page[Agreement]:
        """Return the agreements of a client in the order of their ids."""
        with self._read() as connection:
            return _page(connection, agreements.c.partner_id == partner_id, after, limit)

    def begin_use(self, use: NewUse) -> tuple[Agreement, int]:
        """Let a partner search once, and note it; return the agreement and the number of the use.

        Raises:
            AgreementNotFound: there is none that this client may use now, whatever the reason.
            PurposeNotAgreed, AgreementLimitReached
        """
        with self._write() as connection:
            found = _locked(connection, use.agreement_id)  # the lock: no two searches take the last place of a day
            if (
                found is None
                or found.terms.partner_id != use.partner_id
                or found.state(use.used_at) is not AgreementState.ACTIVE
            ):
                raise AgreementNotFound("there is no such agreement")
            if use.purpose not in {None, found.terms.purpose}:
                raise PurposeNotAgreed("X-Purpose: this is not what the agreement is for")
            start, end = day_of(use.used_at)
            if _uses_between(connection, use.agreement_id, start, end) >= found.terms.searches_per_day:
                wait_s = int((end - use.used_at).total_seconds()) + 1
                raise AgreementLimitReached("no search is left today (UTC)", retry_after_s=wait_s)
            row = {
                "agreement_id": use.agreement_id,
                "used_by": use.partner_id,
                "used_at": use.used_at,
                "purpose": use.purpose,
                "request_id": use.request_id,
            }
            use_id: int = connection.execute(
                insert(agreement_uses).values(row).returning(agreement_uses.c.use_id)
            ).scalar_one()
            return found, use_id

    def finish_use(self, use_id: int, result: UseResult, now: datetime) -> None:
        """Note what came of a use, in the gallery's audit trail too."""
        with self._write() as connection:
            values = {
                "outcome": result.outcome.value,
                "complete": result.complete,
                "error_code": result.error_code,
            }
            finished = update(agreement_uses).where(agreement_uses.c.use_id == use_id)
            row = connection.execute(
                finished.values(values).returning(agreement_uses.c.agreement_id, agreement_uses.c.used_by)
            ).one()
            of_agreement = agreements.c.agreement_id == row.agreement_id
            gallery_id = connection.execute(select(agreements.c.gallery_id).where(of_agreement)).scalar_one()
            details = {"agreement_id": row.agreement_id, "by": row.used_by, "use_id": use_id, **values}
            _note(connection, gallery_id, "agreement.used", details, now)

    def uses(
        self,
        agreement_id: str,
        after: str | None,
        limit: int,
        *,
        gallery_id: str | None = None,
        partner_id: str | None = None,
    ) -> Page[AgreementUse]:
        """Return the uses of an agreement, oldest first, if it is of this gallery, or of this partner.

        Raises:
            AgreementNotFound
        """
        start = to_number(after)
        with self._read() as connection:
            found = _one(connection, agreement_id)
            if found is None or (found.gallery_id != gallery_id and found.terms.partner_id != partner_id):
                raise AgreementNotFound("there is no such agreement")
            wanted = select(agreement_uses).where(
                agreement_uses.c.agreement_id == agreement_id, agreement_uses.c.use_id > start
            )
            rows = connection.execute(wanted.order_by(agreement_uses.c.use_id).limit(limit + 1)).all()
        last = str(rows[limit - 1].use_id) if len(rows) > limit else None
        return Page(tuple(_to_use(row) for row in rows[:limit]), last)


def _one(connection: Connection, agreement_id: str) -> Agreement | None:
    row = connection.execute(select(agreements).where(agreements.c.agreement_id == agreement_id)).one_or_none()
    return None if row is None else _to_agreement(row)


def _locked(connection: Connection, agreement_id: str) -> Agreement | None:
    """Return an agreement and hold its lock; on SQLite the transaction itself is the lock."""
    wanted = select(agreements).where(agreements.c.agreement_id == agreement_id)
    row = connection.execute(wanted.with_for_update(key_share=True)).one_or_none()
    return None if row is None else _to_agreement(row)


def _uses_between(connection: Connection, agreement_id: str, start: datetime, end: datetime) -> int:
    """Return how many uses count against a day: those that failed told nothing."""
    counted = or_(agreement_uses.c.outcome.is_(None), agreement_uses.c.outcome != UseOutcome.FAILED.value)
    within = agreement_uses.c.used_at >= start, agreement_uses.c.used_at < end
    return connection.execute(
        select(func.count()).where(agreement_uses.c.agreement_id == agreement_id, *within, counted)
    ).scalar_one()


def _page(connection: Connection, wanted: ColumnElement[bool], after: str | None, limit: int) -> Page[Agreement]:
    query = select(agreements).where(wanted, agreements.c.agreement_id > (after or ""))
    rows = connection.execute(query.order_by(agreements.c.agreement_id).limit(limit + 1)).all()
    last = rows[limit - 1].agreement_id if len(rows) > limit else None
    return Page(tuple(_to_agreement(row) for row in rows[:limit]), last)


def _note(connection: Connection, gallery_id: str, event: str, details: dict[str, Any], now: datetime) -> None:
    row = {"gallery_id": gallery_id, "event": event, "details": details, "created_at": now}
    connection.execute(insert(audit), row)


def _to_agreement(row: AnyRow) -> Agreement:
    terms = Terms(**{**{name: getattr(row, name) for name in _TERMS}, "disclosure": Disclosure(row.disclosure)})
    return Agreement(
        row.agreement_id, row.gallery_id, terms, row.created_by, row.created_at, row.ended_at, row.ended_by
    )


def _to_use(row: AnyRow) -> AgreementUse:
    outcome = None if row.outcome is None else UseOutcome(row.outcome)
    return AgreementUse(**{**row._mapping, "outcome": outcome})
