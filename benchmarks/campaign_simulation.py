"""A campaign, enrolment by enrolment, with templates of people of whom all is known, judged by the service's rule."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from service.campaign import Campaign, Workload
from service.decision import DecisionRule
from service.domain import Embedding, Embeddings, Gallery, Hit, Reference

IntArray = npt.NDArray[np.intp]

MEASURES = tuple(field.name for field in fields(Workload))


@dataclass(frozen=True, slots=True)
class Counted:
    """What came of some enrolments; the names are those of `Workload`."""

    cases: int
    false_alarms: int
    found_duplicates: int
    missed_duplicates: int


def gallery(review_fpir: float) -> Gallery:
    return Gallery(
        gallery_id="simulated",
        pack_id="simulated",
        review_fpir=review_fpir,
        duplicate_fpir=min(review_fpir, 0.001),
        verification_fmr=0.001,
        keep_samples=False,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def simulate(
    rule: DecisionRule,
    review_fpir: float,
    campaign: Campaign,
    embeddings: Embeddings,
    people: Sequence[IntArray],
    rng: np.random.Generator,
) -> list[Counted]:
    """Return what came on each day.

    The gallery begins with one photograph each of people drawn at random. Whoever enrols is, with the chance of the
    campaign, someone drawn from those in the gallery, with another photograph, or someone new. Nobody comes a third
    time, and everybody is enrolled, whatever was found.

    Args:
        rule: of the calibration that the campaign was planned with.
        review_fpir: of the gallery.
        campaign: sizes in people.
        embeddings: (n, D) float32, rows of L2 norm 1.
        people: the rows of each.
        rng: draws who comes and with which photograph.

    Raises:
        ValueError: too few people, or too few with two photographs.
    """
    desk = _Desk(rule, gallery(review_fpir), np.empty((campaign.size_end, embeddings.shape[1]), np.float32))
    crowd = _Crowd(embeddings, people, rng)
    for _ in range(campaign.size_now):
        desk.record(*crowd.newcomer())
    days = []
    for day in range(campaign.days):
        coming = min(campaign.enrolments_per_day, campaign.enrolments - day * campaign.enrolments_per_day)
        found = []
        for _ in range(coming):
            is_duplicate = bool(rng.random() < campaign.duplicate_share)
            person, probe = crowd.duplicate() if is_duplicate else crowd.newcomer()
            found.append(desk.enrol(person, probe, is_duplicate=is_duplicate))
        days.append(total(found))
    return days


def total(counted: Sequence[Counted]) -> Counted:
    return Counted(*(sum(getattr(each, name) for each in counted) for name in MEASURES))


def held(workload: Workload, came: Counted) -> dict[str, bool]:
    """Return for each measure whether its interval holds what came."""
    estimates = {name: getattr(workload, name) for name in MEASURES}
    return {name: each.low <= getattr(came, name) <= each.high for name, each in estimates.items()}


class _Crowd:
    """People who come to enrol, each once, or twice with two photographs."""

    def __init__(self, embeddings: Embeddings, people: Sequence[IntArray], rng: np.random.Generator) -> None:
        self._embeddings = embeddings
        self._rng = rng
        self._waiting = [rng.permutation(people[number]) for number in rng.permutation(len(people))]
        self._again: list[tuple[int, IntArray]] = []  # people in the gallery who have another photograph

    def newcomer(self) -> tuple[int, Embedding]:
        """Return a number for the person, and a template. Raises ValueError: everybody came."""
        if not self._waiting:
            raise ValueError("too few people for this campaign")
        rows = self._waiting.pop()
        if len(rows) > 1:
            self._again.append((len(self._waiting), rows))
        return len(self._waiting), self._embeddings[rows[0]]

    def duplicate(self) -> tuple[int, Embedding]:
        """Return someone who came before, with another photograph. Raises ValueError: nobody has one."""
        if not self._again:
            raise ValueError("too few people with two photographs for this campaign")
        person, rows = self._again.pop(int(self._rng.integers(len(self._again))))
        return person, self._embeddings[rows[1]]


class _Desk:
    """Enrols one after another into a gallery that it searches exactly."""

    def __init__(self, rule: DecisionRule, searched: Gallery, room: Embeddings) -> None:
        self._rule = rule
        self._gallery = searched
        self._rows = room
        self._people: list[int] = []

    def record(self, person: int, template: Embedding) -> None:
        self._rows[len(self._people)] = template
        self._people.append(person)

    def enrol(self, person: int, probe: Embedding, *, is_duplicate: bool) -> Counted:
        size = len(self._people)
        thresholds = self._rule.thresholds(self._gallery, size)
        scores = self._rows[:size] @ probe
        near = [int(row) for row in np.flatnonzero(scores >= thresholds.review)]
        references = {row: Reference(row, str(row), str(row), self._rows[row], verifies=True) for row in near}
        hits = [Hit(row, float(scores[row])) for row in near]
        candidates = self._rule.decide(hits, references, str(size), thresholds).candidates
        is_found = any(self._people[int(each.subject_id or -1)] == person for each in candidates)
        self.record(person, probe)
        return Counted(
            cases=int(bool(candidates)),
            false_alarms=int(bool(candidates) and not is_found),
            found_duplicates=int(is_found),
            missed_duplicates=int(is_duplicate and not is_found),
        )
