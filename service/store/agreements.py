"""Sharing agreements in the record, and every search under them."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime

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
    ended_entry,
    made_entry,
    used_entry,
)
from service.audit_chain import SERVICE_CHAIN
from service.domain import Page
from service.errors import AgreementLimitReached, AgreementNotFound, PurposeNotAgreed
from service.ports import SubjectCipher
from service.store.auditing import Recorder
from service.store.reading import read_gallery
from service.store.records import to_number
from service.store.rows import AnyRow
from service.store.sealing import agreement_context
from service.store.tables import agreement_uses, agreements, audit_chains

Open = Callable[[], AbstractContextManager[Connection]]
_TERMS = tuple(Terms.__slots__)


class SqlAgreements:
    """`service.ports.Agreements` over functions that open a transaction to read and one to write.

    Args:
        read: opens a transaction to read.
        write: opens one to write.
        cipher: of the words of agreements.
        recorder: of the audit trail.
    """

    def __init__(self, read: Open, write: Open, cipher: SubjectCipher, recorder: Recorder) -> None:
        self._read = read
        self._write = write
        self._cipher = cipher
        self._recorder = recorder

    def add(self, agreement: Agreement) -> None:
        """Keep a new agreement. Raises GalleryNotFound."""
        gallery_id, terms = agreement.gallery_id, agreement.terms
        values = {name: getattr(terms, name) for name in _TERMS}
        row = {
            **values,
            "description": self._sealed(gallery_id, agreement.agreement_id, terms.description),
            "disclosure": terms.disclosure.value,
            "agreement_id": agreement.agreement_id,
            "gallery_id": gallery_id,
            "created_by": agreement.created_by,
            "created_at": agreement.created_at,
        }
        with self._write() as connection:
            read_gallery(connection, gallery_id)
            connection.execute(insert(agreements), row)
            self._recorder.write(connection, gallery_id, made_entry(agreement), agreement.created_at)

    def end(self, gallery_id: str, agreement_id: str, ended_by: str, clock: Callable[[], datetime]) -> Agreement:
        """End an agreement; see `service.ports.Agreements`. Raises GalleryNotFound, AgreementNotFound."""
        with self._write() as connection:
            read_gallery(connection, gallery_id)
            row = _locked(connection, agreement_id)
            if row is None or row.gallery_id != gallery_id:
                raise AgreementNotFound("there is no such agreement")
            before, now = self._agreement(row), clock()
            if before.state(now) is AgreementState.ENDED:
                return before
            ended = update(agreements).where(agreements.c.agreement_id == agreement_id)
            connection.execute(ended.values(ended_at=now, ended_by=ended_by))
            self._recorder.write(connection, gallery_id, ended_entry(before), now)
            return replace(before, ended_at=now, ended_by=ended_by)

    def of_gallery(self, gallery_id: str, after: str | None, limit: int) -> Page[Agreement]:
        """Return the agreements about a gallery in the order of their ids. Raises GalleryNotFound."""
        with self._read() as connection:
            read_gallery(connection, gallery_id)
            return self._page(connection, agreements.c.gallery_id == gallery_id, after, limit)

    def of_partner(self, partner_id: str, after: str | None, limit: int) -> Page[Agreement]:
        """Return the agreements of a client in the order of their ids."""
        with self._read() as connection:
            return self._page(connection, agreements.c.partner_id == partner_id, after, limit)

    def begin_use(self, use: NewUse, clock: Callable[[], datetime]) -> tuple[Agreement, int]:
        """Let a partner search once, and note it; see `service.ports.Agreements`.

        Raises:
            AgreementNotFound: there is none that this client may use now, whatever the reason.
            PurposeNotAgreed, AgreementLimitReached
        """
        with self._write() as connection:
            row = _locked(connection, use.agreement_id)  # the lock: no two searches take the last place of a day
            now = clock()  # not before the lock: whoever waits for it may wait past the end
            found = None if row is None else self._agreement(row)
            if (
                found is None
                or found.terms.partner_id != use.partner_id
                or found.ended_at is not None  # whatever this process's clock says
                or found.state(now) is not AgreementState.ACTIVE
            ):
                raise AgreementNotFound("there is no such agreement")
            if use.purpose not in {None, found.terms.purpose}:
                raise PurposeNotAgreed("X-Purpose: this is not what the agreement is for")
            start, end = day_of(now)
            if _uses_between(connection, use.agreement_id, start, end) >= found.terms.searches_per_day:
                wait_s = int((end - now).total_seconds()) + 1
                raise AgreementLimitReached("no search is left today (UTC)", retry_after_s=wait_s)
            # counted by agreement: one number over all would tell a partner how much others search
            last = select(func.max(agreement_uses.c.use_id)).where(agreement_uses.c.agreement_id == use.agreement_id)
            use_id = (connection.execute(last).scalar_one() or 0) + 1
            noted = {
                "agreement_id": use.agreement_id,
                "use_id": use_id,
                "used_by": use.partner_id,
                "used_at": now,
                "purpose": found.terms.purpose,
                "request_id": use.request_id,
            }
            connection.execute(insert(agreement_uses), noted)
            return found, use_id

    def finish_use(
        self,
        agreement_id: str,
        use_id: int,
        result: UseResult,
        now: datetime,
        partner_gallery_ids: Sequence[str],
    ) -> None:
        """Note what came of a use, in the audit trails of both sides too; see `service.ports.Agreements`."""
        values = {"outcome": result.outcome.value, "complete": result.complete, "error_code": result.error_code}
        with self._write() as connection:
            is_use = (agreement_uses.c.agreement_id == agreement_id, agreement_uses.c.use_id == use_id)
            connection.execute(update(agreement_uses).where(*is_use).values(values))
            of_agreement = agreements.c.agreement_id == agreement_id
            gallery_id = connection.execute(select(agreements.c.gallery_id).where(of_agreement)).scalar_one()
            its_own = audit_chains.c.chain.in_(partner_gallery_ids)
            partner_chains = connection.execute(select(audit_chains.c.chain).where(its_own)).scalars().all()
            for chain in sorted({gallery_id, *(partner_chains or (SERVICE_CHAIN,))}):
                self._recorder.write(connection, chain, used_entry(gallery_id, use_id, result), now)

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
            sides = select(agreements.c.gallery_id, agreements.c.partner_id)
            found = connection.execute(sides.where(agreements.c.agreement_id == agreement_id)).one_or_none()
            if found is None or (found.gallery_id != gallery_id and found.partner_id != partner_id):
                raise AgreementNotFound("there is no such agreement")
            wanted = select(agreement_uses).where(
                agreement_uses.c.agreement_id == agreement_id, agreement_uses.c.use_id > start
            )
            rows = connection.execute(wanted.order_by(agreement_uses.c.use_id).limit(limit + 1)).all()
        last = str(rows[limit - 1].use_id) if len(rows) > limit else None
        return Page(tuple(_to_use(row) for row in rows[:limit]), last)

    def _page(
        self, connection: Connection, wanted: ColumnElement[bool], after: str | None, limit: int
    ) -> Page[Agreement]:
        query = select(agreements).where(wanted, agreements.c.agreement_id > (after or ""))
        rows = connection.execute(query.order_by(agreements.c.agreement_id).limit(limit + 1)).all()
        last = rows[limit - 1].agreement_id if len(rows) > limit else None
        return Page(tuple(self._agreement(row) for row in rows[:limit]), last)

    def _sealed(self, gallery_id: str, agreement_id: str, words: str | None) -> bytes | None:
        if words is None:
            return None
        context = agreement_context(gallery_id, agreement_id)
        return self._cipher.seal_of_gallery(gallery_id, words.encode(), context)

    def _agreement(self, row: AnyRow) -> Agreement:
        values = {name: getattr(row, name) for name in _TERMS}
        if row.description is not None:
            context = agreement_context(row.gallery_id, row.agreement_id)
            values["description"] = self._cipher.open_of_gallery(row.gallery_id, row.description, context).decode()
        terms = Terms(**{**values, "disclosure": Disclosure(row.disclosure)})
        return Agreement(
            row.agreement_id, row.gallery_id, terms, row.created_by, row.created_at, row.ended_at, row.ended_by
        )


def _locked(connection: Connection, agreement_id: str) -> AnyRow | None:
    """Return an agreement's row and hold its lock; on SQLite the transaction itself is the lock."""
    wanted = select(agreements).where(agreements.c.agreement_id == agreement_id)
    return connection.execute(wanted.with_for_update(key_share=True)).one_or_none()


def _uses_between(connection: Connection, agreement_id: str, start: datetime, end: datetime) -> int:
    """Return how many uses count against a day: those that failed told nothing."""
    counted = or_(agreement_uses.c.outcome.is_(None), agreement_uses.c.outcome != UseOutcome.FAILED.value)
    within = agreement_uses.c.used_at >= start, agreement_uses.c.used_at < end
    return connection.execute(
        select(func.count()).where(agreement_uses.c.agreement_id == agreement_id, *within, counted)
    ).scalar_one()


def _to_use(row: AnyRow) -> AgreementUse:
    outcome = None if row.outcome is None else UseOutcome(row.outcome)
    return AgreementUse(**{**row._mapping, "outcome": outcome})
