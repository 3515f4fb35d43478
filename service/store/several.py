"""Counting the subjects that have several templates: with each change of the gallery, as it counts its templates."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, bindparam, func, select

from service.store.reading import in_parts
from service.store.tables import encounters, templates

_SEARCHED = (
    select(encounters.c.subject_id, func.count().label("searched"))
    .join_from(encounters, templates)
    .where(
        encounters.c.gallery_id == bindparam("in_gallery"),
        encounters.c.subject_id.in_(bindparam("among", expanding=True)),
        templates.c.active,
    )
    .group_by(encounters.c.subject_id)
)


def searched_counts(connection: Connection, gallery_id: str, subject_ids: Sequence[str]) -> dict[str, int]:
    """Return how many templates of each subject are searched; those without any are left out."""
    return {
        row.subject_id: row.searched
        for part in in_parts(subject_ids)
        for row in connection.execute(_SEARCHED, {"in_gallery": gallery_id, "among": part})
    }


def several_growth(now: Mapping[str, int], growth: Mapping[str, int]) -> int:
    """Return by how much the number of subjects with several templates grew.

    Args:
        now: templates by subject that are searched after the change; 0 where a subject is missing.
        growth: by subject, by how much the change moved that.
    """
    return sum(
        (now.get(subject_id, 0) > 1) - (now.get(subject_id, 0) - grown > 1) for subject_id, grown in growth.items()
    )
