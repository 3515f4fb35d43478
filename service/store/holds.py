"""Legal holds: set and lifted under the lock that an erasure takes, so that neither slips past the other."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from service.acting import current_actor
from service.audit_chain import AuditEvent, NewEntry, SeenSubject, moment_text
from service.errors import GalleryNotFound, HoldNotFound, LegalHold, SubjectNotFound
from service.ports import SubjectCipher
from service.retention_rule import Hold
from service.store.auditing import Recorder
from service.store.keys import insert_or_ignore
from service.store.parts import in_parts
from service.store.reading import read_gallery
from service.store.rows import AnyRow
from service.store.sealing import key_of
from service.store.tables import galleries, key_destructions, legal_holds, subjects

WHOLE_GALLERY = ""
"""In the place of a subject's id: no subject can be called so."""

_Transaction = Callable[[], AbstractContextManager[Connection]]


def lock_gallery(connection: Connection, gallery_id: str) -> None:
    """Take the lock that enrolments and erasures of a gallery take. Raises GalleryNotFound."""
    wanted = select(galleries.c.gallery_id).where(galleries.c.gallery_id == gallery_id)
    if connection.execute(wanted.with_for_update(key_share=True)).one_or_none() is None:
        raise GalleryNotFound("there is no such gallery")


def expect_no_hold(connection: Connection, gallery_id: str, subject_id: str = WHOLE_GALLERY) -> None:
    """Raise LegalHold where the gallery is held, or this subject. The gallery's lock must be held."""
    row = _row_on(connection, gallery_id, subject_id)
    if row is None:
        return
    whose = "this subject" if row.subject_id else "the gallery"
    since = moment_text(row.set_at)
    raise LegalHold(f"{whose} is under legal hold since {since}: nothing of it is erased until that is lifted")


def held_subjects(connection: Connection, gallery_id: str, subject_ids: list[str]) -> set[str]:
    """Return those of the subjects that are held, all of them where the gallery is."""
    if _row(connection, gallery_id, WHOLE_GALLERY) is not None:
        return set(subject_ids)
    of_gallery = select(legal_holds.c.subject_id).where(legal_holds.c.gallery_id == gallery_id)
    return {
        subject_id
        for part in in_parts(subject_ids)
        for subject_id in connection.execute(of_gallery.where(legal_holds.c.subject_id.in_(part))).scalars()
    }


def forget_holds(connection: Connection, gallery_id: str, subject_id: str) -> None:
    """Leave nothing of the hold of a subject whose row is deleted."""
    is_its = legal_holds.c.gallery_id == gallery_id, legal_holds.c.subject_id == subject_id
    connection.execute(delete(legal_holds).where(*is_its))


