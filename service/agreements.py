"""The use case of sharing agreements: one agency searches another's gallery, at a stated level of disclosure."""

import math
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from service.access import LOCAL, Caller
from service.acting import Actor, acting_as, current_actor
from service.agreement import Agreement, AgreementUse, Disclosure, NewUse, Terms, UseOutcome, UseResult
from service.domain import CaptureFacts, Page
from service.errors import BiodedupError, IndexUnavailable, InvalidRequest, Overloaded, SampleRejected
from service.identification import NO_FACTS, Identification, IdentificationService
from service.ports import Agreements

STEP_S = 0.5
"""What came of a search under `hit_or_no_hit` is written and answered at whole steps after it began: how long it took
tells nothing."""

# what a failure may say: of the sample, of the request, and that too many wait; anything else would tell of the gallery
_OF_THE_REQUEST = (SampleRejected, InvalidRequest, Overloaded)


@dataclass(frozen=True, slots=True)
class PartnerAnswer:
    """What was found, and the agreement that says how much of it may be told."""

    agreement: Agreement
    found: Identification

    @property
    def is_hit(self) -> bool:
        return bool(self.found.decision.candidates)


@dataclass(frozen=True, slots=True)
class PartnerSearch:
    """A search that was done, of which nothing was told yet."""

    answer: PartnerAnswer
    use_id: int
    caller: Caller
    actor: Actor
    tell_at_s: float  # by the clock that never goes back; nothing that the partner can watch tells of it before


class AgreementService:
    """Makes, ends and lists agreements, and searches under them.

    Args:
        agreements: the record of them.
        identification: searches.
        clock: time zone aware.
        step_s: between two moments at which `hit_or_no_hit` is answered.
        seconds: a clock that never goes back.
    """

    def __init__(
        self,
        agreements: Agreements,
        identification: IdentificationService,
        clock: Callable[[], datetime],
        *,
        step_s: float = STEP_S,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._agreements = agreements
        self._identification = identification
        self._clock = clock
        self._step_s = step_s
        self._seconds = seconds

    def now(self) -> datetime:
        return self._clock()

    def make(self, gallery_id: str, terms: Terms) -> Agreement:
        """Make an agreement about a gallery, in the name of whoever acts. Raises GalleryNotFound, InvalidRequest."""
        now = self._clock()
        if terms.ends_at <= max(terms.starts_at, now):
            raise InvalidRequest("ends_at: an agreement ends after it begins, and in the future")
        actor = current_actor().client_id
        if actor == terms.partner_id != LOCAL.client_id:
            raise InvalidRequest("partner_id: nobody makes an agreement with itself")
        agreement = Agreement(uuid.uuid4().hex, gallery_id, terms, actor, now)
        self._agreements.add(agreement)
        return agreement

    def end(self, gallery_id: str, agreement_id: str) -> Agreement:
        """End an agreement now; one that ended already stays as it is. Raises GalleryNotFound, AgreementNotFound."""
        return self._agreements.end(gallery_id, agreement_id, current_actor().client_id, self._clock)

    def of_gallery(self, gallery_id: str, after: str | None, limit: int) -> Page[Agreement]:
        """Raises GalleryNotFound."""
        return self._agreements.of_gallery(gallery_id, after, limit)

    def of_partner(self, partner_id: str, after: str | None, limit: int) -> Page[Agreement]:
        """Return the agreements under which a client may search, those to come and those that ended too."""
        return self._agreements.of_partner(partner_id, after, limit)

    def uses(
        self,
        agreement_id: str,
        after: str | None,
        limit: int,
        *,
        gallery_id: str | None = None,
        partner_id: str | None = None,
    ) -> Page[AgreementUse]:
        """Return the searches under an agreement, oldest first, for its gallery or for its partner.

        Raises:
            AgreementNotFound: there is none, or it is of another gallery or partner.
        """
        return self._agreements.uses(agreement_id, after, limit, gallery_id=gallery_id, partner_id=partner_id)

    def search(self, agreement_id: str, caller: Caller, sample: bytes, capture: CaptureFacts) -> PartnerSearch:
        """Search the gallery of an agreement. Nothing is recorded of the probe; that it was searched is.

        Whoever asks waits for `wait_s` and then lets it `tell`: three steps, so that no thread is held meanwhile.

        Raises:
            AgreementNotFound: there is none that this caller may use now, whatever the reason.
            PurposeNotAgreed, AgreementLimitReached, SampleRejected, InvalidRequest, Overloaded
            IndexUnavailable: whatever else kept the gallery from being searched.
        """
        start = self._seconds()
        actor = current_actor()
        use = NewUse(agreement_id, caller.client_id, actor.purpose, actor.request_id)
        agreement, use_id = self._agreements.begin_use(use, self._clock)
        actor = replace(actor, purpose=agreement.terms.purpose, agreement_id=agreement_id)
        with acting_as(actor):
            found = self._identify(agreement, use_id, caller, sample, capture)
        done_s = self._seconds()
        if agreement.terms.disclosure is Disclosure.HIT_OR_NO_HIT:
            # the next whole step: how many candidates were looked up must not be told by the time it took
            done_s = start + math.ceil((done_s - start) / self._step_s) * self._step_s
        return PartnerSearch(PartnerAnswer(agreement, found), use_id, caller, actor, done_s)

    def wait_s(self, search: PartnerSearch) -> float:
        """Return how long to wait before it is told."""
        return max(0.0, search.tell_at_s - self._seconds())

    def tell(self, search: PartnerSearch) -> PartnerAnswer:
        """Note what came of a search, and return it.

        Noted after the wait: the partner may watch its own list of uses, or its own audit trail.

        Raises:
            IndexUnavailable: it cannot be noted.
        """
        outcome = UseOutcome.HIT if search.answer.is_hit else UseOutcome.NO_HIT
        with acting_as(search.actor):
            result = UseResult(outcome, search.answer.found.searched.complete)
            self._finish(search.answer.agreement, search.use_id, result, search.caller)
        return search.answer

    def _identify(
        self, agreement: Agreement, use_id: int, caller: Caller, sample: bytes, capture: CaptureFacts
    ) -> Identification:
        """Return what is found, and let a failure tell nothing of the other agency's gallery."""
        # sex and year of birth lower the threshold for whom they fit: a hit would tell that they do
        known = capture if agreement.terms.disclosure is Disclosure.FULL else NO_FACTS
        try:
            return self._identification.identify(agreement.gallery_id, sample, known)
        except BiodedupError as error:
            told = error if isinstance(error, _OF_THE_REQUEST) else _unavailable()
            self._finish(agreement, use_id, UseResult(UseOutcome.FAILED, None, told.code), caller)
            if told is error:
                raise
            raise told from error

    def _finish(self, agreement: Agreement, use_id: int, result: UseResult, caller: Caller) -> None:
        """Note what came of a use. Raises IndexUnavailable."""
        try:
            its_own = caller.named_gallery_ids
            self._agreements.finish_use(agreement.agreement_id, use_id, result, self._clock(), its_own)
        except BiodedupError as error:  # such as a chain that takes no entry: nothing is answered without one
            raise _unavailable() from error


def _unavailable() -> IndexUnavailable:
    return IndexUnavailable("the gallery cannot be searched now; try again")
