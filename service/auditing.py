"""The audit trail: views are written down before they are answered, chains are verified and exported."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from service.audit_chain import SERVICE_CHAIN, AuditEntry, AuditEvent, Detail, NewEntry, SeenSubject, moment_text
from service.audit_check import ORIGIN, ChainPoint, ChainReport, Fault, FaultKind, check_chain
from service.domain import Page
from service.errors import AuditChainBroken, GalleryNotFound
from service.ports import AuditTrail
from service.spreadsheets import cell

BLOCK = 2000  # entries read at once: a megabyte
MOST_AT_ONCE = 50_000  # entries verified in one request: some seconds
CSV_COLUMNS = (
    "chain", "seq", "created_at", "event", "outcome", "client_id", "purpose", "agreement_id", "request_id",
    "details", "references", "previous", "hash",
)  # fmt: skip


Format = Literal["jsonl", "csv"]


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verification found, and how far the chain was when it began."""

    report: ChainReport
    head: ChainPoint

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to verify: the end or a fault was reached."""
        return self.report.fault is not None or self.report.reached.seq >= self.head.seq


class AuditService:
    """The use cases about the audit trail. A gallery is None where the service's own chain is meant."""

    def __init__(self, trail: AuditTrail) -> None:
        self._trail = trail

    def record(
        self,
        event: AuditEvent,
        gallery_id: str | None,
        *,
        outcome: str | None = None,
        details: Mapping[str, Detail] | None = None,
        seen: Iterable[SeenSubject] = (),
    ) -> None:
        """Write down what is done now, before it is answered. Raises GalleryNotFound, StoreUnavailable."""
        self._trail.record(NewEntry(event, outcome, details or {}, tuple(seen)), gallery_id)

    def listed(self, event: AuditEvent, gallery_id: str, seen: Iterable[SeenSubject]) -> None:
        """Write down that a page was looked at: how many stood on it, and who."""
        people = tuple(seen)
        count = len({(each.gallery_id, each.subject_id) for each in people})
        self.record(event, gallery_id, details={"people": count}, seen=people)

    def page(
        self, gallery_id: str | None, after: str | None, limit: int, event: AuditEvent | None = None
    ) -> Page[AuditEntry]:
        """Return entries, oldest first; that they were read becomes an entry too. Raises GalleryNotFound."""
        found = self._trail.audit(gallery_id, after, limit, event)
        self.record(AuditEvent.AUDIT_VIEWED, gallery_id, details={"count": len(found.items)})
        return found

    def verify(
        self,
        gallery_id: str | None,
        start: ChainPoint = ORIGIN,
        anchors: Mapping[int, bytes] | None = None,
        most: int = MOST_AT_ONCE,
    ) -> Verification:
        """Follow a chain from an entry that is known to be right, for so many entries at the most.

        Raises:
            GalleryNotFound, StoreUnavailable
        """
        chain, head = self._head(gallery_id)
        last = min(start.seq + most, head.seq)
        to_end = last == head.seq
        wanted = {seq: each for seq, each in (anchors or {}).items() if seq > start.seq and (to_end or seq <= last)}
        if start.seq > head.seq:
            report = ChainReport(start, Fault(FaultKind.REMOVED, head.seq + 1), 0)
        else:
            entries = self._entries(chain, start.seq, last)
            report = check_chain(entries, start=start, end=head if to_end else None, anchors=wanted)
        if report.fault is None and to_end:
            report = ChainReport(report.reached, self._beyond(chain, head), report.anchors_met)
        fault = report.fault
        details = {"from_seq": start.seq + 1, "to_seq": report.reached.seq, "anchors": report.anchors_met}
        outcome = "whole" if fault is None else fault.kind.value
        self._record_somewhere(AuditEvent.AUDIT_VERIFIED, gallery_id, outcome, details)
        return Verification(report, head)

    def export(self, gallery_id: str | None, form: Format) -> Iterator[str]:
        """Return the lines of a whole chain as it is now; that it was exported is written down first.

        Raises:
            GalleryNotFound, StoreUnavailable
        """
        chain, head = self._head(gallery_id)
        self._record_somewhere(AuditEvent.AUDIT_EXPORTED, gallery_id, form, {"to_seq": head.seq})
        return self._lines(chain, head, form)

    def _record_somewhere(
        self, event: AuditEvent, gallery_id: str | None, outcome: str, details: Mapping[str, Detail]
    ) -> None:
        """Write into the chain that is looked at or, where that is so broken that it takes no entry, the service's."""
        try:
            self.record(event, gallery_id, outcome=outcome, details=details)
        except AuditChainBroken:
            if gallery_id is None:
                raise
            self.record(event, None, outcome=outcome, details={**details, "gallery_id": gallery_id})

    def _lines(self, chain: str, head: ChainPoint, form: Format) -> Iterator[str]:
        if form == "csv":
            yield _csv_line(CSV_COLUMNS)
        for entry in self._entries(chain, 0, head.seq):
            yield f"{entry.to_line()}\n" if form == "jsonl" else _csv_line(_cells(entry))

    def _head(self, gallery_id: str | None) -> tuple[str, ChainPoint]:
        chain = SERVICE_CHAIN if gallery_id is None else gallery_id
        head = self._trail.audit_heads().get(chain)
        if head is None and gallery_id is None:
            raise AuditChainBroken("the chain of the service itself is gone")
        if head is None:
            # a gallery whose chain is gone is no missing gallery
            self._trail.audit(gallery_id, None, 1)
            raise AuditChainBroken("the gallery has no chain: its head was removed")
        if gallery_id == SERVICE_CHAIN:
            raise GalleryNotFound("there is no such gallery")
        return chain, head

    def _entries(self, chain: str, after: int, last: int) -> Iterator[AuditEntry]:
        while after < last:
            block = self._trail.audit_block(chain, after, min(BLOCK, last - after))
            wanted = [each for each in block if each.seq <= last]
            yield from wanted
            if len(wanted) < min(BLOCK, last - after):
                return
            after = wanted[-1].seq

    def _beyond(self, chain: str, head: ChainPoint) -> Fault | None:
        """Return a fault where entries lie behind the head that nobody who appends wrote."""
        newer = self._trail.audit_block(chain, head.seq, 1)
        # asked after them: an entry that was appended meanwhile is within
        now = self._trail.audit_heads()[chain]
        return Fault(FaultKind.INSERTED, newer[0].seq) if newer and newer[0].seq > now.seq else None


def _csv_line(cells: Iterable[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(map(cell, cells))
    return buffer.getvalue()


def _cells(entry: AuditEntry) -> tuple[str, ...]:
    return (
        entry.chain,
        str(entry.seq),
        moment_text(entry.created_at),
        entry.event,
        entry.outcome or "",
        entry.client_id,
        entry.purpose or "",
        entry.agreement_id or "",
        entry.request_id or "",
        entry.details_json,
        str(len(entry.references)),
        entry.previous.hex(),
        entry.hash.hex(),
    )
