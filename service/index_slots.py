"""What is known of the index of a gallery and pack: its place, how it stands beside the record."""

import threading
from dataclasses import dataclass, field

from service.domain import Gallery
from service.errors import PackNotLoaded
from service.ports import GalleryIndex, Reading


@dataclass(frozen=True, slots=True)
class IndexState:
    """An index beside its record."""

    high_water_mark: int
    last_seq: int
    index_templates: int
    record_templates: int
    same_timeline: bool

    @property
    def in_step(self) -> bool:
        return (
            self.same_timeline
            and self.high_water_mark == self.last_seq
            and self.index_templates == self.record_templates
        )


@dataclass(frozen=True, slots=True)
class HeldIndex:
    """An index to which no change is applied now, and the record at the same change."""

    index: GalleryIndex
    reading: Reading
    state: IndexState
    pack_id: str


@dataclass(slots=True)
class Slot:
    """One gallery's index of one timeline. `applying` keeps the change log in order."""

    index: GalleryIndex
    timeline_id: str
    applying: threading.Lock = field(default_factory=threading.Lock)


IndexKey = tuple[str, str]
"""A gallery and a pack."""


def index_key(gallery: Gallery) -> IndexKey:
    return gallery.gallery_id, gallery.pack_id


def side_of(gallery: Gallery, pack_id: str | None) -> Gallery:
    """Return the gallery as one of its packs sees it. Raises PackNotLoaded: it does not have this pack any more."""
    for side in gallery.sides():
        if pack_id in {None, side.pack_id}:
            return side
    raise PackNotLoaded(f"the gallery {gallery.gallery_id} has no templates of {pack_id} any more; try again")
