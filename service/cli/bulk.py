"""Sends many photographs to a service, several at once, patiently, and so that a repeat enrols nobody twice."""

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from service.cli.client import NO_SERVICE, ServiceClient, gallery_path
from service.cli.failures import CommandFailed
from service.cli.journal import FAILED, REJECTED, FileResult, Journal
from service.cli.sources import Item
from service.errors import BiodedupError, RequestTooLarge, SampleRejected, all_errors

_FINAL: tuple[type[BiodedupError], ...] = (*all_errors(SampleRejected), RequestTooLarge)
_FINAL_CODES = frozenset(error.code for error in _FINAL)
_FULL_CODES = frozenset({"overloaded", "rate_limited"})  # a queue empties, and a minute passes, by themselves
_BUSY_CODES = _FULL_CODES | {"not_ready", "unavailable", "store_unavailable", "index_unavailable"}
_HOPELESS_CODES = frozenset({"unauthenticated", "forbidden"})  # it would be the same for each file

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_QUEUED_GROUPS = 4  # for each sender: enough that none waits, few enough that a stop is quick


@dataclass(frozen=True, slots=True)
class Limits:
    """How hard and how long to try."""

    senders: int = 8
    patience_s: float = 120.0  # how long a service may be gone or failing before the run stops


class _Stopped(Exception):
    """The run was told to stop while this item waited; it stays for the next run."""


class BulkEnrolment:
    """One run over a source. `run` may be stopped from another thread or by an interrupt."""

    def __init__(
        self,
        client: ServiceClient,
        gallery_id: str,
        journal: Journal,
        limits: Limits,
        report: Callable[[FileResult], None],
        *,
        also_search: Sequence[str] = (),
    ) -> None:
        self._client = client
        self._path = gallery_path(gallery_id, "enrolments")
        self._journal = journal
        self._limits = limits
        self._report = report
        self._also_search = ",".join(sorted(also_search))
        self._report_lock = threading.Lock()
        self._stop = threading.Event()
        self.results: list[FileResult] = []

    def stop(self) -> None:
        """Let the requests under way finish and begin no other."""
        self._stop.set()

    def run(self, groups: list[list[Item]]) -> None:
        """Send every group; the items of a group one after another.

        Raises:
            CommandFailed: the service was gone for longer than the patience, or takes nothing from this key; what was
                answered is in the journal.
        """
        waiting: set[Future[None]] = set()
        with ThreadPoolExecutor(self._limits.senders, thread_name_prefix="enrol") as pool:
            try:
                for group in groups:
                    waiting.add(pool.submit(self._send_group, group))
                    if len(waiting) >= self._limits.senders * _QUEUED_GROUPS:
                        waiting = _settle(waiting)
                while waiting:
                    waiting = _settle(waiting)
            finally:
                # also on an interrupt: the pool then only waits for the requests under way
                if waiting:
                    self.stop()

    def _send_group(self, group: list[Item]) -> None:
        for item in group:
            if self._stop.is_set():
                return
            try:
                result = self._answer(item)
            except _Stopped:
                return
            with self._report_lock:
                self.results.append(result)
                self._report(result)

    def _answer(self, item: Item) -> FileResult:
        try:
            content = item.path.read_bytes()
        except OSError as error:
            message = error.strerror or "cannot be read"
            return FileResult(item.name, FAILED, code="file_unreadable", message=message)
        # what was answered without these galleries, or with others, is no answer
        key = item.key(content) + (f" also in {self._also_search}" if self._also_search else "")
        known = self._journal.known(key)
        if known is not None:
            return known
        result = self._send(item, content)
        if result.result != FAILED:
            self._journal.record(key, result)
        return result

    def _send(self, item: Item, content: bytes) -> FileResult:
        """Ask until there is an answer. The encounter id makes every repeat the same request."""
        pause_s, waited_s = _FIRST_PAUSE_S, 0.0
        while True:
            try:
                answer = self._client.post_samples(self._path, [("sample", content)], self._form(item, content))
                return FileResult.of_enrolment(item.name, answer)
            except CommandFailed as failure:
                if failure.code in _HOPELESS_CODES:
                    self.stop()
                    raise
                if failure.code not in _BUSY_CODES | {NO_SERVICE}:
                    result = REJECTED if failure.code in _FINAL_CODES else FAILED
                    return FileResult(item.name, result, code=failure.code, message=failure.message)
                # only what may be broken uses up the patience
                waited_s = 0.0 if failure.code in _FULL_CODES else waited_s + pause_s
                if waited_s > self._limits.patience_s:
                    self.stop()
                    raise
                self._pause(max(pause_s, failure.retry_after_s or 0.0))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _form(self, item: Item, content: bytes) -> dict[str, str]:
        also = {"also_search": self._also_search} if self._also_search else {}
        return also | _form(item, content)

    def _pause(self, pause_s: float) -> None:
        if self._stop.wait(pause_s):
            raise _Stopped


def _settle(waiting: set[Future[None]]) -> set[Future[None]]:
    """Wait for at least one group and pass on what stopped it; return the groups that are left."""
    done, left = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
    return left


def _form(item: Item, content: bytes) -> dict[str, str]:
    form = dict(item.facts) | {"encounter_id": item.chosen_encounter_id(content)}
    if item.subject_id is not None:
        form["subject_id"] = item.subject_id
    if item.labels:
        form["labels"] = json.dumps(dict(item.labels), ensure_ascii=False, sort_keys=True)
    return form
