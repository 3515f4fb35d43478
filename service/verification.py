"""Verify 1:1: is this the person they say they are, or do two samples show one person?"""

from dataclasses import dataclass, replace

import numpy as np

from service.audit_chain import AuditEvent, NewEntry, SeenSubject
from service.domain import FacePolicy, FalseMatchRate, Gallery, Template
from service.errors import NoReference, SampleRejected, SubjectNotFound
from service.live_accuracy import LiveAccuracy
from service.metrics import Metrics
from service.packs import Packs
from service.ports import Store


@dataclass(frozen=True, slots=True)
class Verification:
    """The answer to one comparison. `reference_id` is the best reference, None where two samples were compared."""

    matched: bool
    score: float
    threshold: float
    verification_fmr: float
    false_match: FalseMatchRate
    expected_fnmr: float  # share of mated pairs that this threshold is expected to turn away
    population: str
    calibration_id: str
    reference_id: int | None
    probe: Template
    reference: Template | None = None  # of the second of two samples


class VerificationService:
    """The verification use case; nothing is changed."""

    def __init__(
        self, store: Store, packs: Packs, metrics: Metrics, *, accuracy: LiveAccuracy, face_policy: FacePolicy
    ) -> None:
        self._store = store
        self._packs = packs
        self._metrics = metrics
        self._accuracy = accuracy
        self._face_policy = face_policy

    def verify_subject(
        self, gallery_id: str, sample: bytes, subject_id: str, verification_fmr: float | None = None
    ) -> Verification:
        """Compare a sample with the references of a subject, and keep the best score.

        Raises:
            GalleryNotFound, SubjectNotFound, PackNotLoaded, SampleRejected, Overloaded, StoreUnavailable
            NoReference: the subject has no template that may verify anyone.
        """
        seen = (SeenSubject(subject_id),)
        try:
            answer = self._verify_subject(gallery_id, sample, subject_id, verification_fmr)
        except (SampleRejected, SubjectNotFound, NoReference) as error:
            self._record(gallery_id, error.code, seen)
            raise
        # before the answer: nobody is told without an entry that says so
        self._record(gallery_id, "matched" if answer.matched else "not_matched", seen)
        return answer

    def _record(self, gallery_id: str, outcome: str, seen: tuple[SeenSubject, ...]) -> None:
        self._store.record(NewEntry(AuditEvent.VERIFICATION_MADE, outcome, subjects=seen), gallery_id)

    def _verify_subject(
        self, gallery_id: str, sample: bytes, subject_id: str, verification_fmr: float | None
    ) -> Verification:
        with self._store.reading() as reading:
            # someone who has no template of the ruling pack is verified by the one that stands by
            sides = reading.gallery(gallery_id).sides()
            for gallery in sides:
                own = reading.subject_references(gallery_id, subject_id, pack_id=gallery.pack_id)
                references = [reference for reference in own if reference.verifies]
                if references:
                    break
        if not own:
            self._store.subject(gallery_id, subject_id)
        if not references:
            raise NoReference("this subject has no active template that may verify: enrol a new sample first")
        probe = self._extract(gallery, sample)
        scores = np.stack([reference.embedding for reference in references]) @ probe.embedding
        best = int(scores.argmax())
        answer = self._judge(gallery, probe, float(scores[best]), references[best].reference_id, verification_fmr)
        if gallery is sides[0]:  # scores of the standby pack are of another scale
            self._accuracy.verified(gallery_id, answer.score, matched=answer.matched)
        return answer

    def verify_samples(
        self, gallery_id: str, sample: bytes, reference_sample: bytes, verification_fmr: float | None = None
    ) -> Verification:
        """Compare two samples with the pack of a gallery; nothing of it is searched.

        Raises:
            GalleryNotFound, PackNotLoaded, SampleRejected, Overloaded, StoreUnavailable
        """
        with self._store.reading() as reading:
            gallery = reading.gallery(gallery_id)
        try:
            reference = self._extract(gallery, reference_sample)
            probe = self._extract(gallery, sample)
        except SampleRejected as error:
            self._record(gallery_id, error.code, ())
            raise
        answer = self._judge(gallery, probe, float(reference.embedding @ probe.embedding), None, verification_fmr)
        self._record(gallery_id, "matched" if answer.matched else "not_matched", ())
        return replace(answer, reference=reference)

    def _extract(self, gallery: Gallery, sample: bytes) -> Template:
        try:
            return self._packs.of(gallery.pack_id).embedder.extract(sample, self._face_policy)
        except SampleRejected as error:
            self._metrics.rejections.labels(code=error.code).inc()
            raise

    def _judge(
        self, gallery: Gallery, probe: Template, score: float, reference_id: int | None, fmr: float | None
    ) -> Verification:
        calibration = self._packs.rule(gallery).calibration
        verification_fmr = gallery.verification_fmr if fmr is None else fmr
        threshold = calibration.threshold(verification_fmr)
        matched = score >= threshold
        self._metrics.verifications.labels(matched=str(matched).lower()).inc()
        return Verification(
            matched=matched,
            score=score,
            threshold=threshold,
            verification_fmr=verification_fmr,
            false_match=calibration.false_match_rate(score),
            expected_fnmr=calibration.expected_fnir(threshold),
            population=calibration.mated_population,
            calibration_id=calibration.calibration_id,
            reference_id=reference_id,
            probe=probe,
        )
