"""Reads a folder of photographs with its pairs and its open set (form: README.md beside the development half)."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Pair:
    """Two photographs, as `PERSON/FILE.jpg`. Mated when both show one person."""

    first: str
    second: str

    @property
    def mated(self) -> bool:
        return person_of(self.first) == person_of(self.second)


@dataclass(frozen=True, slots=True)
class OpenSet:
    """Photographs of a search test, each as `PERSON/FILE.jpg`; one a person in each part."""

    gallery: tuple[str, ...]
    mated: tuple[str, ...]  # other photographs of people in the gallery
    non_mated: tuple[str, ...]  # people who are not in the gallery


@dataclass(frozen=True)
class Dataset:
    """A folder with `images/PERSON/FILE.jpg`, `pairs.txt` and `openset.json`."""

    root: Path
    photographs: tuple[str, ...]  # sorted, so the photographs of a person stand together
    pairs: tuple[Pair, ...]
    open_set: OpenSet

    @cached_property
    def people(self) -> tuple[str, ...]:
        """Every person once, in the order of the photographs."""
        return tuple(dict.fromkeys(person_of(photograph) for photograph in self.photographs))

    def read(self, photograph: str) -> bytes:
        return (self.root / "images" / photograph).read_bytes()


def person_of(photograph: str) -> str:
    return photograph.split("/", 1)[0]


def load_dataset(root: Path) -> Dataset:
    """Read the lists of a data set; the photographs themselves are read one by one later.

    Raises:
        FileNotFoundError: a list or the folder of images is missing.
        ValueError: a line or a list does not have the documented form, or names a photograph that is not there.
    """
    images = root / "images"
    if not images.is_dir():
        raise FileNotFoundError(f"{root} has no folder images/")
    photographs = tuple(sorted(f"{path.parent.name}/{path.name}" for path in images.glob("*/*.jpg")))
    pairs = tuple(_pair(line) for line in (root / "pairs.txt").read_text(encoding="utf-8").splitlines() if line)
    parts = json.loads((root / "openset.json").read_text(encoding="utf-8"))
    open_set = OpenSet(tuple(parts["gallery"]), tuple(parts["mated"]), tuple(parts["non_mated"]))
    named = {photograph for pair in pairs for photograph in (pair.first, pair.second)}
    named.update(open_set.gallery, open_set.mated, open_set.non_mated)
    missing = named.difference(photographs)
    if missing:
        raise ValueError(f"{len(missing)} photographs of the lists are missing, such as {min(missing)}")
    return Dataset(root, photographs, pairs, open_set)


def _pair(line: str) -> Pair:
    """`NAME i j` is mated, `NAME i NAME j` is not."""
    fields = line.split()
    if len(fields) == 3:
        person, first, second = fields
        return Pair(_photograph(person, first), _photograph(person, second))
    if len(fields) == 4:
        return Pair(_photograph(fields[0], fields[1]), _photograph(fields[2], fields[3]))
    raise ValueError(f"pairs.txt: {line!r} is neither NAME i j nor NAME i NAME j")


def _photograph(person: str, number: str) -> str:
    return f"{person}/{person}_{int(number):04d}.jpg"
