"""Attacks by the clock: what takes longer tells something, whatever the answer says."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from statistics import median

import numpy as np

from service.access import Role
from service.api_keys import make_key
from tests.security.rights import wrong_secret
from tests.security.target import ELSEWHERE, HERE, MARK, NOWHERE, Target

TOLD_S = 0.0015
"""A difference that is told: less cannot be held apart from what other programs on a busy machine do."""

_BATCHES, _PAIRS = 5, 40
_QUICK = 10  # per cent of the answers: those that nothing else on the machine held up
_WARM_UP = 5
_NOBODY = "S-zz-nobody"

Ask = Callable[[], int]


def told_by_time(target: Target) -> list[str]:
    """Compare, request by request in turns, what is there with what is not, for callers who may not know."""
    found = []
    for name, first, second in _questions(target):
        statuses = {ask() for _ in range(_WARM_UP) for ask in (first, second)}
        if len(statuses) != 1:
            found.append(f"{name}: {sorted(statuses)}")
        difference_s = _difference_s(first, second)
        if abs(difference_s) >= TOLD_S:
            found.append(f"{name}: {1000 * difference_s:+.1f} ms")
    return found


def _difference_s(first: Ask, second: Ask) -> float:
    """Return by how much the first takes longer: the median of batches, as many as decide whether it is told.

    Of each batch the quick answers are compared: another program on the machine holds up any of them, never all, and
    can only add. One batch that it spoils decides nothing.
    """
    found: list[float] = []
    while len(found) < _BATCHES:
        found.append(_batch_s(first, second))
        for settled in (
            sum(each >= TOLD_S for each in found),
            sum(each <= -TOLD_S for each in found),
            sum(abs(each) < TOLD_S for each in found),
        ):
            if settled > _BATCHES // 2:
                return median(found)
    return median(found)


def _batch_s(first: Ask, second: Ask) -> float:
    """Ask both in turns, each first every other time."""
    times: dict[Ask, list[float]] = {first: [], second: []}
    for number in range(_PAIRS):
        for ask in (first, second) if number % 2 else (second, first):
            start = time.perf_counter()
            ask()
            times[ask].append(time.perf_counter() - start)
    return float(np.percentile(times[first], _QUICK) - np.percentile(times[second], _QUICK))


def _questions(target: Target) -> Iterator[tuple[str, Ask, Ask]]:
    desk = target.key(Role.ENROLLER, galleries=(HERE,))
    analyst = target.key(Role.ANALYST, galleries=(HERE,))

    def get(path: str, key: str) -> Ask:
        return lambda: target.ask("GET", path, key).status_code

    there, nowhere = f"/v1/galleries/{ELSEWHERE}", f"/v1/galleries/{NOWHERE}"
    yield "another's gallery and none", get(there, analyst), get(nowhere, analyst)
    subject, nobody = f"subjects/S-{MARK}-2", f"subjects/{_NOBODY}"
    yield (
        "a subject of another's gallery and none",
        get(f"{there}/{subject}", analyst),
        get(f"{there}/{nobody}", analyst),
    )
    own = f"/v1/galleries/{HERE}"
    yield (
        "another's subject, asked for here, and none",
        get(f"{own}/{subject}", analyst),
        get(f"{own}/{nobody}", analyst),
    )
    mine = f"{own}/subjects/S-here-0"
    yield "a subject that the role may not read and none", get(mine, desk), get(f"{own}/{nobody}", desk)
    encounter = f"{own}/encounters"
    yield (
        "another's encounter, asked for here, and none",
        get(f"{encounter}/E-{MARK}-2", analyst),
        get(f"{encounter}/E-0", analyst),
    )
    unknown = make_key(datetime.now(UTC), timedelta(days=1))[0]
    yield "a known key id with a wrong secret and an unknown one", get(own, wrong_secret(desk)), get(own, unknown)
