"""Sharing agreements in memory, held to the real ones by tests/contracts/test_agreements_contract.py."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from typing import Any

from service.agreement import Agreement, AgreementState, AgreementUse, NewUse, UseOutcome, UseResult, day_of
from service.domain import Page
from service.errors import AgreementLimitReached, AgreementNotFound, InvalidRequest, PurposeNotAgreed
from tests.fake_transactions import Records, append_audit


class FakeAgreements:
    """`service.ports.Agreements` in memory. `records` gives a gallery under the store's lock."""

    def __init__(self, records: Callable[[str], AbstractContextManager[Records]], numbers: Iterator[int]) -> None:
        self._records = records
        self._numbers = numbers
        self._agreements: dict[str, Agreement] = {}
        self._uses: dict[int, AgreementUse] = {}
        self._lock = threading.Lock()

    def add(self, agreement: Agreement) -> None:
        terms = agreement.terms
        details = {
            "agreement_id": agreement.agreement_id,
            "partner_id": terms.partner_id,
            "purpose": terms.purpose,
            "disclosure": terms.disclosure.value,
            "starts_at": terms.starts_at.isoformat(),
            "ends_at": terms.ends_at.isoformat(),
            "searches_per_day": terms.searches_per_day,
            "by": agreement.created_by,
        }
        self._note(agreement.gallery_id, "agreement.made", details, agreement.created_at)
        self._agreements[agreement.agreement_id] = agreement

    def end(self, gallery_id: str, agreement_id: str, ended_by: str, now: datetime) -> Agreement:
        with self._lock:
            with self._records(gallery_id):
                pass
            before = self._agreements.get(agreement_id)
            if before is None or before.gallery_id != gallery_id:
                raise AgreementNotFound("there is no such agreement")
            if before.state(now) is AgreementState.ENDED:
                return before
            self._note(gallery_id, "agreement.ended", {"agreement_id": agreement_id, "by": ended_by}, now)
            self._agreements[agreement_id] = replace(before, ended_at=now, ended_by=ended_by)
            return self._agreements[agreement_id]

    def of_gallery(self, gallery_id: str, after: str | None, limit: int) -> Page[Agreement]:
        with self._records(gallery_id):
            return self._page(lambda each: each.gallery_id == gallery_id, after, limit)

    def of_partner(self, partner_id: str, after: str | None, limit: int) -> Page[Agreement]:
        return self._page(lambda each: each.terms.partner_id == partner_id, after, limit)

    def begin_use(self, use: NewUse) -> tuple[Agreement, int]:
        with self._lock:
            found = self._agreements.get(use.agreement_id)
            is_active = found is not None and found.state(use.used_at) is AgreementState.ACTIVE
            if found is None or not is_active or found.terms.partner_id != use.partner_id:
                raise AgreementNotFound("there is no such agreement")
            if use.purpose not in {None, found.terms.purpose}:
                raise PurposeNotAgreed("X-Purpose: this is not what the agreement is for")
            start, end = day_of(use.used_at)
            counted = [
                each
                for each in self._uses.values()
                if each.agreement_id == use.agreement_id
                and start <= each.used_at < end
                and each.outcome is not UseOutcome.FAILED
            ]
            if len(counted) >= found.terms.searches_per_day:
                wait_s = int((end - use.used_at).total_seconds()) + 1
                raise AgreementLimitReached("no search is left today (UTC)", retry_after_s=wait_s)
            number = next(self._numbers)
            self._uses[number] = AgreementUse(
                number, use.agreement_id, use.partner_id, use.used_at, use.purpose, use.request_id
            )
            return found, number

    def finish_use(self, use_id: int, result: UseResult, now: datetime) -> None:
        with self._lock:
            values: dict[str, Any] = {
                "outcome": result.outcome,
                "complete": result.complete,
                "error_code": result.error_code,
            }
            use = self._uses[use_id] = replace(self._uses[use_id], **values)
            details = {"agreement_id": use.agreement_id, "by": use.used_by, "use_id": use_id, **values}
            self._note(self._agreements[use.agreement_id].gallery_id, "agreement.used", details, now)

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

    def _note(self, gallery_id: str, event: str, details: dict[str, Any], now: datetime) -> None:
        with self._records(gallery_id) as records:
            append_audit(records, event, details, now)
