"""One name for a person who has several."""

import pytest

from service.same_people import one_name


def test_nobody_has_two_names_until_somebody_says_so() -> None:
    assert one_name([]) == {}


@pytest.mark.parametrize(
    "pairs",
    [
        [("b", "a"), ("c", "b"), ("d", "a")],
        [("c", "b"), ("b", "a"), ("d", "a")],
        [("b", "a"), ("c", "d"), ("d", "b"), ("a", "c")],  # round in a circle
        [("a", "b"), ("b", "a"), ("c", "d"), ("c", "a")],
    ],
)
def test_who_is_the_same_as_the_same_is_the_same(pairs: list[tuple[str, str]]) -> None:
    names = one_name([*pairs, ("y", "x")])
    assert names.keys() == {*"abcdxy"}
    assert len({names[each] for each in "abcd"}) == 1
    assert names["x"] == names["y"] != names["a"]
