"""Every deliberate error has a code of its own, a status, and a place in the picture."""

import re

import pytest

from service import errors
from service.errors import BiodedupError, Overloaded, all_errors


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [error.code for error in all_errors()]
    assert len(codes) == len(set(codes))
    assert [error for error in all_errors() if "code" not in vars(error)] == []


@pytest.mark.parametrize("error", all_errors())
def test_the_code_is_the_name_in_words(error: type[BiodedupError]) -> None:
    words = re.sub(r"(?<!^)(?=[A-Z])", "_", error.__name__).lower()
    assert error.code == ("internal_error" if error is BiodedupError else words)


@pytest.mark.parametrize("error", all_errors())
def test_every_error_has_an_error_status(error: type[BiodedupError]) -> None:
    assert 400 <= error.status < 600


def test_every_error_is_drawn_in_the_picture() -> None:
    drawn = set(re.findall(r"\b[A-Z][a-z]+[A-Za-z]*\b", errors.__doc__ or ""))
    assert {error.__name__ for error in all_errors()} - drawn == set()


def test_an_error_carries_its_message_and_when_to_come_back() -> None:
    error = Overloaded("too many samples are waiting", retry_after_s=2)
    assert (str(error), error.message, error.retry_after_s) == (error.message, "too many samples are waiting", 2)
