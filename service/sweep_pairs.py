"""From what a block of a sweep found to the pairs of people that somebody must look at."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from service.calibration import Calibration
from service.domain import Candidate, FoundPair, Hit, Reference, Sweep


def hits_of(sweep: Sweep, probe_ids: Sequence[int], found: Iterable[Sequence[Hit]]) -> list[tuple[int, Hit]]:
    """Return each hit that is the sweep's to look at, with the reference that was its probe.

    It must have been there when the sweep began. Within a gallery the later ones are kept too: codes are approximate,
    so that a pair may be found from one of its sides only.
    """
    is_across = sweep.other_gallery_id is not None
    return [
        (probe_id, hit)
        for probe_id, hits in zip(probe_ids, found, strict=True)
        for hit in hits
        if hit.score >= sweep.threshold
        and hit.reference_id <= sweep.last_reference_id
        and (is_across or hit.reference_id != probe_id)
    ]


def pairs_of(
    sweep: Sweep,
    hits: Sequence[tuple[int, Hit]],
    references: Mapping[int, Reference],
    calibration: Calibration,
) -> tuple[int, tuple[FoundPair, ...]]:
    """Return how many pairs of templates of different subjects are new, and the best for each pair of subjects.

    Two subjects of one id are one and the same within a gallery, and no more than namesakes in two. Within a gallery a
    pair of templates is counted in the first block that has one of them as a probe, however its hits lie in blocks.
    One that only a later block finds is not counted here: the store counts it if it opens a case.

    Args:
        sweep: which the hits are of.
        hits: of `hits_of`.
        references: those of probes and hits that are searched now; whoever is not among them is in no pair.
        calibration: of the model pack.
    """
    is_across = sweep.other_gallery_id is not None
    count = 0
    seen: set[tuple[int, int]] = set()
    counted: set[tuple[str, ...]] = set()
    best: dict[tuple[str, ...], tuple[float, Reference, Reference]] = {}
    for probe_id, hit in hits:
        probe, other = references.get(probe_id), references.get(hit.reference_id)
        if probe is None or other is None:
            continue
        if not is_across and probe_id < hit.reference_id:
            probe, other = other, probe  # a case is always the later one's
        both = probe.subject_id, other.subject_id
        pair = probe.reference_id, other.reference_id
        if pair in seen or (not is_across and both[0] == both[1]):
            continue
        seen.add(pair)
        key = both if is_across else tuple(sorted(both))
        if is_across or hit.reference_id > sweep.cursor:  # else it was a probe of an earlier block
            count += 1
            counted.add(key)
        if key not in best or hit.score > best[key][0]:
            best[key] = (hit.score, probe, other)
    return count, tuple(
        replace(_pair(sweep, *one, calibration), is_counted=key in counted) for key, one in best.items()
    )


def _pair(sweep: Sweep, score: float, probe: Reference, other: Reference, calibration: Calibration) -> FoundPair:
    rate = calibration.false_match_rate(score)
    candidate = Candidate(
        1, other.subject_id, other.encounter_id, other.reference_id, score, rate, gallery_id=sweep.other_gallery_id
    )
    return FoundPair(probe.subject_id, probe.encounter_id, candidate)
