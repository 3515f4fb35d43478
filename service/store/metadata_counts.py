"""How many samples of a gallery are searched by sex and year of birth, kept in the transaction of each change.

One counts once, also while the gallery has templates of two packs (docs/decisions/0016).

At a million templates counting them anew takes longer than the search; the table has a row for each sex and year.
"""

from collections.abc import Sequence

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    delete,
    false,
    func,
    insert,
    or_,
    select,
    true,
    update,
)

from service.domain import FILTERED_SEXES, Band, CaptureFacts, MetadataAgreement
from service.store.prepared import Prepared
from service.store.tables import encounters, galleries, metadata_counts, templates

_UNKNOWN_SEX, _UNKNOWN_YEAR = "", 0

_is_row = and_(
    metadata_counts.c.gallery_id == bindparam("in_gallery"),
    metadata_counts.c.sex == bindparam("of_sex"),
    metadata_counts.c.birth_year == bindparam("born_in"),
)
_GROW = Prepared(
    update(metadata_counts)
    .where(_is_row)
    .values(templates=metadata_counts.c.templates + bindparam("growth", type_=BigInteger))
)
_BEGIN = Prepared(insert(metadata_counts))
_known_sex = case((encounters.c.sex.in_(sorted(FILTERED_SEXES)), encounters.c.sex), else_=_UNKNOWN_SEX)
_known_year = func.coalesce(encounters.c.birth_year, _UNKNOWN_YEAR)


def count_in(connection: Connection, gallery_id: str, capture: CaptureFacts, growth: int) -> None:
    """Count `growth` templates more of a person of whom this is known."""
    sex = capture.sex if capture.sex in FILTERED_SEXES else _UNKNOWN_SEX
    year = _UNKNOWN_YEAR if capture.birth_year is None else capture.birth_year
    if not growth or (sex, year) == (_UNKNOWN_SEX, _UNKNOWN_YEAR):
        return
    row = {"in_gallery": gallery_id, "of_sex": sex, "born_in": year, "growth": growth}
    if _GROW.run(connection, row).rowcount == 0:
        began = {"gallery_id": gallery_id, "sex": sex, "birth_year": year, "templates": growth}
        _BEGIN.run(connection, began)


def count_encounters(connection: Connection, gallery_id: str, encounter_ids: Sequence[str], sign: int) -> None:
    """Count the samples of encounters that are searched now, once more (`sign` 1) or no more (-1)."""
    _count(connection, gallery_id, encounters.c.encounter_id.in_(encounter_ids), sign)
    if sign < 0:
        is_empty = (metadata_counts.c.gallery_id == gallery_id, metadata_counts.c.templates <= 0)
        connection.execute(delete(metadata_counts).where(*is_empty))


def count_anew(connection: Connection, gallery_id: str) -> None:
    """Count all samples of a gallery. Takes seconds a million templates."""
    connection.execute(delete(metadata_counts).where(metadata_counts.c.gallery_id == gallery_id))
    _count(connection, gallery_id, true(), 1)


def _count(connection: Connection, gallery_id: str, wanted: ColumnElement[bool], sign: int) -> None:
    # a sample counts once, by whichever of the gallery's packs it has templates
    found = (
        select(_known_sex.label("of_sex"), _known_year.label("born_in"), templates.c.encounter_id, templates.c.position)
        .join_from(encounters, templates)
        .join(galleries, galleries.c.gallery_id == encounters.c.gallery_id)
        .where(encounters.c.gallery_id == gallery_id, wanted, templates.c.active)
        .where(or_(templates.c.pack_id == galleries.c.pack_id, templates.c.pack_id == galleries.c.standby_pack_id))
        .distinct()
        .subquery()
    )
    each = found.c.of_sex, found.c.born_in
    for row in connection.execute(select(*each, func.count().label("number")).group_by(*each)).all():
        count_in(connection, gallery_id, CaptureFacts(row.of_sex, row.born_in or None), sign * row.number)


def count_left_out(connection: Connection, gallery_id: str, band: Band) -> int:
    """Return how many templates are known to be of somebody outside the band."""
    sex, year = metadata_counts.c.sex, metadata_counts.c.birth_year
    is_outside: list[ColumnElement[bool]] = [false()]
    if band.sex is not None:
        is_outside.append(sex.not_in([_UNKNOWN_SEX, band.sex]))
    if band.birth_years is not None:
        is_outside.append(and_(year != _UNKNOWN_YEAR, ~year.between(*band.birth_years)))
    counted = select(func.coalesce(func.sum(metadata_counts.c.templates), 0))
    wanted = counted.where(metadata_counts.c.gallery_id == gallery_id, or_(*is_outside))
    return int(connection.execute(wanted).scalar_one())


def agreement_of(
    connection: Connection, gallery_id: str, *, by_sex: bool, birth_year_tolerance: int | None
) -> MetadataAgreement:
    """Return how many people have the same fact at two encounters or more, and of how many it disagrees."""
    # text less than text: of two sexes the first and the last are different
    filtered_sex = case((encounters.c.sex.in_(sorted(FILTERED_SEXES)), encounters.c.sex))
    year = encounters.c.birth_year
    is_known: list[ColumnElement[bool]] = [false()]
    disagrees: list[ColumnElement[bool]] = [false()]
    if by_sex:
        is_known.append(func.count(filtered_sex) > 1)
        disagrees.append(func.min(filtered_sex) != func.max(filtered_sex))
    if birth_year_tolerance is not None:
        is_known.append(func.count(year) > 1)
        disagrees.append(func.max(year) - func.min(year) > birth_year_tolerance)
    people = (
        select(case((or_(*disagrees), 1), else_=0).label("disagrees"))
        .where(encounters.c.gallery_id == gallery_id)
        .group_by(encounters.c.subject_id)
        .having(or_(*is_known))
        .subquery()
    )
    row = connection.execute(select(func.count(), func.coalesce(func.sum(people.c.disagrees), 0)).select_from(people))
    found = row.one()
    return MetadataAgreement(int(found[0]), int(found[1]))
