"""Encrypts what an earlier version wrote: subject by subject, in blocks, each a transaction of its own.

A subject has a data key once all of its rows are encrypted, so that whoever is stopped goes on where it was.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import BindParameter, Connection, Engine, Table, bindparam, func, select, update
from sqlalchemy.exc import ProgrammingError

from service.ports import SubjectCipher
from service.store import record_keys
from service.store.parts import in_parts
from service.store.rows import AnyRow, to_embedding
from service.store.sealing import FreeFacts, Sealing
from service.store.tables import encounters, galleries, idempotency_keys, samples, subjects, templates

SUBJECTS_PER_BLOCK = 200

_REWRITTEN = ("encounters", "templates", "samples", "idempotency_keys", "subjects")


def unencrypted_count(connection: Connection) -> int:
    """Return how many subjects have no data key yet."""
    return connection.execute(
        select(func.count()).select_from(subjects).where(subjects.c.key_id.is_(None))
    ).scalar_one()


def encrypt_block(connection: Connection, cipher: SubjectCipher) -> int:
    """Encrypt all rows of some subjects of one gallery; return how many subjects these were, 0 at the end."""
    bare = subjects.c.key_id.is_(None)
    gallery_id = connection.execute(select(subjects.c.gallery_id).where(bare).limit(1)).scalar_one_or_none()
    if gallery_id is None:
        return 0
    # enrolments and erasures of the gallery wait, and another process that encrypts
    locked = select(galleries.c.gallery_id).where(galleries.c.gallery_id == gallery_id).with_for_update(key_share=True)
    connection.execute(locked).all()
    wanted = select(subjects.c.subject_id).where(bare, subjects.c.gallery_id == gallery_id).limit(SUBJECTS_PER_BLOCK)
    subject_ids = list(connection.execute(wanted).scalars())
    keys = dict(zip(subject_ids, cipher.take_keys(gallery_id, len(subject_ids)), strict=True))
    _Rows(connection, cipher, gallery_id, keys).encrypt()
    if subject_ids:
        record_keys.set_purge_due(connection, is_due=True)
        of_subject = subjects.c.gallery_id == gallery_id, subjects.c.subject_id == bindparam("of_subject")
        given = [{"of_subject": subject_id, "key": key_id} for subject_id, key_id in keys.items()]
        connection.execute(update(subjects).where(*of_subject).values(key_id=bindparam("key")), given)
    return len(subject_ids)


def purge(engine: Engine) -> None:
    """Write the files of the database anew, without what the rows were before. Takes the tables for itself.

    What PostgreSQL's write-ahead log, its archive and backups hold of before is not reached: docs/encryption.md.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("VACUUM")
            return
        for table in _REWRITTEN:
            connection.exec_driver_sql(f"VACUUM FULL {table}")
        with suppress(ProgrammingError):  # not every role may; then PostgreSQL frees the old files by itself in minutes
            connection.exec_driver_sql("CHECKPOINT")


class _Rows:
    """The rows of some subjects of one gallery, on their way to being encrypted."""

    def __init__(
        self, connection: Connection, cipher: SubjectCipher, gallery_id: str, keys: dict[str, str | None]
    ) -> None:
        self._connection = connection
        self._gallery_id = gallery_id
        self._keys = keys  # by subject
        self._sealing = Sealing(cipher, gallery_id)
        self._key_of: dict[str, str | None] = {}  # by encounter

    def encrypt(self) -> None:
        self._encounters()
        self._templates()
        self._samples()
        of_request = idempotency_keys.c.gallery_id == self._gallery_id, idempotency_keys.c.enrolment_id.is_not(None)
        for part in in_parts(list(self._keys)):
            known = update(idempotency_keys).where(*of_request, idempotency_keys.c.subject_id.in_(part))
            self._connection.execute(known.values(content_digest=""))

    def _encounters(self) -> None:
        values = []
        for row in self._of(encounters, "subject_id", list(self._keys)):
            key_id = self._key_of[row.encounter_id] = self._keys[row.subject_id]
            labels = tuple((name, value) for name, value in row.labels)
            free = FreeFacts(row.site, row.operator_ref, labels, row.content_digest)
            sealed = self._sealing.free_facts(key_id, row.encounter_id, free)
            values.append({"of_encounter": row.encounter_id, **{f"new_{name}": each for name, each in sealed.items()}})
        if values:
            new: dict[str, BindParameter[Any]] = {name: bindparam(f"new_{name}") for name in sealed}
            is_row = encounters.c.gallery_id == self._gallery_id, encounters.c.encounter_id == bindparam("of_encounter")
            self._connection.execute(update(encounters).where(*is_row).values(new), values)

    def _templates(self) -> None:
        values = [
            {
                "number": row.reference_id,
                "sealed": self._sealing.template(
                    self._key_of[row.encounter_id],
                    row.encounter_id,
                    row.position,
                    row.pack_id,
                    to_embedding(row.embedding),
                ),
            }
            for row in self._of(templates, "encounter_id", list(self._key_of))
        ]
        if values:
            is_row = templates.c.reference_id == bindparam("number")
            self._connection.execute(update(templates).where(is_row).values(embedding=bindparam("sealed")), values)

    def _samples(self) -> None:
        # few at a time: an image may have megabytes
        for part in in_parts(list(self._key_of), 50):
            values = [
                {
                    "of_encounter": row.encounter_id,
                    "at": row.position,
                    "sealed": self._sealing.sample(
                        self._key_of[row.encounter_id], row.encounter_id, row.position, row.image
                    ),
                }
                for row in self._of(samples, "encounter_id", part)
            ]
            if values:
                is_row = (
                    samples.c.gallery_id == self._gallery_id,
                    samples.c.encounter_id == bindparam("of_encounter"),
                    samples.c.position == bindparam("at"),
                )
                self._connection.execute(update(samples).where(*is_row).values(image=bindparam("sealed")), values)

    def _of(self, table: Table, column: str, ids: Sequence[str]) -> list[AnyRow]:
        return [
            row
            for part in in_parts(ids)
            for row in self._connection.execute(
                select(table).where(table.c.gallery_id == self._gallery_id, table.c[column].in_(part))
            )
        ]
