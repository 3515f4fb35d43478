"""Sharing agreements in memory, held to the real ones by tests/contracts/test_agreements_contract.py."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from service.agreement import (
    Agreement,
    AgreementState,
    AgreementUse,
    NewUse,
    UseOutcome,
    UseResult,
    day_of,
    ended_entry,
    made_entry,
    used_entry,
)
from service.audit_chain import NewEntry
from service.domain import Page
from service.errors import AgreementLimitReached, AgreementNotFound, GalleryNotFound, InvalidRequest, PurposeNotAgreed


class FakeAgreements:
    """`service.ports.Agreements` in memory.

    Args:
        expect: raises GalleryNotFound.
        note: appends to the chain of a gallery, or for None the service's.
    """

    def __init__(
        self,
        expect: Callable[[str], object],
        note: Callable[[str | None, NewEntry, datetime], None],
    ) -> None:
        self._expect = expect
        self._note = note
        self._agreements: dict[str, Agreement] = {}
        self._uses: dict[tuple[str, int], AgreementUse] = {}
        self._lock = threading.Lock()

    def add(self, agreement: Agreement) -> None:
        self._expect(agreement.gallery_id)
        self._note(agreement.gallery_id, made_entry(agreement), agreement.created_at)
        self._agreements[agreement.agreement_id] = agreement

    def end(self, gallery_id: str, agreement_id: str, ended_by: str, clock: Callable[[], datetime]) -> Agreement:
        with self._lock:
            self._expect(gallery_id)
            before = self._agreements.get(agreement_id)
            if before is None or before.gallery_id != gallery_id:
                raise AgreementNotFound("there is no such agreement")
            now = clock()
            if before.state(now) is AgreementState.ENDED:
                return before
            self._note(gallery_id, ended_entry(before), now)
            self._agreements[agreement_id] = replace(before, ended_at=now, ended_by=ended_by)
            return self._agreements[agreement_id]

    def of_gallery(self, gallery_id: str, after: str | None, limit: int) -> Page[Agreement]:
        self._expect(gallery_id)
        return self._page(lambda each: each.gallery_id == gallery_id, after, limit)

    def of_partner(self, partner_id: str, after: str | None, limit: int) -> Page[Agreement]:
        return self._page(lambda each: each.terms.partner_id == partner_id, after, limit)

    def begin_use(self, use: NewUse, clock: Callable[[], datetime]) -> tuple[Agreement, int]:
        with self._lock:
            now = clock()
            found = self._agreements.get(use.agreement_id)
            is_active = found is not None and found.ended_at is None and found.state(now) is AgreementState.ACTIVE
            if found is None or not is_active or found.terms.partner_id != use.partner_id:
                raise AgreementNotFound("there is no such agreement")
            if use.purpose not in {None, found.terms.purpose}:
                raise PurposeNotAgreed("X-Purpose: this is not what the agreement is for")
            start, end = day_of(now)
            counted = [
                each
                for each in self._uses.values()
                if each.agreement_id == use.agreement_id
                and start <= each.used_at < end
                and each.outcome is not UseOutcome.FAILED
            ]
            if len(counted) >= found.terms.searches_per_day:
                wait_s = int((end - now).total_seconds()) + 1
                raise AgreementLimitReached("no search is left today (UTC)", retry_after_s=wait_s)
            number = 1 + sum(each == use.agreement_id for each, _ in self._uses)
            self._uses[use.agreement_id, number] = AgreementUse(
                number, use.agreement_id, use.partner_id, now, found.terms.purpose, use.request_id
            )
            return found, number

    def finish_use(
        self,
        agreement_id: str,
        use_id: int,
        result: UseResult,
        now: datetime,
        partner_gallery_ids: Sequence[str],
    ) -> None:
        with self._lock:
            values: dict[str, Any] = {
                "outcome": result.outcome,
                "complete": result.complete,
                "error_code": result.error_code,
            }
            self._uses[agreement_id, use_id] = replace(self._uses[agreement_id, use_id], **values)
            gallery_id = self._agreements[agreement_id].gallery_id
            its_own: Sequence[str | None] = [each for each in partner_gallery_ids if self._is_there(each)]
            for chain in {gallery_id, *(its_own or (None,))}:
                self._note(chain, used_entry(gallery_id, use_id, result), now)

    def uses(
        self,
        agreement_id: str,
        after: str | None,
        limit: int,
        *,
        gallery_id: str | None = None,
        partner_id: str | None = None,
    ) -> Page[AgreementUse]:
        if after is not None and not after.isdigit():
            raise InvalidRequest("the cursor `after` is none that this listing gave")
        found = self._agreements.get(agreement_id)
        if found is None or (found.gallery_id != gallery_id and found.terms.partner_id != partner_id):
            raise AgreementNotFound("there is no such agreement")
        of_agreement = [each for each in self._uses.values() if each.agreement_id == agreement_id]
        items = [each for each in of_agreement if each.use_id > int(after or 0)]
        return Page(tuple(items[:limit]), str(items[limit - 1].use_id) if len(items) > limit else None)

    def _page(self, wanted: Callable[[Agreement], bool], after: str | None, limit: int) -> Page[Agreement]:
        found = [self._agreements[each] for each in sorted(self._agreements) if each > (after or "")]
        items = [each for each in found if wanted(each)]
        return Page(tuple(items[:limit]), items[limit - 1].agreement_id if len(items) > limit else None)

    def _is_there(self, gallery_id: str) -> bool:
        try:
            self._expect(gallery_id)
        except GalleryNotFound:
            return False
        return True
