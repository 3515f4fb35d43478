"""Reads of the record on one connection: what a search and a decision need.

A little over 300 lines: what a transaction reads stands in one place.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, Select, and_, bindparam, func, select

from service.domain import (
    Band,
    Candidate,
    CaptureFacts,
    CaseKind,
    Change,
    EarlierRequest,
    Embedding,
    Enrolment,
    Gallery,
    Probes,
    Reference,
)
from service.errors import GalleryNotFound
from service.store.metadata_counts import count_left_out
from service.store.pack_reading import PackReading
from service.store.parts import in_parts
from service.store.prepared import Prepared
from service.store.rows import AnyRow, gallery_of, to_candidate, to_embedding, to_enrolment, to_reference
from service.store.sealing import Sealing
from service.store.tables import (
    candidates,
    candidates_elsewhere,
    case_pairs,
    cases,
    changes,
    encounters,
    enrolments,
    galleries,
    idempotency_keys,
)
from service.store.tables import templates as templates_table

ENROLMENT_ROWS: Select[*tuple[Any, ...]] = select(
    enrolments, encounters.c.subject_id, encounters.c.biometric_exception, encounters.c.captured_at
).join_from(enrolments, encounters)

CASE_ROWS: Select[*tuple[Any, ...]] = select(
    cases,
    enrolments.c.encounter_id,
    encounters.c.subject_id,
    case_pairs.c.job_id,
    case_pairs.c.gallery_id.label("other_gallery_id"),
    case_pairs.c.subject_id.label("other_subject_id"),
    case_pairs.c.encounter_id.label("other_encounter_id"),
    case_pairs.c.reference_id.label("other_reference_id"),
    case_pairs.c.score,
    case_pairs.c.fmr,
    case_pairs.c.fmr_upper,
    case_pairs.c.extrapolated,
    case_pairs.c.pair_score,
    case_pairs.c.pack_id.label("score_pack_id"),
).select_from(cases.join(enrolments).join(encounters).outerjoin(case_pairs, case_pairs.c.case_id == cases.c.case_id))

_ALL_REFERENCE_ROWS: Select[*tuple[Any, ...]] = select(
    templates_table.c.reference_id,
    encounters.c.subject_id,
    templates_table.c.encounter_id,
    templates_table.c.position,
    templates_table.c.pack_id,
    templates_table.c.embedding,
    templates_table.c.verifies,
    encounters.c.sex,
    encounters.c.birth_year,
    encounters.c.captured_at,
    encounters.c.created_at,
).join_from(templates_table, encounters)

_REFERENCE_ROWS = _ALL_REFERENCE_ROWS.where(templates_table.c.active)

# in the order of the primary key: an index on the gallery would have the whole gallery read for every block
_gallery_of_template = templates_table.c.gallery_id + ""

# built once: putting a statement together costs more than running it
_GALLERY = Prepared(select(galleries).where(galleries.c.gallery_id == bindparam("wanted")))
_CHANGES_AFTER = (
    select(changes.c.seq, changes.c.added_ids, changes.c.removed_ids)
    .where(changes.c.gallery_id == bindparam("wanted"), changes.c.seq > bindparam("after"))
    .order_by(changes.c.seq)
    .limit(bindparam("most"))
)
_SEALED = (
    templates_table.c.reference_id,
    templates_table.c.encounter_id,
    templates_table.c.position,
    templates_table.c.pack_id,
    templates_table.c.embedding,
)
_EMBEDDINGS = select(*_SEALED).where(templates_table.c.reference_id.in_(bindparam("wanted", expanding=True)))
_EMBEDDINGS_OF_PACK = _EMBEDDINGS.where(templates_table.c.pack_id == bindparam("of_pack"))

_PROBES = (
    select(*_SEALED)
    .where(
        _gallery_of_template == bindparam("in_gallery"),
        templates_table.c.active,
        templates_table.c.reference_id > bindparam("after"),
        templates_table.c.reference_id <= bindparam("last"),
    )
    .order_by(templates_table.c.reference_id)
    .limit(bindparam("most"))
)
_PROBES_OF_PACK = _PROBES.where(templates_table.c.pack_id == bindparam("of_pack"))


_IS_SEEN = and_(
    encounters.c.gallery_id == candidates.c.gallery_id, encounters.c.encounter_id == candidates.c.encounter_id
)
_IS_SEEN_ELSEWHERE = and_(
    encounters.c.gallery_id == candidates_elsewhere.c.other_gallery_id,
    encounters.c.encounter_id == candidates_elsewhere.c.encounter_id,
)


def read_gallery(connection: Connection, gallery_id: str) -> Gallery:
    """Raises GalleryNotFound."""
    row = _GALLERY.one_or_none(connection, {"wanted": gallery_id})
    if row is None:
        raise GalleryNotFound("there is no such gallery")
    return gallery_of(row)


def build_enrolments(connection: Connection, gallery_id: str, rows: Iterable[AnyRow]) -> list[Enrolment]:
    """Return the enrolments of `ENROLMENT_ROWS`, in that order, with their candidates and cases."""
    rows = list(rows)
    captures = {row.enrolment_id: CaptureFacts(captured_at=row.captured_at) for row in rows}
    found: dict[str, list[Candidate]] = {row.enrolment_id: [] for row in rows}
    case_ids: dict[str, list[int]] = {row.enrolment_id: [] for row in rows}
    for part in in_parts(list(found)):
        for row in connection.execute(
            select(candidates, encounters.c.birth_year, encounters.c.captured_at)
            .select_from(candidates.outerjoin(encounters, _IS_SEEN))
            .where(candidates.c.gallery_id == gallery_id, candidates.c.enrolment_id.in_(part))
            .order_by(candidates.c.rank)
        ):
            found[row.enrolment_id].append(to_candidate(row, captures[row.enrolment_id]))
        for case in connection.execute(
            select(cases.c.enrolment_id, cases.c.case_id)
            .where(
                cases.c.gallery_id == gallery_id,
                cases.c.enrolment_id.in_(part),
                # what was answered stays as it was
                cases.c.kind.in_((CaseKind.DUPLICATE.value, CaseKind.CONTINUITY.value)),
            )
            .order_by(cases.c.case_id)
        ):
            case_ids[case.enrolment_id].append(case.case_id)
    _add_those_elsewhere(connection, gallery_id, rows, captures, found)
    return [to_enrolment(row, found[row.enrolment_id], case_ids[row.enrolment_id]) for row in rows]


def _add_those_elsewhere(
    connection: Connection,
    gallery_id: str,
    rows: Sequence[AnyRow],
    captures: Mapping[str, CaptureFacts],
    found: Mapping[str, list[Candidate]],
) -> None:
    """Put the candidates of other galleries, of the enrolments that searched some, into their places in `found`."""
    wide = [row.enrolment_id for row in rows if (row.searched or {}).get("galleries")]
    for part in in_parts(wide):
        of_part = candidates_elsewhere.c.enrolment_id.in_(part)
        for row in connection.execute(
            select(candidates_elsewhere, encounters.c.birth_year, encounters.c.captured_at)
            .select_from(candidates_elsewhere.outerjoin(encounters, _IS_SEEN_ELSEWHERE))
            .where(candidates_elsewhere.c.gallery_id == gallery_id, of_part)
        ):
            found[row.enrolment_id].append(to_candidate(row, captures[row.enrolment_id], row.other_gallery_id))
    for enrolment_id in wide:
        found[enrolment_id].sort(key=lambda each: each.rank)


def _of_pack(wanted: Select[*tuple[Any, ...]], pack_id: str | None) -> Select[*tuple[Any, ...]]:
    return wanted if pack_id is None else wanted.where(templates_table.c.pack_id == pack_id)


class SqlReading(PackReading):
    """`service.ports.Reading` on one connection whose transaction the store began."""

    def gallery(self, gallery_id: str) -> Gallery:
        """Raises GalleryNotFound."""
        return read_gallery(self._connection, gallery_id)

    def changes_after(self, gallery_id: str, seq: int, limit: int, pack_id: str | None = None) -> list[Change]:
        """Return up to `limit` changes with numbers above `seq`, in order; erased templates are left out of `added`.

        They add the templates of that pack only, None: of every pack.
        """
        rows = self._connection.execute(_CHANGES_AFTER, {"wanted": gallery_id, "after": seq, "most": limit}).all()
        added = [reference_id for row in rows for reference_id in row.added_ids]
        embeddings = self._embeddings(gallery_id, added, pack_id)
        return [
            Change(
                seq=row.seq,
                added=tuple((each, embeddings[each]) for each in row.added_ids if each in embeddings),
                removed=tuple(row.removed_ids),
            )
            for row in rows
        ]

    def _embeddings(self, gallery_id: str, reference_ids: Sequence[int], pack_id: str | None) -> dict[int, Embedding]:
        wanted = _EMBEDDINGS if pack_id is None else _EMBEDDINGS_OF_PACK
        rows = [
            row
            for part in in_parts(reference_ids)
            for row in self._connection.execute(wanted, {"wanted": part, "of_pack": pack_id})
        ]
        opened = self._opened(gallery_id, rows)
        return {number: to_embedding(data) for number, data in opened}

    def _opened(self, gallery_id: str, rows: Sequence[AnyRow]) -> list[tuple[int, bytes]]:
        """Return the ids and embeddings of rows of `_SEALED`, without those whose subject was erased meanwhile."""
        opened = Sealing(self._cipher, gallery_id).open_template_bytes(
            [(row[1], row[2], row[3]) for row in rows], [row[4] for row in rows]
        )
        return [(row[0], data) for row, data in zip(rows, opened, strict=True) if data is not None]

    def _references(self, gallery_id: str, rows: Sequence[AnyRow]) -> list[Reference]:
        """Return the references of rows of `_ALL_REFERENCE_ROWS`, without those of subjects erased meanwhile."""
        opened = Sealing(self._cipher, gallery_id).open_templates(
            [(row.encounter_id, row.position, row.pack_id) for row in rows], [row.embedding for row in rows]
        )
        return [to_reference(row, found) for row, found in zip(rows, opened, strict=True) if found is not None]

    def references(
        self, gallery_id: str, reference_ids: Sequence[int], pack_id: str | None = None
    ) -> dict[int, Reference]:
        """Return those of the references that exist and are searched now, of one pack or (None) of every pack."""
        of_pack = _of_pack(_REFERENCE_ROWS, pack_id)
        rows = [
            row
            for part in in_parts(reference_ids)
            for row in self._connection.execute(
                of_pack.where(templates_table.c.gallery_id == gallery_id, templates_table.c.reference_id.in_(part))
            )
        ]
        return {each.reference_id: each for each in self._references(gallery_id, rows)}

    def left_out(self, gallery_id: str, band: Band) -> int:
        """Return how many templates that are searched now are known to be of somebody outside the band."""
        return count_left_out(self._connection, gallery_id, band)

    def subject_references(
        self, gallery_id: str, subject_id: str, *, inactive: bool = False, pack_id: str | None = None
    ) -> list[Reference]:
        """Return the searched references of a subject, oldest first; with `inactive` also the others."""
        chosen = _of_pack(_ALL_REFERENCE_ROWS if inactive else _REFERENCE_ROWS, pack_id)
        rows = self._connection.execute(
            chosen.where(encounters.c.gallery_id == gallery_id, encounters.c.subject_id == subject_id).order_by(
                templates_table.c.reference_id
            )
        )
        return self._references(gallery_id, rows.all())

    def references_of(self, gallery_id: str, subject_ids: Sequence[str], pack_id: str | None = None) -> list[Reference]:
        """Return the searched references of several subjects, in the order of their ids."""
        of_pack = _of_pack(_REFERENCE_ROWS, pack_id)
        found = [
            row
            for part in in_parts(subject_ids)
            for row in self._connection.execute(
                of_pack.where(encounters.c.gallery_id == gallery_id, encounters.c.subject_id.in_(part))
            )
        ]
        return sorted(self._references(gallery_id, found), key=lambda each: each.reference_id)

    def references_after(
        self, gallery_id: str, after: int, last: int, limit: int, pack_id: str | None = None
    ) -> list[Reference]:
        """Return up to `limit` searched references above `after` and up to `last`, in the order of their ids."""
        number = templates_table.c.reference_id
        of_pack = _of_pack(_REFERENCE_ROWS, pack_id)
        wanted = of_pack.where(_gallery_of_template == gallery_id, number > after, number <= last)
        return self._references(gallery_id, self._connection.execute(wanted.order_by(number).limit(limit)).all())

    def last_reference_id(self) -> int:
        """Return the highest reference id of all galleries, 0 where there is none."""
        return self._connection.execute(select(func.max(templates_table.c.reference_id))).scalar_one() or 0

    def probes_after(self, gallery_id: str, after: int, last: int, limit: int, pack_id: str | None = None) -> Probes:
        """Return up to `limit` searched references above `after` and up to `last`, without whose they are."""
        bounds = {"in_gallery": gallery_id, "after": after, "last": last, "most": limit, "of_pack": pack_id}
        rows = self._connection.execute(_PROBES if pack_id is None else _PROBES_OF_PACK, bounds).all()
        found = self._opened(gallery_id, rows)
        embeddings = np.frombuffer(b"".join([data for _, data in found]), "<f4").astype(np.float32, copy=False)
        shape = (len(found), len(embeddings) // len(found)) if found else (0, 0)
        return Probes(tuple([number for number, _ in found]), embeddings.reshape(shape))

    def earlier_request(
        self, gallery_id: str, idempotency_key: str | None, encounter_id: str | None, not_before: datetime
    ) -> EarlierRequest | None:
        """Return what was answered under this key since `not_before`, else what was enrolled as this encounter."""
        if idempotency_key is not None:
            earlier = self._request_by_key(gallery_id, idempotency_key, not_before)
            if earlier is not None:
                return earlier
        if encounter_id is not None:
            return self._request_by_encounter(gallery_id, encounter_id)
        return None

    def _request_by_key(self, gallery_id: str, key: str, not_before: datetime) -> EarlierRequest | None:
        row = self._connection.execute(
            select(idempotency_keys).where(
                idempotency_keys.c.gallery_id == gallery_id,
                idempotency_keys.c.key == key,
                idempotency_keys.c.created_at >= not_before,
            )
        ).one_or_none()
        if row is None:
            return None
        if row.enrolment_id is None:
            return EarlierRequest(row.content_digest, None, row.rejection_code, row.rejection_message)
        enrolment = self._enrolment(gallery_id, enrolments.c.enrolment_id, row.enrolment_id)
        return self._request_by_encounter(gallery_id, enrolment.encounter_id)

    def _request_by_encounter(self, gallery_id: str, encounter_id: str) -> EarlierRequest | None:
        row = self._connection.execute(
            select(encounters).where(encounters.c.gallery_id == gallery_id, encounters.c.encounter_id == encounter_id)
        ).one_or_none()
        free = None if row is None else Sealing(self._cipher, gallery_id).open_facts([row])[0]
        if free is None:
            return None
        return EarlierRequest(free.content_digest, self._enrolment(gallery_id, enrolments.c.encounter_id, encounter_id))

    def _enrolment(self, gallery_id: str, column: Any, value: str) -> Enrolment:
        row = self._connection.execute(
            ENROLMENT_ROWS.where(enrolments.c.gallery_id == gallery_id, column == value)
        ).one()
        return build_enrolments(self._connection, gallery_id, [row])[0]
