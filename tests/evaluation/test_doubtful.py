"""Labels that are wrong stand out."""

import numpy as np
import pytest

from service.evaluation.comparisons import mated_pairs
from service.evaluation.doubtful import doubts
from service.evaluation.photographs import FaceSet
from service.population import population_of
from tests.evaluation.people import face_set


def test_one_person_under_two_names_and_a_misfiled_photograph_are_listed_first() -> None:
    faces = face_set([2] * 60, spread=0.3)
    rows = faces.embeddings.copy()
    rows[[6, 7]] = rows[[20, 21]] + 0.01  # 0003 is 0010
    rows[100] = rows[30] + 0.01  # a photograph of 0015 lies with 0050
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    faces = FaceSet(faces.photographs, rows, ())
    population = population_of(faces.embeddings, faces.people)
    found = doubts(faces, population, mated_pairs(population))
    assert found.alike_people == 2
    scores = rows @ rows.T
    typical = np.median(scores[np.arange(0, 120, 2), np.arange(1, 120, 2)])
    like_one = sum((scores[one : one + 2, other : other + 2] >= typical).mean() for one, other in ((6, 20), (30, 100)))
    assert 0 < like_one < 2
    assert found.alike_share == pytest.approx(like_one / (60 * 59 / 2))
    assert found.unlike_people == 1
    assert found.unlike_share == 1 / 60
    strangers = [(each.first[:4], each.second[:4]) for each in found.listed if not each.mated]
    assert set(strangers) == {("0003", "0010"), ("0015", "0050")}
    (mates,) = (each for each in found.listed if each.mated)
    assert (mates.first, mates.second) == ("0050/0.jpg", "0050/1.jpg")
    listed = [each.score for each in found.listed if not each.mated]
    assert listed == sorted(listed, reverse=True)


def test_right_labels_raise_no_doubt() -> None:
    faces = face_set([2] * 60, spread=0.2)
    population = population_of(faces.embeddings, faces.people)
    found = doubts(faces, population, mated_pairs(population))
    assert (found.alike_people, found.unlike_people, list(found.listed)) == (0, 0, [])


def test_without_pairs_of_one_person_nothing_is_said() -> None:
    faces = face_set([1] * 30)
    population = population_of(faces.embeddings, faces.people)
    assert doubts(faces, population, mated_pairs(population)).listed == ()


def test_labels_that_are_all_wrong_are_counted_and_not_all_listed() -> None:
    faces = face_set([2] * 200, spread=0.2)
    shifted = FaceSet(faces.photographs, np.roll(faces.embeddings, 1, axis=0), ())
    population = population_of(shifted.embeddings, shifted.people)
    found = doubts(shifted, population, mated_pairs(population))
    assert found.unlike_people > 150
    assert sum(not each.mated for each in found.listed) == 200
    assert found.alike_people > 200


def test_one_much_photographed_person_does_not_say_what_is_alike() -> None:
    faces = face_set([60, *[2] * 60], spread=0.6)
    rows = faces.embeddings.copy()
    rows[:60] = rows[0]  # a video of somebody who sits still
    rows[64] = rows[90] * 0.9 + 0.2 * rows[64]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    faces = FaceSet(faces.photographs, rows, ())
    population = population_of(rows, faces.people)
    listed = [(each.first[:4], each.second[:4]) for each in doubts(faces, population, mated_pairs(population)).listed]
    assert ("0003", "0016") in listed
