"""Reads of a gallery that has templates of two packs: which samples lack one, which have both."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, exists, func, select

from service.domain import Box, MissingSubject, PairedTemplate, StoredSample
from service.ports import SubjectCipher
from service.store.parts import in_parts
from service.store.sealing import Sealing
from service.store.tables import encounters, samples, templates

_other = templates.alias("other")
# in the order of the primary key: an index on the gallery would have the whole gallery read for every block
_gallery_of_template = templates.c.gallery_id + ""


def _same_sample() -> ColumnElement[bool]:
    return (
        (_other.c.gallery_id == templates.c.gallery_id)
        & (_other.c.encounter_id == templates.c.encounter_id)
        & (_other.c.position == templates.c.position)
    )


def _has_counterpart(pack_id: str) -> ColumnElement[bool]:
    """Whether the sample of a template has one of `pack_id`."""
    return exists().where(_same_sample(), _other.c.pack_id == pack_id)


class PackReading:
    """The part of `service.ports.Reading` that a change of the model pack needs."""

    def __init__(self, connection: Connection, cipher: SubjectCipher) -> None:
        self._connection = connection
        self._cipher = cipher

    def without_counterpart(self, gallery_id: str, reference_ids: Sequence[int], pack_id: str) -> set[int]:
        """Return those of the references whose sample has no template of `pack_id`."""
        wanted = select(templates.c.reference_id).where(
            templates.c.gallery_id == gallery_id, ~_has_counterpart(pack_id)
        )
        return {
            reference_id
            for part in in_parts(reference_ids)
            for reference_id in self._connection.execute(wanted.where(templates.c.reference_id.in_(part))).scalars()
        }

    def samples_after(
        self, gallery_id: str, packs: tuple[str, str], after: int, last: int, limit: int
    ) -> list[StoredSample]:
        """Return the samples of up to `limit` references of the first pack, in the order of their ids.

        Above `after` and up to `last`; those whose sample has a template of the second pack already are left out.
        """
        of_template = (
            (samples.c.gallery_id == templates.c.gallery_id)
            & (samples.c.encounter_id == templates.c.encounter_id)
            & (samples.c.position == templates.c.position)
        )
        first, second = packs
        rows = self._connection.execute(
            select(
                templates.c.reference_id,
                templates.c.encounter_id,
                templates.c.position,
                samples.c.image,
                templates.c.box,
            )
            .select_from(templates.outerjoin(samples, of_template))
            .where(
                _gallery_of_template == gallery_id,
                templates.c.pack_id == first,
                templates.c.reference_id > after,
                templates.c.reference_id <= last,
                ~_has_counterpart(second),
            )
            .order_by(templates.c.reference_id)
            .limit(limit)
        ).all()
        images = Sealing(self._cipher, gallery_id).open_samples([(row[1], row[2], row.image) for row in rows])
        return [
            StoredSample(row.reference_id, image, Box(**row.box) if row.box else None)
            for row, image in zip(rows, images, strict=True)
        ]

    def paired_templates(self, gallery_id: str, packs: tuple[str, str], after: int, limit: int) -> list[PairedTemplate]:
        """Return up to `limit` samples that are searched in both packs, by the first pack's reference above `after`."""
        wanted = _paired(packs).where(_gallery_of_template == gallery_id, templates.c.reference_id > after)
        return self._pairs(gallery_id, packs, wanted.order_by(templates.c.reference_id).limit(limit))

    def repeated_templates(self, gallery_id: str, packs: tuple[str, str], subjects: int) -> list[PairedTemplate]:
        """Return the samples, searched in both packs, of the first `subjects` by id with several encounters."""
        several = (
            select(encounters.c.subject_id)
            .where(encounters.c.gallery_id == gallery_id)
            .group_by(encounters.c.subject_id)
            .having(func.count() > 1)
            .order_by(encounters.c.subject_id)
            .limit(subjects)
        )
        wanted = _paired(packs).where(
            encounters.c.gallery_id == gallery_id, encounters.c.subject_id.in_(several.scalar_subquery())
        )
        return self._pairs(gallery_id, packs, wanted.order_by(encounters.c.subject_id, templates.c.reference_id))

    def paired_templates_of(
        self, gallery_id: str, packs: tuple[str, str], subject_ids: Sequence[str]
    ) -> list[PairedTemplate]:
        """Return the samples of some subjects that are searched in both packs."""
        return [
            pair
            for part in in_parts(subject_ids)
            for pair in self._pairs(
                gallery_id,
                packs,
                _paired(packs).where(encounters.c.gallery_id == gallery_id, encounters.c.subject_id.in_(part)),
            )
        ]

    def _pairs(self, gallery_id: str, packs: tuple[str, str], wanted: Select[*tuple[Any, ...]]) -> list[PairedTemplate]:
        rows = self._connection.execute(wanted).all()
        sealing = Sealing(self._cipher, gallery_id)
        first, second = (
            sealing.open_templates([(row.encounter_id, row.position, pack_id) for row in rows], values)
            for pack_id, values in zip(packs, ([row[4] for row in rows], [row[5] for row in rows]), strict=True)
        )
        return [
            PairedTemplate(row.subject_id, row.encounter_id, row.verifies, one, other)
            for row, one, other in zip(rows, first, second, strict=True)
            if one is not None and other is not None
        ]


