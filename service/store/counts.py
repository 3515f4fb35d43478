"""What a change does to the counts of a gallery: templates of either pack, and samples that have both."""

from collections.abc import Iterable
from dataclasses import dataclass

from service.domain import Gallery


@dataclass(frozen=True, slots=True)
class Place:
    """Which sample a template is of, and which pack made it."""

    pack_id: str
    encounter_id: str
    position: int


@dataclass(frozen=True, slots=True)
class Growth:
    """By how much the counts of a gallery change."""

    ruling: int = 0
    standby: int = 0
    paired: int = 0

    @property
    def samples(self) -> int:
        """Those with a template of either pack."""
        return self.ruling + self.standby - self.paired

    def negated(self) -> "Growth":
        return Growth(-self.ruling, -self.standby, -self.paired)


def growth_of(gallery: Gallery, places: Iterable[Place]) -> Growth:
    """Return what these templates count for, those of other packs than the gallery's nothing.

    A sample whose templates come or go comes or goes with those of both packs.
    """
    packs: dict[tuple[str, int], set[str]] = {}
    for place in places:
        packs.setdefault((place.encounter_id, place.position), set()).add(place.pack_id)
    ruling = sum(gallery.pack_id in found for found in packs.values())
    standby = sum(gallery.standby_pack_id in found for found in packs.values())
    both = set(gallery.pack_ids)
    paired = sum(both <= found for found in packs.values()) if len(both) > 1 else 0
    return Growth(ruling, standby, paired)
