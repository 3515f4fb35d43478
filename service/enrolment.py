"""Enrol a person: search the whole gallery, decide, record, in a way that no simultaneous enrolment slips through.

A little over 300 lines: one use case, from the request to the record.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from service.ageing import age_warnings
from service.ages import RecaptureAdvice
from service.audit_chain import AuditEvent, NewEntry
from service.audit_people import seen_in_enrolment
from service.domain import (
    CaptureFacts,
    CaseKind,
    Continuity,
    Decision,
    EarlierRequest,
    Enrolment,
    FacePolicy,
    Gallery,
    NewEnrolment,
    NewTemplate,
    OutcomeKind,
    QualityGate,
    Searched,
)
from service.enrolment_request import EnrolmentRequest, answer_again
from service.enrolment_samples import Extracted, Probes, let_through
from service.errors import IndexUnavailable, InvalidRequest, QualityTooLow, SampleRejected
from service.filters import Filters
from service.live_accuracy import LiveAccuracy
from service.matching import Matcher, SearchAgain
from service.metrics import Metrics
from service.packs import Pack, Packs
from service.ports import Store, Writing
from service.probes import ProbeMaker
from service.quality_rule import refuses
from service.standby import PacksChanged, StandbyMatcher, known_references
from service.wide_search import MAX_FURTHER, WideMatcher, WideSearch, check_comparable

_BROKEN = ("These photographs and the earlier ones of this subject may show different people: a human must look.",)
_ATTEMPTS = 5  # each begins with an index that caught up; five in a row mean that it cannot


@dataclass(frozen=True, slots=True)
class EnrolmentAnswer:
    """The recorded enrolment, and whether it answers a repeated request."""

    enrolment: Enrolment
    is_replay: bool


class _AnsweredBefore(Exception):
    """Inside the write transaction: the same request was answered while this one was under way."""

    def __init__(self, earlier: EarlierRequest) -> None:
        super().__init__()
        self.earlier = earlier


@dataclass(frozen=True, slots=True)
class _Work:
    """One enrolment under way."""

    request: EnrolmentRequest
    digest: str
    gallery: Gallery
    pack: Pack
    extracted: Extracted
    probes: Probes  # what the gate of `gallery` lets through of it

    def at(self, gallery: Gallery) -> "_Work":
        """Return the same enrolment for the gallery as it is now. Raises SampleRejected."""
        if _gate_of(gallery, self.request) is _gate_of(self.gallery, self.request):
            return replace(self, gallery=gallery)
        return replace(self, gallery=gallery, probes=let_through(self.extracted, _gate_of(gallery, self.request)))


class EnrolmentService:
    """The enrolment use case."""

    def __init__(
        self,
        store: Store,
        matcher: Matcher,
        packs: Packs,
        metrics: Metrics,
        *,
        accuracy: LiveAccuracy,
        face_policy: FacePolicy,
        idempotency_period: timedelta,
        clock: Callable[[], datetime],
        recapture: RecaptureAdvice | None = None,
    ) -> None:
        self._store = store
        self._matcher = matcher
        self._standby = StandbyMatcher(matcher, packs, Filters(store))
        self._wide = WideMatcher(self._standby)
        self._packs = packs
        self._metrics = metrics
        self._accuracy = accuracy
        self._probes = ProbeMaker(packs, metrics, face_policy)
        self._idempotency_period = idempotency_period
        self._clock = clock
        self._recapture = recapture or RecaptureAdvice()
        self._galleries: dict[str, Gallery] = {}  # each as the last enrolment saw it

    def enrol(self, request: EnrolmentRequest) -> EnrolmentAnswer:
        """Return the recorded answer to `request`; a repeat of it gets the first answer.

        Raises:
            GalleryNotFound, GalleriesNotComparable, PackNotLoaded, InvalidRequest
            SampleRejected: no sample is usable; the subclass says why the first one is not.
            EncounterExists, IdempotencyKeyReused: known under other content.
            Overloaded, StoreUnavailable, IndexUnavailable
        """
        if not request.samples and request.biometric_exception is None:
            raise InvalidRequest("send at least one sample, or a biometric_exception that says why there is none")
        if request.samples and request.biometric_exception is not None:
            raise InvalidRequest("send samples or a biometric_exception, not both")
        if request.gallery_id in request.also_search or len(set(request.also_search)) < len(request.also_search):
            raise InvalidRequest("also_search: name each further gallery once, and not the one that you enrol into")
        if len(request.also_search) > MAX_FURTHER:
            raise InvalidRequest(f"also_search: name at most {MAX_FURTHER} further galleries")
        digest = request.digest()
        gallery, earlier = self._look_up(request)
        if earlier is not None:
            return self._replay(earlier, request, digest)
        try:
            enrolment = self._enrol_new(request, digest, gallery)
        except _AnsweredBefore as before:
            return self._replay(before.earlier, request, digest)
        self._metrics.enrolments.labels(outcome=enrolment.outcome.value).inc()
        return EnrolmentAnswer(enrolment, is_replay=False)

    def _replay(self, earlier: EarlierRequest, request: EnrolmentRequest, digest: str) -> EnrolmentAnswer:
        """Give the first answer again, and write down that it was given again."""
        try:
            enrolment = answer_again(earlier, request, digest)
        except SampleRejected as error:
            self._record(request.gallery_id, NewEntry(AuditEvent.ENROLMENT_REPLAYED, error.code))
            raise
        seen = seen_in_enrolment(enrolment)
        again = NewEntry(AuditEvent.ENROLMENT_REPLAYED, enrolment.outcome.value, subjects=seen)
        self._record(request.gallery_id, again)
        return EnrolmentAnswer(enrolment, is_replay=True)

    def _record(self, gallery_id: str, entry: NewEntry) -> None:
        self._store.record(entry, gallery_id)

    def _look_up(self, request: EnrolmentRequest) -> tuple[Gallery, EarlierRequest | None]:
        """Return the gallery, perhaps as it was a while ago, and the answer that this request got before."""
        known = self._galleries.get(request.gallery_id)
        if known is not None and request.idempotency_key is None and request.encounter_id is None:
            return known, None  # nothing rests on it: it is read again under the lock
        with self._store.reading() as reading:
            gallery = reading.gallery(request.gallery_id)
            return gallery, reading.earlier_request(
                request.gallery_id, request.idempotency_key, request.encounter_id, self._not_before()
            )

    def _enrol_new(self, request: EnrolmentRequest, digest: str, gallery: Gallery) -> Enrolment:
        self._check_others(request)
        if request.biometric_exception is not None:
            return self._record_exception(request, digest, gallery)
        for _ in range(_ATTEMPTS):
            try:
                return self._enrol_by_packs(request, digest, gallery)
            except PacksChanged:
                with self._store.reading() as reading:
                    gallery = reading.gallery(gallery.gallery_id)
        raise IndexUnavailable("the gallery changes its model pack again and again; try again")

    def _check_others(self, request: EnrolmentRequest) -> None:
        """Before any work. Raises GalleryNotFound, GalleriesNotComparable."""
        if request.also_search:
            with self._store.reading() as reading:
                gallery = reading.gallery(request.gallery_id)
                for other_id in request.also_search:
                    check_comparable(gallery, reading.gallery(other_id))

    def _enrol_by_packs(self, request: EnrolmentRequest, digest: str, gallery: Gallery) -> Enrolment:
        """Enrol with the packs that the gallery had when it was read. Raises PacksChanged."""
        extracted = self._probes.extract(request.samples, gallery)
        pack = self._packs.of(gallery.pack_id)
        if gallery.quality_gate is not QualityGate.OFF:
            # perhaps as it was a while ago: nobody is refused by a gate that was lifted since
            with self._store.reading() as reading:
                gallery = reading.gallery(gallery.gallery_id)
        try:
            probes = let_through(extracted, _gate_of(gallery, request))
            enrolment, probes = self._search_and_record(_Work(request, digest, gallery, pack, extracted, probes))
        except SampleRejected as error:
            self._refuse(request, digest, extracted, error)
            raise
        self._count_refused_by_gate(len(extracted.templates) - len(probes.templates))
        ids = [sample.reference_id for sample in enrolment.samples if sample.reference_id is not None]
        self._matcher.applied(gallery, enrolment.seq, ids, probes.embeddings)
        if len(probes.pack_ids) > 1:
            self._matcher.follow(gallery.gallery_id)
        for other_id in request.also_search:
            self._matcher.follow(other_id)
        self._accuracy.unusable(request.facts.site, len(probes.rejected))
        self._accuracy.enrolled(enrolment, probes.templates, request.facts.site, is_one_pack=len(probes.pack_ids) == 1)
        return enrolment

    def _refuse(self, request: EnrolmentRequest, digest: str, extracted: Extracted, error: SampleRejected) -> None:
        """Count and remember that no sample is usable. Raises PacksChanged: a pack said so that rules no more."""
        with self._store.reading() as reading:
            if reading.gallery(request.gallery_id).pack_ids != extracted.pack_ids:
                raise PacksChanged from None
        self._count_refused_by_gate(len(extracted.templates))
        self._metrics.enrolments.labels(outcome=OutcomeKind.REJECTED.value).inc()
        self._accuracy.unusable(request.facts.site, len(request.samples))
        self._record(request.gallery_id, NewEntry(AuditEvent.ENROLMENT_REJECTED, error.code))
        if (key := request.idempotency_key) is not None:
            self._store.remember_rejection(request.gallery_id, key, digest, error.code, error.message)

    def _count_refused_by_gate(self, samples: int) -> None:
        if samples:
            self._metrics.rejections.labels(code=QualityTooLow.code).inc(samples)

    def _search_and_record(self, work: _Work) -> tuple[Enrolment, Probes]:
        """Return the recorded enrolment and what was searched for it. Raises PacksChanged."""
        for _ in range(_ATTEMPTS):
            gallery = work.gallery
            capture = work.request.facts.capture(self._clock())
            others = work.request.also_search
            search = self._search(work, capture)
            try:
                with self._metrics.phase("store"), self._store.writing(gallery.gallery_id, others) as writing:
                    self._leave_if_answered(writing, work.request)
                    return writing.insert_enrolment(self._decide(writing, work, search)), work.probes
            except SearchAgain:
                for gallery_id in (gallery.gallery_id, *others):
                    self._matcher.catch_up(gallery_id)
            with self._store.reading() as reading:
                work = work.at(reading.gallery(gallery.gallery_id))
        raise IndexUnavailable("the gallery changes faster than its index can follow; try again")

    def _search(self, work: _Work, capture: CaptureFacts) -> WideSearch:
        """Raises PacksChanged, GalleryNotFound, GalleriesNotComparable, IndexUnavailable."""
        others: list[Gallery] = []
        if work.request.also_search:
            with self._store.reading() as reading:
                others = [reading.gallery(each) for each in work.request.also_search]
        return self._wide.begin(work.gallery, others, work.probes, capture)

    def _decide(self, writing: Writing, work: _Work, search: WideSearch) -> NewEnrolment:
        """Compare with the newcomers and decide, inside the locks of the galleries."""
        gallery_id, subject_id = work.gallery.gallery_id, work.request.subject_id
        # as it is now, under the lock: its packs, its rates and its policies may have changed while the sample waited
        self._galleries[gallery_id] = writing.gallery(gallery_id)
        if self._galleries[gallery_id].pack_ids != work.probes.pack_ids:
            raise PacksChanged
        if _gate_of(self._galleries[gallery_id], work.request) is not _gate_of(work.gallery, work.request):
            # other samples may be let through: they are searched anew
            raise SearchAgain
        work = replace(work, gallery=self._galleries[gallery_id])
        finding, others = self._wide.finish(search, writing, work.gallery, subject_id)
        side, own = known_references(writing, work.gallery, subject_id)
        continuity = self._standby.continuity(work.gallery, side, own, work.probes)
        old = age_warnings(self._recapture, self._clock(), search.capture, own, continuity[0])
        decision = replace(finding.decision, warnings=(*finding.decision.warnings, *old))
        new = _new_enrolment(work, decision, finding.searched, continuity)
        change = self._packs.rule(work.gallery).threshold_change(work.gallery)
        return replace(new, threshold_change=change, standby_candidates=others) if change or others else new

    def _record_exception(self, request: EnrolmentRequest, digest: str, gallery: Gallery) -> Enrolment:
        """Record a person without a usable face: never UNIQUE, but never left out."""
        new = replace(
            _empty_enrolment(request, digest, OutcomeKind.NOT_COMPARED),
            warnings=(_unchecked(request.also_search),),
        )
        with self._store.writing(gallery.gallery_id) as writing:
            self._leave_if_answered(writing, request)
            enrolment = writing.insert_enrolment(new)
        self._matcher.follow(gallery.gallery_id)
        return enrolment

    def _leave_if_answered(self, writing: Writing, request: EnrolmentRequest) -> None:
        """A repeat that was under way at the same time gets the first answer: whoever holds the lock first gives it."""
        if request.idempotency_key is None and request.encounter_id is None:
            return
        earlier = writing.earlier_request(
            request.gallery_id, request.idempotency_key, request.encounter_id, self._not_before()
        )
        if earlier is not None:
            raise _AnsweredBefore(earlier)

    def _not_before(self) -> datetime:
        return self._clock() - self._idempotency_period


def _gate_of(gallery: Gallery, request: EnrolmentRequest) -> QualityGate:
    return QualityGate.OFF if request.waive_quality_gate else gallery.quality_gate


def _new_enrolment(
    work: _Work, decision: Decision, searched: Searched, checked: tuple[Continuity | None, tuple[bool, ...]]
) -> NewEnrolment:
    continuity, verifies = checked
    broken = continuity is not None and not continuity.passed
    outcome = OutcomeKind.REVIEW if broken and decision.outcome is OutcomeKind.UNIQUE else decision.outcome
    # where not everybody could be compared, somebody must look too
    is_flagged = bool(decision.candidates) or not searched.complete
    found = [(CaseKind.DUPLICATE, is_flagged), (CaseKind.CONTINUITY, broken)]
    templates = tuple(
        NewTemplate(
            position=position,
            template=template,
            model_id=work.pack.embedder.model_id,
            verifies=may_verify,
            sample=work.request.samples[position] if work.gallery.keep_samples else None,
        )
        for position, template, may_verify in zip(work.probes.positions, work.probes.templates, verifies, strict=True)
    )
    return replace(
        _empty_enrolment(work.request, work.digest, outcome),
        candidates=decision.candidates,
        thresholds=decision.thresholds,
        searched=searched,
        continuity=continuity,
        templates=templates,
        standby_templates=work.probes.standby_templates(work.gallery.standby_model_id, verifies),
        rejected_samples=work.probes.rejected,
        cases=tuple(kind for kind, applies in found if applies),
        warnings=(_BROKEN if broken else ()) + decision.warnings + _waived(work) + work.probes.attack_warnings,
    )


def _waived(work: _Work) -> tuple[str, ...]:
    if not any(refuses(work.gallery.quality_gate, each.quality) for each in work.probes.templates):
        return ()
    return ("The quality gate was waived: this person may not be found again by this photograph.",)


def _unchecked(also_search: Sequence[str]) -> str:
    """Say that nobody was compared, and name the galleries that were to be searched too."""
    also = f", neither here nor in {', '.join(also_search)}" if also_search else ""
    return f"No face was compared: this person was not checked for duplicates{also}."


def _empty_enrolment(request: EnrolmentRequest, digest: str, outcome: OutcomeKind) -> NewEnrolment:
    return NewEnrolment(
        enrolment_id=uuid.uuid4().hex,
        subject_id=request.subject_id or uuid.uuid4().hex,
        encounter_id=request.encounter_id or uuid.uuid4().hex,
        facts=request.facts,
        biometric_exception=request.biometric_exception,
        content_digest=digest,
        idempotency_key=request.idempotency_key,
        outcome=outcome,
        candidates=(),
        thresholds=None,
        searched=None,
        continuity=None,
        templates=(),
        rejected_samples=(),
        cases=(),
        warnings=(),
    )
