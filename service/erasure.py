"""Erase a subject, or take one encounter out of the search: in the record first, then in the index."""

from collections.abc import Callable

from service.domain import Encounter, EncounterStatus, Erasure
from service.index_keeping import IndexKeeper
from service.ports import Store, Writing


class ErasureService:
    """The use cases that take templates out of a gallery."""

    def __init__(self, store: Store, keeper: IndexKeeper) -> None:
        self._store = store
        self._keeper = keeper

    def erase_subject(
        self, gallery_id: str, subject_id: str, *, before: Callable[[Writing], None] = lambda _: None
    ) -> Erasure:
        """Erase all that is held of a subject: record, samples, templates, place in the index, idempotency keys.

        From the commit on no answer names the subject, even where an index still has to follow: each candidate is
        looked up in the record.

        Args:
            gallery_id, subject_id: whom.
            before: called within the transaction, before anything is erased; where it raises, nothing is.

        Raises:
            GalleryNotFound, SubjectNotFound, LegalHold, StoreUnavailable
        """
        with self._store.writing(gallery_id) as writing:
            before(writing)
            erasure = writing.erase_subject(subject_id)
        self._keeper.follow(gallery_id)
        return erasure

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
