"""Erase a subject, or take one encounter out of the search: in the record first, then in the index."""

from collections.abc import Callable
from dataclasses import replace

from service.domain import Encounter, EncounterStatus, Erasure
from service.errors import IdempotencyKeyReused, SubjectNotFound
from service.index_keeping import IndexKeeper
from service.ports import Store, Writing
from service.receipts import ErasureTerms, ReceiptIssuer, is_of


class ErasureService:
    """The use cases that take templates out of a gallery."""

    def __init__(self, store: Store, keeper: IndexKeeper, issuer: ReceiptIssuer) -> None:
        self._store = store
        self._keeper = keeper
        self._issuer = issuer

    def erase_subject(
        self,
        gallery_id: str,
        subject_id: str,
        idempotency_key: str | None = None,
        *,
        before: Callable[[Writing], None] = lambda _: None,
    ) -> Erasure:
        """Erase all that is held of a subject: record, samples, templates, place in the index, idempotency keys.

        From the commit on no answer names the subject, even where an index still has to follow: each candidate is
        looked up in the record. When this returns the data key is destroyed too, and the receipt signed.

        Args:
            gallery_id, subject_id: whom.
            idempotency_key: whose repeat gets the same receipt, though there is no such subject any more.
            before: called within the transaction, before anything is erased; where it raises, nothing is.

        Raises:
            GalleryNotFound, SubjectNotFound, LegalHold, StoreUnavailable, MasterKeyUnusable
            IdempotencyKeyReused: the key erased somebody else.
        """
        terms = self._issuer.terms(gallery_id, idempotency_key)
        try:
            earlier = self._earlier(gallery_id, subject_id, idempotency_key, terms)
            if earlier is not None:
                return earlier
            erasure = self._erase(gallery_id, subject_id, terms, before)
        except SubjectNotFound:
            # the same request may have come a moment earlier
            earlier = self._earlier(gallery_id, subject_id, idempotency_key, terms)
            if earlier is None:
                raise
            return earlier
        return self._with_receipt(erasure, subject_id, terms.nonce)

    def _erase(
        self, gallery_id: str, subject_id: str, terms: ErasureTerms, before: Callable[[Writing], None]
    ) -> Erasure:
        """Erase in the record, then in the index: there also if the ledger or the key store fails after the commit."""
        erasure: Erasure | None = None
        try:
            with self._store.writing(gallery_id) as writing:
                before(writing)
                erasure = writing.erase_subject(subject_id, terms)
            return erasure
        finally:
            if erasure is not None:
                self._keeper.follow(gallery_id)

    def finish_earlier(self) -> None:
        """Destroy the keys of what was erased before, ledger first. Raises StoreUnavailable, VarUnusable."""
        self._store.destroy_keys()

    def _earlier(
        self, gallery_id: str, subject_id: str, idempotency_key: str | None, terms: ErasureTerms
    ) -> Erasure | None:
        """Return what this request erased when it came first. Raises IdempotencyKeyReused."""
        if idempotency_key is None or terms.repeat_digest is None:
            return None
        record = self._store.erasure_by(gallery_id, terms.repeat_digest)
        if record is None:
            return None
        nonce = self._issuer.nonce(record.receipt_id, idempotency_key)
        if not is_of(record, subject_id, nonce):
            raise IdempotencyKeyReused("the Idempotency-Key was used for another request")
        self._store.destroy_keys()  # where the first request ended before that
        return self._with_receipt(Erasure(record), subject_id, nonce)

    def _with_receipt(self, erasure: Erasure, subject_id: str, nonce: str) -> Erasure:
        return replace(erasure, receipt=self._issuer.signed(erasure.record, subject_id, nonce))

    def set_encounter_status(self, gallery_id: str, encounter_id: str, status: EncounterStatus) -> Encounter:
        """Make an encounter inactive (kept, not searched), active again, or withdrawn (its biometric data erased).

        Raises:
            GalleryNotFound, EncounterNotFound, EncounterWithdrawn, StoreUnavailable
            LegalHold: it was to be withdrawn, and its subject or gallery is held.
        """
        with self._store.writing(gallery_id) as writing:
            encounter = writing.set_encounter_status(encounter_id, status)
        self._keeper.follow(gallery_id)
        return encounter
