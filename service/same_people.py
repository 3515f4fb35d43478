"""People who were decided to have several names in a gallery, each under one of them (pure)."""

from collections.abc import Iterable


def one_name(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return for each subject of the pairs the one subject that stands for all of that person's.

    Args:
        pairs: of subjects that are one person; who is the same as the same is the same.
    """
    names: dict[str, str] = {}
    for one, other in pairs:
        names[_last(names, one)] = _last(names, other)
    return {subject_id: _last(names, subject_id) for subject_id in names}


def _last(names: dict[str, str], subject_id: str) -> str:
    while (further := names.setdefault(subject_id, subject_id)) != subject_id:
        subject_id = further
    return subject_id