def _paired(packs: tuple[str, str]) -> Select[*tuple[Any, ...]]:
    first, second = packs
    return (
        select(
            encounters.c.subject_id,
            templates.c.encounter_id,
            templates.c.position,
            templates.c.verifies,
            templates.c.embedding,
            _other.c.embedding,
        )
        .select_from(templates.join(_other, _same_sample()).join(encounters, _of_encounter()))
        .where(templates.c.pack_id == first, _other.c.pack_id == second, templates.c.active)
    )


def _of_encounter() -> ColumnElement[bool]:
    return (encounters.c.gallery_id == templates.c.gallery_id) & (encounters.c.encounter_id == templates.c.encounter_id)


def _missing(gallery_id: str, pack_id: str) -> Select[*tuple[Any, ...]]:
    """Return the subjects whom `pack_id` would not find, with whether a sample of theirs was kept.

    A template that is searched now needs one of that pack that is searched too; an inactive one, which may become
    active again, any.
    """
    theirs = encounters.alias("theirs")
    in_pack = (
        exists()
        .where(
            theirs.c.gallery_id == gallery_id,
            theirs.c.subject_id == encounters.c.subject_id,
            _other.c.gallery_id == gallery_id,
            _other.c.encounter_id == theirs.c.encounter_id,
            _other.c.pack_id == pack_id,
            _other.c.active | ~templates.c.active,
            # what failed the continuity check may show somebody else: it does not stand in for what passed
            _other.c.verifies | ~templates.c.verifies,
        )
        .correlate(encounters, templates)
    )
    kept = exists().where(
        samples.c.gallery_id == templates.c.gallery_id,
        samples.c.encounter_id == templates.c.encounter_id,
        samples.c.position == templates.c.position,
    )
    return (
        select(encounters.c.subject_id, func.count().filter(kept).label("kept"))
        .select_from(templates.join(encounters, _of_encounter()))
        .where(
            templates.c.gallery_id == gallery_id,
            templates.c.pack_id != pack_id,
            ~_has_counterpart(pack_id),
            ~in_pack,
        )
        .group_by(encounters.c.subject_id)
    )


def missing_count(connection: Connection, gallery_id: str, pack_id: str) -> int:
    """Return how many subjects `pack_id` would not find. Takes seconds a million templates."""
    missing = _missing(gallery_id, pack_id).subquery()
    return connection.execute(select(func.count()).select_from(missing)).scalar_one()


def missing_subjects(
    connection: Connection, gallery_id: str, pack_id: str, after: str | None, limit: int
) -> list[MissingSubject]:
    """Return up to `limit` of them in the order of their ids, above `after`."""
    wanted = _missing(gallery_id, pack_id)
    if after is not None:
        wanted = wanted.where(encounters.c.subject_id > after)
    rows = connection.execute(wanted.order_by(encounters.c.subject_id).limit(limit))
    return [MissingSubject(row.subject_id, has_sample=row.kept > 0) for row in rows]
