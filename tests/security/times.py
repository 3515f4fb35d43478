"""Attacks by the clock: what takes longer tells something, whatever the answer says."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from statistics import median

import numpy as np
from scipy.stats import wilcoxon

from service.access import Role
from service.api_keys import make_key
from tests.security.rights import wrong_secret
from tests.security.target import ELSEWHERE, HERE, MARK, NOWHERE, Target

ROUNDS = 120
TOLD_S = 0.001
"""A difference that somebody on the same network could use; between machines the network's own noise is about that."""
SURE = 1e-6
"""How rarely equal times may look as different as this by chance."""

_WARM_UP = 5
_NOBODY = "S-zz-nobody"

Ask = Callable[[], int]


def told_by_time(target: Target, rounds: int = ROUNDS) -> list[str]:
    """Compare, request by request in turns, what is there with what is not, for callers who may not know."""
    found = []
    for name, first, second in _questions(target):
        differences, statuses = _measure(first, second, rounds)
        if len(statuses) != 1:
            found.append(f"{name}: {sorted(statuses)}")
        if tells(differences):
            found.append(f"{name}: {1000 * median(differences):+.1f} ms")
    return found


def tells(differences: list[float]) -> bool:
    """Whether paired differences of times, in seconds, are large and no chance.

    The median of pairs is deaf to the pauses of a busy machine, which hit either side alike; the signed-rank test says
    how rarely chance alone does this (Wilcoxon, Biometrics Bulletin 1(6), 1945).
    """
    if abs(median(differences)) < TOLD_S:
        return False
    return bool(wilcoxon(np.array(differences), method="approx").pvalue < SURE)


def _measure(first: Ask, second: Ask, rounds: int) -> tuple[list[float], set[int]]:
    """Ask both in turns, each first every other time; return first minus second, and the statuses."""
    statuses = {ask() for _ in range(_WARM_UP) for ask in (first, second)}
    differences = []
    for number in range(rounds):
        times = {}
        for ask in (first, second) if number % 2 else (second, first):
            start = time.perf_counter()
            statuses.add(ask())
            times[ask] = time.perf_counter() - start
        differences.append(times[first] - times[second])
    return differences, statuses


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
