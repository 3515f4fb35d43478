"""From what a block of a sweep found to the pairs of people that somebody must look at."""

from collections.abc import Iterable, Mapping, Sequence

from service.calibration import Calibration
from service.domain import Candidate, FoundPair, Hit, Reference, Sweep


def hits_of(sweep: Sweep, probe_ids: Sequence[int], found: Iterable[Sequence[Hit]]) -> list[tuple[int, Hit]]:
    """Return each hit that is the sweep's to look at, with the reference that was its probe.

    Within a gallery the hit must be the earlier of the two, in another one it must have been there at the beginning.
    """
    is_across = sweep.other_gallery_id is not None
    return [
        (probe_id, hit)
        for probe_id, hits in zip(probe_ids, found, strict=True)
        for hit in hits
        if hit.score >= sweep.threshold
        and (hit.reference_id <= sweep.last_reference_id if is_across else hit.reference_id < probe_id)
    ]


def pairs_of(
    sweep: Sweep,
    hits: Sequence[tuple[int, Hit]],
    references: Mapping[int, Reference],
    calibration: Calibration,
) -> tuple[int, tuple[FoundPair, ...]]:
    """Return how many pairs of templates of different subjects there are, and the best for each pair of subjects.

    Two subjects of one id are one and the same within a gallery, and no more than namesakes in two.

    Args:
        sweep: which the hits are of.
        hits: of `hits_of`.
        references: those of probes and hits that are searched now; whoever is not among them is in no pair.
        calibration: of the model pack.
    """
    is_across = sweep.other_gallery_id is not None
    count = 0
    best: dict[tuple[str, ...], tuple[float, Reference, Reference]] = {}
    for probe_id, hit in hits:
        probe, other = references.get(probe_id), references.get(hit.reference_id)
        if probe is None or other is None:
            continue
        both = probe.subject_id, other.subject_id
        if not is_across and both[0] == both[1]:
            continue
        count += 1
        key = both if is_across else tuple(sorted(both))
        if key not in best or hit.score > best[key][0]:
            best[key] = (hit.score, probe, other)
    return count, tuple(_pair(sweep, *one, calibration) for one in best.values())


def _pair(sweep: Sweep, score: float, probe: Reference, other: Reference, calibration: Calibration) -> FoundPair:
    rate = calibration.false_match_rate(score)
    candidate = Candidate(
        1, other.subject_id, other.encounter_id, other.reference_id, score, rate, gallery_id=sweep.other_gallery_id
    )
    return FoundPair(probe.subject_id, probe.encounter_id, candidate)