class SqlHolds:
    """`service.ports.LegalHolds` over SQLAlchemy Core. Each method is a transaction and raises StoreUnavailable.

    Args:
        reading: opens a transaction to read in.
        writing: opens one to write in, committed on leaving.
        clock: time zone aware.
        cipher: of the reasons.
        recorder: of the audit trail.
        destroy_keys: called after a hold on a gallery was lifted.
    """

    def __init__(
        self,
        reading: _Transaction,
        writing: _Transaction,
        clock: Callable[[], datetime],
        cipher: SubjectCipher,
        *,
        recorder: Recorder,
        destroy_keys: Callable[[], None],
    ) -> None:
        self._reading = reading
        self._writing = writing
        self._clock = clock
        self._cipher = cipher
        self._recorder = recorder
        self._destroy_keys = destroy_keys

    def place(self, gallery_id: str, subject_id: str | None, reason: str) -> Hold:
        """Hold a subject or (None) a whole gallery; a hold that is there stays as it is.

        Raises:
            GalleryNotFound, SubjectNotFound
        """
        with self._writing() as connection:
            lock_gallery(connection, gallery_id)
            if subject_id is not None:
                _expect_subject(connection, gallery_id, subject_id)
            if (known := _row(connection, gallery_id, subject_id or WHOLE_GALLERY)) is not None:
                return self._hold(known)
            own_key = None if subject_id else self._cipher.take_keys(gallery_id, 1)[0]
            key_id = key_of(connection, gallery_id, subject_id) if subject_id else own_key
            context = _context(gallery_id, subject_id or WHOLE_GALLERY)
            row = {
                "gallery_id": gallery_id,
                "subject_id": subject_id or WHOLE_GALLERY,
                "reason": self._cipher.seal(gallery_id, key_id, reason.encode(), context),
                "key_id": own_key,
                "set_by": current_actor().client_id,
                "set_at": self._clock(),
            }
            placed = connection.execute(insert(legal_holds).values(row).returning(*legal_holds.c)).one()
            self._record(connection, AuditEvent.HOLD_SET, gallery_id, subject_id)
            return self._hold(placed)

    def lift(self, gallery_id: str, subject_id: str | None) -> None:
        """End a hold, and forget its reason. Raises GalleryNotFound, HoldNotFound."""
        with self._writing() as connection:
            lock_gallery(connection, gallery_id)
            row = _row(connection, gallery_id, subject_id or WHOLE_GALLERY)
            if row is None:
                raise _not_held(subject_id)
            forget_holds(connection, gallery_id, row.subject_id)
            if row.key_id is not None:
                destruction = insert_or_ignore(connection.dialect.name, key_destructions)
                connection.execute(destruction, {"key_id": row.key_id})
            self._record(connection, AuditEvent.HOLD_LIFTED, gallery_id, subject_id)
        if row.key_id is not None:
            self._destroy_keys()

    def hold(self, gallery_id: str, subject_id: str | None) -> Hold:
        """Return the own hold of a subject or (None) of a gallery, with its reason.

        Raises:
            GalleryNotFound, HoldNotFound
        """
        with self._reading() as connection:
            row = _row(connection, gallery_id, subject_id or WHOLE_GALLERY)
            if row is None:
                read_gallery(connection, gallery_id)
                raise _not_held(subject_id)
            return self._hold(row)

    def covering(self, gallery_id: str, subject_id: str | None = None) -> Hold | None:
        """Return what keeps a subject or a gallery from being erased, its own hold first, without the reason."""
        with self._reading() as connection:
            row = _row_on(connection, gallery_id, subject_id or WHOLE_GALLERY)
        return None if row is None else _bare(row)

    def held(self, gallery_id: str) -> list[Hold]:
        """Return the holds of a gallery without their reasons, its own first, then by subject."""
        wanted = select(legal_holds).where(legal_holds.c.gallery_id == gallery_id).order_by(legal_holds.c.subject_id)
        with self._reading() as connection:
            return [_bare(row) for row in connection.execute(wanted)]

    def _hold(self, row: AnyRow) -> Hold:
        sealed = row.reason, _context(row.gallery_id, row.subject_id)
        (reason,) = self._cipher.open_all(row.gallery_id, [sealed])  # none where a restore brought back a lifted hold
        text = None if reason is None else reason.decode()
        return Hold(row.gallery_id, row.subject_id or None, row.set_by, row.set_at, text)

    def _record(self, connection: Connection, event: AuditEvent, gallery_id: str, subject_id: str | None) -> None:
        seen = () if subject_id is None else (SeenSubject(subject_id),)
        scope = "gallery" if subject_id is None else "subject"
        self._recorder.write(connection, gallery_id, NewEntry(event, scope, subjects=seen), self._clock())


def _row(connection: Connection, gallery_id: str, subject_id: str) -> AnyRow | None:
    is_its = legal_holds.c.gallery_id == gallery_id, legal_holds.c.subject_id == subject_id
    return connection.execute(select(legal_holds).where(*is_its)).one_or_none()


def _row_on(connection: Connection, gallery_id: str, subject_id: str) -> AnyRow | None:
    """Return the subject's own hold, else the gallery's, else None."""
    covers = legal_holds.c.gallery_id == gallery_id, legal_holds.c.subject_id.in_({WHOLE_GALLERY, subject_id})
    return connection.execute(
        select(legal_holds).where(*covers).order_by(legal_holds.c.subject_id.desc()).limit(1)
    ).one_or_none()


def _bare(row: AnyRow) -> Hold:
    return Hold(row.gallery_id, row.subject_id or None, row.set_by, row.set_at)


def _expect_subject(connection: Connection, gallery_id: str, subject_id: str) -> None:
    is_its = subjects.c.gallery_id == gallery_id, subjects.c.subject_id == subject_id
    if connection.execute(select(subjects.c.subject_id).where(*is_its)).one_or_none() is None:
        raise SubjectNotFound("there is no such subject in this gallery")


def _not_held(subject_id: str | None) -> HoldNotFound:
    whose = "this gallery" if subject_id is None else "this subject"
    return HoldNotFound(f"there is no legal hold on {whose} itself")


def _context(gallery_id: str, subject_id: str) -> bytes:
    return f"legal hold\0{gallery_id}\0{subject_id}".encode()
