"""Measures one model pack on a data set: pairs and searches through the service's own index."""

from dataclasses import dataclass

import numpy as np

from benchmarks.datasets import Dataset, person_of
from benchmarks.embeddings import FaceSet
from benchmarks.rates import (
    Rate,
    ScoredPairs,
    Searches,
    accuracy,
    failure_to_acquire,
    fnir_at_fpir,
    threshold_at_fpir,
)
from service.domain import Embedding
from service.gallery.faiss_index import FaissIndex

FPIRS = (0.1, 0.03, 0.01)

# most of what is looked for lies above the first; what does not is searched for again without a limit
_SEARCH_THRESHOLDS = (0.2, -1.0)


@dataclass(frozen=True)
class PackRates:
    """What was measured of one pack. The dictionaries are by FPIR."""

    pack_id: str
    model_id: str
    photographs: int
    people: int
    gallery_size: int
    failure_to_acquire: Rate
    accuracy: Rate
    fnir: dict[float, Rate]  # the right reference at any rank: the service returns every candidate
    fnir_rank_1: dict[float, Rate]
    thresholds: dict[float, float]


def measure(dataset: Dataset, pack_id: str, model_id: str, faces: FaceSet) -> PackRates:
    """Return the error rates of one pack from the templates of the data set's photographs."""
    number_of = {person: number for number, person in enumerate(dataset.people)}
    people = len(dataset.people)
    searches = search_open_set(dataset, faces)
    rejected, photographs = (
        np.bincount(np.array([number_of[person_of(one)] for one in some], np.intp), minlength=people)
        for some in (faces.rejected, dataset.photographs)
    )
    return PackRates(
        pack_id=pack_id,
        model_id=model_id,
        photographs=len(dataset.photographs),
        people=people,
        gallery_size=len(dataset.open_set.gallery),
        failure_to_acquire=failure_to_acquire(rejected, photographs),
        accuracy=accuracy(score_pairs(dataset, faces, number_of)),
        fnir={fpir: fnir_at_fpir(searches, fpir, max_rank=None) for fpir in FPIRS},
        fnir_rank_1={fpir: fnir_at_fpir(searches, fpir, max_rank=1) for fpir in FPIRS},
        thresholds={fpir: threshold_at_fpir(searches.non_mated_tops, fpir) for fpir in FPIRS},
    )


def score_pairs(dataset: Dataset, faces: FaceSet, number_of: dict[str, int]) -> ScoredPairs:
    """Return the scores of `pairs.txt`; -inf where a photograph showed no usable face."""
    scores = []
    for pair in dataset.pairs:
        first, second = faces.get(pair.first), faces.get(pair.second)
        scores.append(-np.inf if first is None or second is None else float(first @ second))
    return ScoredPairs(
        scores=np.array(scores, np.float64),
        mated=np.array([pair.mated for pair in dataset.pairs], np.bool_),
        first=np.array([number_of[person_of(pair.first)] for pair in dataset.pairs], np.intp),
        second=np.array([number_of[person_of(pair.second)] for pair in dataset.pairs], np.intp),
        people=len(number_of),
    )


def search_open_set(dataset: Dataset, faces: FaceSet) -> Searches:
    """Search the service's index with every probe of the open set.

    A probe without a usable face returns nothing; a gallery photograph without one is in no gallery.
    """
    enrolled = [photograph for photograph in dataset.open_set.gallery if photograph in faces.row_of]
    index = FaissIndex(faces.embeddings.shape[1])
    index.add(1, range(len(enrolled)), faces.rows(enrolled))
    reference_of = {person_of(photograph): reference_id for reference_id, photograph in enumerate(enrolled)}
    own = [_find(index, faces.get(probe), reference_of.get(person_of(probe))) for probe in dataset.open_set.mated]
    tops = [_top_score(index, faces.get(probe)) for probe in dataset.open_set.non_mated]
    return Searches(
        own_scores=np.array([score for score, _ in own], np.float64),
        own_ranks=np.array([rank for _, rank in own], np.intp),
        non_mated_tops=np.array(tops, np.float64),
    )


def _find(index: FaissIndex, probe: Embedding | None, reference_id: int | None) -> tuple[float, int]:
    """Return score and rank of one reference, -inf and the last rank where it cannot be found."""
    if probe is not None and reference_id is not None:
        for threshold in _SEARCH_THRESHOLDS:
            for rank, hit in enumerate(index.search(probe[None], threshold)[0], start=1):
                if hit.reference_id == reference_id:
                    return hit.score, rank
    return -np.inf, len(index) + 1


def _top_score(index: FaissIndex, probe: Embedding | None) -> float:
    if probe is not None:
        for threshold in _SEARCH_THRESHOLDS:
            hits = index.search(probe[None], threshold)[0]
            if hits:
                return hits[0].score
    return -np.inf
