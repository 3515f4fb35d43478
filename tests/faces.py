"""Real faces that the installed packages carry: the six people of insightface's sample photograph."""

import io
from functools import cache
from importlib.resources import files

from PIL import Image as PillowImage

# around each face of the photograph, generously: left, top, right, bottom in pixels
SIX_PEOPLE = (
    (0, 185, 250, 490),
    (190, 60, 450, 360),
    (380, 180, 660, 510),
    (670, 270, 920, 550),
    (810, 0, 1090, 280),
    (1060, 200, 1280, 480),
)


@cache
def six_people() -> PillowImage.Image:
    path = files("insightface") / "data" / "images" / "t1.jpg"
    with PillowImage.open(io.BytesIO(path.read_bytes())) as photograph:
        return photograph.convert("RGB")


def to_jpeg(image: PillowImage.Image, quality: int = 92) -> bytes:
    written = io.BytesIO()
    image.save(written, "JPEG", quality=quality)
    return written.getvalue()


def face_of(person: int, shift_px: int = 0) -> PillowImage.Image:
    """Return one of the six people, cut out a little differently for each `shift_px`."""
    left, top, right, bottom = SIX_PEOPLE[person]
    return six_people().crop((left + shift_px, top, right, bottom - shift_px))


def face_samples(count: int) -> list[bytes]:
    """Return `count` different JPEG files of the six people in turn."""
    return [to_jpeg(face_of(n % 6, n // 6), 90 - n // 6) for n in range(count)]
