"""Counting the subjects that have several samples: with each change of the gallery, as it counts its templates.

While a gallery has two packs, a sample counts that has a template of either: so one count is never too low for one of
them, and nothing is to be counted anew when they change places (docs/decisions/0016).
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, bindparam, func, select

from service.domain import Gallery
from service.store.parts import in_parts
from service.store.tables import encounters, templates

_SAMPLES = (
    select(encounters.c.subject_id, templates.c.encounter_id, templates.c.position)
    .join_from(encounters, templates)
    .where(
        encounters.c.gallery_id == bindparam("in_gallery"),
        templates.c.pack_id.in_(bindparam("of_packs", expanding=True)),
        templates.c.active,
    )
    .distinct()
)
_among = _SAMPLES.where(encounters.c.subject_id.in_(bindparam("among", expanding=True))).subquery()
_SEARCHED = select(_among.c.subject_id, func.count().label("searched")).group_by(_among.c.subject_id)
_all = _SAMPLES.subquery()
_SEVERAL = select(func.count()).select_from(
    select(_all.c.subject_id).group_by(_all.c.subject_id).having(func.count() > 1).subquery()
)


def searched_counts(connection: Connection, gallery: Gallery, subject_ids: Sequence[str]) -> dict[str, int]:
    """Return how many samples of each subject are searched; those without any are left out."""
    in_gallery = {"in_gallery": gallery.gallery_id, "of_packs": gallery.pack_ids}
    return {
        row.subject_id: row.searched
        for part in in_parts(subject_ids)
        for row in connection.execute(_SEARCHED, {**in_gallery, "among": part})
    }


def several_count(connection: Connection, gallery_id: str, pack_id: str) -> int:
    """Return how many subjects have several searched templates of a pack. Takes seconds a million templates."""
    return connection.execute(_SEVERAL, {"in_gallery": gallery_id, "of_packs": [pack_id]}).scalar_one()


def several_growth(now: Mapping[str, int], growth: Mapping[str, int]) -> int:
    """Return by how much the number of subjects with several samples grew.

    Args:
        now: samples by subject that are searched after the change; 0 where a subject is missing.
        growth: by subject, by how much the change moved that.
    """
    return sum(
        (now.get(subject_id, 0) > 1) - (now.get(subject_id, 0) - grown > 1) for subject_id, grown in growth.items()
    )
