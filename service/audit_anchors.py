"""Anchors: how far each chain was at a time, written where who may write to the database may not."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from service.audit_chain import moment_text
from service.audit_check import ChainPoint
from service.errors import SettingsInvalid, StoreUnavailable
from service.logs import log_event
from service.metrics import Metrics
from service.ports import AuditTrail

_LOOK_S = 5.0  # between two looks at the heads: one small query

_log = logging.getLogger(__name__)


class Anchors:
    """Writes down the head of each chain now and then: a line of the log, and of a file where there is one.

    A chain is anchored when it is seen first, after `entries` further ones, or `period_s` after the last time where
    there are any, and at the end.

    Args:
        trail: the chains.
        metrics: told of the time of the last anchor.
        file: appended to; None: the log alone.
        entries: after which a chain is anchored again.
        period_s: after which it is anchored, however few.
        clock: the time that anchors bear; time zone aware.

    Raises:
        SettingsInvalid: the file cannot be appended to.
    """

    def __init__(
        self,
        trail: AuditTrail,
        metrics: Metrics,
        *,
        file: Path | None,
        entries: int,
        period_s: float,
        clock: Callable[[], datetime],
    ) -> None:
        self._trail, self._metrics, self._file, self._clock = trail, metrics, file, clock
        self._entries, self._period_s = entries, period_s
        self._last: dict[str, tuple[int, float]] = {}  # chain: number, and when in seconds of the monotonic clock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="anchors", daemon=True)
        self._append([])

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop, and anchor what is not yet."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self.look(is_last=True)

    def look(self, *, is_last: bool = False) -> None:
        """Anchor the chains that are due, at the end all with new entries. What fails is logged and tried again."""
        now = time.monotonic()
        try:
            heads = self._trail.audit_heads()
            due = {chain: head for chain, head in heads.items() if self._is_due(chain, head, now, is_last=is_last)}
            moment = self._clock()
            self._append(anchor_line(moment, chain, head) for chain, head in due.items())
        except (StoreUnavailable, SettingsInvalid) as error:
            log_event(_log, "audit.not_anchored", level=logging.ERROR, code=error.code)
            return
        for chain, head in due.items():
            log_event(_log, "audit.anchored", chain=chain, seq=head.seq, hash=head.hash.hex())
            self._last[chain] = head.seq, now
        if due:
            self._metrics.audit_anchor_time.set(moment.timestamp())

    def _is_due(self, chain: str, head: ChainPoint, now: float, *, is_last: bool) -> bool:
        seq, when = self._last.get(chain, (0, -float("inf")))
        return head.seq > seq and (is_last or head.seq - seq >= self._entries or now - when >= self._period_s)

    def _append(self, lines: Iterable[str]) -> None:
        """Raises SettingsInvalid."""
        if self._file is None:
            return
        try:
            with self._file.open("a", encoding="ascii") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise SettingsInvalid("BIODEDUP_AUDIT_ANCHOR_FILE: the file cannot be appended to") from error

    def _run(self) -> None:
        while True:
            self.look()
            if self._stopping.wait(_LOOK_S):
                return


def anchor_line(moment: datetime, chain: str, head: ChainPoint) -> str:
    anchor = {"time": moment_text(moment), "chain": chain, "seq": head.seq, "hash": head.hash.hex()}
    return json.dumps(anchor, separators=(",", ":")) + "\n"


def read_anchors(lines: Iterable[str]) -> dict[str, dict[int, bytes]]:
    """Return the hashes by chain and number; lines of a log that are no anchors are left out.

    Raises:
        ValueError: no line is an anchor, or two of them contradict each other.
    """
    found: dict[str, dict[int, bytes]] = {}
    for line in lines:
        try:
            anchor = json.loads(line)
            chain, seq, value = str(anchor["chain"]), int(anchor["seq"]), bytes.fromhex(anchor["hash"])
        except (ValueError, KeyError, TypeError):
            continue  # another event of the log
        if found.setdefault(chain, {}).setdefault(seq, value) != value:
            raise ValueError(f"two anchors of {chain} say different things of entry {seq}")
    if not found:
        raise ValueError("no line of it is an anchor")
    return found
