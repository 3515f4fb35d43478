"""Labelled photographs: whom each shows, and the groups it belongs to (pure)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from service.domain import Embedding, Embeddings

AGE, SEX, SITE = "age at capture", "sex", "site"
GAP = "years between captures"
QUALITY = "quality score of the poorer photograph"

_AGE_BANDS = ((60, "60 and over"), (40, "40 to 59"), (18, "18 to 39"), (12, "12 to 17"), (5, "5 to 11"), (0, "0 to 4"))
_GAP_BANDS = ((6, "6 and more"), (3, "3 to 5"), (1, "1 to 2"), (0, "below 1"))
_QUALITY_BANDS = ((50, "50 to 100"), (30, "30 to 49"), (15, "15 to 29"), (0, "0 to 14"))
_DAYS_A_YEAR = 365  # who comes back on the same day a year later has been away for a year


@dataclass(frozen=True, slots=True)
class Photograph:
    """One labelled photograph. `groups` are its values by label, such as {"sex": "F", "age at capture": "18 to 39"}."""

    name: str
    person: str
    captured_at: datetime | None
    groups: Mapping[str, str]
    unified: int | None = None  # its quality score, 0..100


@dataclass(frozen=True, slots=True)
class Refused:
    """A photograph without a usable face, and the code that says why."""

    photograph: Photograph
    code: str


@dataclass(frozen=True, slots=True)
class FaceSet:
    """What the extractor made of labelled photographs; those of a person stand together."""

    photographs: Sequence[Photograph]
    embeddings: Embeddings  # (n, D) float32, a row a photograph
    refused: Sequence[Refused]

    @classmethod
    def of(cls, found: Sequence[tuple[Photograph, Embedding]], refused: Sequence[Refused]) -> "FaceSet":
        """Put each person's photographs together. `found` has an embedding, (D,) float32, for each."""
        ordered = sorted(found, key=lambda pair: (pair[0].person, pair[0].name))
        rows = np.stack([row for _, row in ordered]) if ordered else np.empty((0, 0), np.float32)
        return cls([photograph for photograph, _ in ordered], rows, refused)

    @property
    def people(self) -> list[str]:
        """The person of each row."""
        return [photograph.person for photograph in self.photographs]

    @property
    def all_photographs(self) -> list[Photograph]:
        """The refused ones too."""
        return [*self.photographs, *(each.photograph for each in self.refused)]


def photograph_of(
    name: str, person: str, facts: Mapping[str, str], labels: Mapping[str, str] | None = None
) -> Photograph:
    """Return a photograph with the groups that follow from its facts.

    Args:
        name: of the file, as people find it again.
        person: whom it shows.
        facts: of `captured_at` (ISO 8601), `birth_year`, `sex`, `site`, what is known; others are ignored.
        labels: further groups.

    Raises:
        ValueError: captured_at or birth_year cannot be read, or do not fit each other.
    """
    captured_at = datetime.fromisoformat(facts["captured_at"]) if facts.get("captured_at") else None
    groups = {**(labels or {})}
    groups |= {label: facts[fact] for label, fact in ((SEX, "sex"), (SITE, "site")) if facts.get(fact)}
    if captured_at is not None and facts.get("birth_year"):
        age = captured_at.year - int(facts["birth_year"])
        if age < 0:
            raise ValueError("captured before the year of birth")
        groups[AGE] = _band(_AGE_BANDS, age)
    return Photograph(name, person, captured_at, groups)


def gap_between(first: Photograph, second: Photograph) -> str | None:
    """Return the band of the years between two captures, None where one is not known."""
    if first.captured_at is None or second.captured_at is None:
        return None
    # dates alone: one may have a time zone and the other none
    days = abs((first.captured_at.date() - second.captured_at.date()).days)
    return _band(_GAP_BANDS, days / _DAYS_A_YEAR)


def quality_of(first: Photograph, second: Photograph) -> str | None:
    """Return the band of the lower of two quality scores, None where one is not known."""
    if first.unified is None or second.unified is None:
        return None
    return _band(_QUALITY_BANDS, min(first.unified, second.unified))


def _band(bands: Sequence[tuple[int, str]], value: float) -> str:
    return next(name for lowest, name in bands if value >= lowest)
