"""Long lists of ids, in parts that fit into one statement."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

# SQLite may be compiled with a limit of 999 parameters a statement (SQLITE_MAX_VARIABLE_NUMBER before 3.32).
IDS_PER_STATEMENT = 900


def in_parts(ids: Sequence[T], most: int = IDS_PER_STATEMENT) -> Iterator[Sequence[T]]:
    """Yield `ids` in parts that fit into one statement."""
    for start in range(0, len(ids), most):
        yield ids[start : start + most]
