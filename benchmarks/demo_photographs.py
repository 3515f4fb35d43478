"""The photographs of the demo: people that installed packages show and re-captures of them, or a folder of your own."""

import io
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from PIL import Image

from benchmarks.recapture import recapture

NEW, SEEN, UNUSABLE = "new", "seen", "unusable"

MOST_PEOPLE = 50  # of a folder: a table that a person still reads
MOST_OTHERS = 3  # further photographs of one person

# around each of the six people of insightface's t1.jpg (1280 x 886), generously: left, top, right, bottom in pixels
_T1_SIZE = (1280, 886)
_T1_PEOPLE = (
    (0, 205, 265, 500),
    (205, 75, 445, 320),
    (420, 185, 655, 450),
    (690, 255, 905, 510),
    (850, 0, 1100, 255),
    (1070, 215, 1280, 480),
)
_ASTRONAUT = (100, 0, 350, 270)  # of scikit-image's astronaut.png (512 x 512)
_QUALITY = 95


@dataclass(frozen=True, slots=True)
class Photograph:
    """One photograph to enrol, and what a right answer to it is."""

    name: str  # of the file
    subject_id: str
    kind: str  # NEW: never seen; SEEN: the person is already enrolled; UNUSABLE: no single face
    content: bytes
    known_as: tuple[str, ...] = ()  # for SEEN: the subjects that this person may be enrolled as by now


@dataclass(frozen=True, slots=True)
class Selection:
    """The photographs to enrol, and how much of a folder is not among them."""

    photographs: list[Photograph]
    people_left_out: int = 0
    files_left_out: int = 0  # of the people that were taken
    files_beside: int = 0  # in no sub-folder: nobody knows whose they are


def built_in() -> list[Photograph]:
    """Return seven people, a re-capture of each under another name, and four files that show no single face."""
    group = _package_image("insightface", "data", "images", "t1.jpg")
    if group.size != _T1_SIZE:
        raise RuntimeError("insightface's t1.jpg is not the photograph whose people the demo knows")
    people = [group.crop(frame) for frame in _T1_PEOPLE]
    people.append(_package_image("skimage", "data", "astronaut.png").crop(_ASTRONAUT))
    first = [
        Photograph(f"person-{number}.jpg", f"person-{number}", NEW, _to_jpeg(portrait))
        for number, portrait in enumerate(people, start=1)
    ]
    again = [
        Photograph(
            name=f"person-{number}-again.jpg",
            subject_id=f"visitor-{number}",
            kind=SEEN,
            content=recapture(portrait, seed=number),
            known_as=(f"person-{number}",),
        )
        for number, portrait in enumerate(people, start=1)
    ]
    return [*first, *again, *_unusable(group, first[0])]


def of_folder(folder: Path) -> Selection:
    """Return the photographs of a folder with one sub-folder a person, and how much was left out.

    The first file of each person is new, up to three others are of someone already enrolled, under other names.

    Raises:
        ValueError: the folder holds no sub-folder with a file.
    """
    people = [(path, _files_of(path)) for path in sorted(folder.iterdir()) if path.is_dir()]
    people = [(path, photographs) for path, photographs in people if photographs]
    if not people:
        raise ValueError(f"{folder} has no sub-folders with photographs; the demo wants one sub-folder a person")
    first, again = [], []
    for path, photographs in people[:MOST_PEOPLE]:
        subject_id = re.sub(r"[^A-Za-z0-9._:-]+", "-", path.name).lstrip("._:-")[:100] or "person"
        for number, file in enumerate(photographs[: 1 + MOST_OTHERS]):
            name = f"{path.name}/{file.name}"
            if number == 0:
                first.append(Photograph(name, subject_id, NEW, file.read_bytes()))
            else:
                known_as = (subject_id, *(f"{subject_id}-again-{earlier}" for earlier in range(1, number)))
                again.append(Photograph(name, f"{subject_id}-again-{number}", SEEN, file.read_bytes(), known_as))
    taken = people[:MOST_PEOPLE]
    return Selection(
        [*first, *again],
        people_left_out=len(people) - len(taken),
        files_left_out=sum(len(files_of_one) for _, files_of_one in taken) - len(first) - len(again),
        files_beside=len(_files_of(folder)),
    )


def _unusable(group: Image.Image, portrait: Photograph) -> list[Photograph]:
    cup = _package_image("skimage", "data", "coffee.png")
    return [
        Photograph("cup-of-coffee.jpg", "visitor-8", UNUSABLE, _to_jpeg(cup)),
        Photograph("six-people.jpg", "visitor-9", UNUSABLE, _to_jpeg(group)),
        Photograph("half-copied.jpg", "visitor-10", UNUSABLE, portrait.content[:2000]),
        Photograph("letter.jpg", "visitor-11", UNUSABLE, b"Dear Sir or Madam,"),
    ]


def _files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _package_image(package: str, *parts: str) -> Image.Image:
    with Image.open(io.BytesIO(files(package).joinpath(*parts).read_bytes())) as image:
        return image.convert("RGB")


def _to_jpeg(image: Image.Image) -> bytes:
    written = io.BytesIO()
    image.save(written, "JPEG", quality=_QUALITY)
    return written.getvalue()
