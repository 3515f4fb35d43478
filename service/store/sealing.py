"""What of the record is encrypted, and to which place each value is bound: elsewhere it does not open.

A template is bound to its gallery, encounter, sample and pack; a sample to its gallery, encounter and position; the
facts of an encounter that callers write freely, and the digest of its request, to its gallery and encounter. The words
of an agreement tell of no subject: they are sealed under the gallery's own key, and bound to the agreement.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, select

from service.domain import Embedding, EncounterFacts
from service.errors import Undecipherable
from service.ports import SubjectCipher
from service.store.parts import in_parts
from service.store.prepared import Prepared
from service.store.rows import AnyRow, to_bytes, to_embedding
from service.store.tables import subjects

_KEY_OF = Prepared(
    select(subjects.c.key_id).where(
        subjects.c.gallery_id == bindparam("in_gallery"), subjects.c.subject_id == bindparam("wanted")
    )
)


Place = tuple[str, int, str]
"""Of a template: encounter, position of the sample, pack."""


class FreeFacts(NamedTuple):
    """What is encrypted of an encounter."""

    site: str | None
    operator_ref: str | None
    labels: tuple[tuple[str, str], ...]
    content_digest: str


def template_context(gallery_id: str, encounter_id: str, position: int, pack_id: str) -> bytes:
    return f"template\0{gallery_id}\0{encounter_id}\0{position}\0{pack_id}".encode()


def sample_context(gallery_id: str, encounter_id: str, position: int) -> bytes:
    return f"sample\0{gallery_id}\0{encounter_id}\0{position}".encode()


def facts_context(gallery_id: str, encounter_id: str) -> bytes:
    return f"facts\0{gallery_id}\0{encounter_id}".encode()


def agreement_context(gallery_id: str, agreement_id: str) -> bytes:
    return f"agreement\0{gallery_id}\0{agreement_id}".encode()


class Sealing:
    """Seals and opens the columns of one gallery's rows."""

    def __init__(self, cipher: SubjectCipher, gallery_id: str) -> None:
        self._cipher = cipher
        self._gallery_id = gallery_id

    def template(self, key_id: str | None, encounter_id: str, position: int, pack_id: str, value: Embedding) -> bytes:
        """Return a value of the column `templates.embedding`."""
        context = template_context(self._gallery_id, encounter_id, position, pack_id)
        return self._cipher.seal(self._gallery_id, key_id, to_bytes(value), context)

    def sample(self, key_id: str | None, encounter_id: str, position: int, image: bytes) -> bytes:
        """Return a value of the column `samples.image`."""
        return self._cipher.seal(
            self._gallery_id, key_id, image, sample_context(self._gallery_id, encounter_id, position)
        )

    def facts(self, key_id: str | None, encounter_id: str, facts: EncounterFacts, digest: str) -> dict[str, Any]:
        """Return the columns of an encounter's facts, and of the digest of its request."""
        plain = {"captured_at": facts.captured_at, "birth_year": facts.birth_year, "sex": facts.sex}
        free = FreeFacts(facts.site, facts.operator_ref, facts.labels, digest)
        return {**plain, **self.free_facts(key_id, encounter_id, free)}

    def free_facts(self, key_id: str | None, encounter_id: str, free: FreeFacts) -> dict[str, Any]:
        """Return the columns of what is encrypted of an encounter."""
        if key_id is None and self._cipher.is_plain:
            return {**free._asdict(), "sealed_facts": None}
        text = json.dumps(free, ensure_ascii=False, separators=(",", ":"))
        context = facts_context(self._gallery_id, encounter_id)
        sealed = self._cipher.seal(self._gallery_id, key_id, text.encode(), context)
        return {"site": None, "operator_ref": None, "labels": (), "content_digest": "", "sealed_facts": sealed}

    def open_templates(self, places: Iterable[Place], values: Iterable[bytes]) -> list[Embedding | None]:
        """Return embeddings, each given with its encounter, position and pack; None where the subject was erased."""
        opened = self.open_template_bytes(places, values)
        return [None if each is None else to_embedding(each) for each in opened]

    def open_template_bytes(
        self, places: Iterable[tuple[str, int, str]], values: Iterable[bytes]
    ) -> list[bytes | None]:
        """The same, as bytes of float32, little-endian."""
        gallery_id = self._gallery_id
        found = [(value, template_context(gallery_id, *place)) for place, value in zip(places, values, strict=True)]
        return self._cipher.open_all(gallery_id, found)

    def open_samples(self, rows: Sequence[tuple[str, int, bytes | None]]) -> list[bytes | None]:
        """Return images, each given as encounter, position and column; None where there is none any more."""
        sealed = [
            (image, sample_context(self._gallery_id, encounter_id, position))
            for encounter_id, position, image in rows
            if image is not None
        ]
        opened = iter(self._cipher.open_all(self._gallery_id, sealed))
        return [None if image is None else next(opened) for _, _, image in rows]

    def open_facts(self, rows: Sequence[AnyRow]) -> list[FreeFacts | None]:
        """Return what is encrypted of the encounters of `rows`; None where the subject was erased meanwhile."""
        if self._cipher.is_plain:
            return [self._plain_facts(row) for row in rows]
        if any(row.sealed_facts is None for row in rows):
            raise Undecipherable("an encounter is not encrypted though it must be: was it written by an older process?")
        sealed = [(row.sealed_facts, facts_context(self._gallery_id, row.encounter_id)) for row in rows]
        opened = self._cipher.open_all(self._gallery_id, sealed)
        return [None if each is None else _to_facts(each) for each in opened]

    def _plain_facts(self, row: AnyRow) -> FreeFacts:
        if row.sealed_facts is not None:
            self._cipher.open(self._gallery_id, row.sealed_facts, b"")  # says that there are no keys here
        labels = tuple((name, value) for name, value in row.labels)
        return FreeFacts(row.site, row.operator_ref, labels, row.content_digest)


def key_of(connection: Connection, gallery_id: str, subject_id: str) -> str | None:
    """Return the id of the data key of a subject that is there."""
    row = _KEY_OF.one_or_none(connection, {"in_gallery": gallery_id, "wanted": subject_id})
    assert row is not None, "the subject is there"
    key_id: str | None = row["key_id"]
    return key_id


def keys_of(connection: Connection, gallery_id: str, subject_ids: Sequence[str]) -> dict[str, str | None]:
    """Return the id of the data key of each of the subjects that are there."""
    return {
        row.subject_id: row.key_id
        for part in in_parts(subject_ids)
        for row in connection.execute(
            select(subjects.c.subject_id, subjects.c.key_id).where(
                subjects.c.gallery_id == gallery_id, subjects.c.subject_id.in_(part)
            )
        )
    }


def _to_facts(data: bytes) -> FreeFacts:
    site, operator_ref, labels, digest = json.loads(data)
    return FreeFacts(site, operator_ref, tuple((name, value) for name, value in labels), digest)
