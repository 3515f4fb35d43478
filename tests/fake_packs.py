"""What `tests.fake_transactions` knows of a gallery that has templates of two packs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from service.domain import EncounterStatus, MissingSubject, PairedTemplate, Reference, StoredSample, TemplateFacts

if TYPE_CHECKING:
    from tests.fake_transactions import Records

Place = tuple[str, int]
"""An encounter and the position of a sample in it."""


def facts(records: "Records") -> dict[int, tuple[str, TemplateFacts]]:
    """Return the encounter and the facts of each reference."""
    return {
        each.reference_id: (encounter.encounter_id, each)
        for encounter in records.encounters.values()
        for each in encounter.templates
    }


def of_pack(records: "Records", found: Mapping[int, Reference], pack_id: str | None) -> dict[int, Reference]:
    if pack_id is None:
        return dict(found)
    known = facts(records)
    return {number: each for number, each in found.items() if known[number][1].pack_id == pack_id}


def places(records: "Records", reference_ids: Mapping[int, Reference]) -> set[Place]:
    known = facts(records)
    return {(known[number][0], known[number][1].position) for number in reference_ids}


def missing(records: "Records", pack_id: str) -> list[MissingSubject]:
    """Return whom `pack_id` would not find, in the order of their ids."""
    lacks: dict[str, bool] = {}
    for subject_id in records.subjects:
        theirs = [each for each in records.encounters.values() if each.subject_id == subject_id]
        with_pack = [(each, one) for each in theirs for one in each.templates if one.pack_id == pack_id]
        for encounter in theirs:
            made = {one.position for one in encounter.templates if one.pack_id == pack_id}
            is_active = encounter.status is EncounterStatus.ACTIVE
            for one in encounter.templates:
                stands_in = any(
                    (each.status is EncounterStatus.ACTIVE or not is_active) and (other.verifies or not one.verifies)
                    for each, other in with_pack
                )
                if one.position not in made and not stands_in:
                    is_kept = one.position in records.samples[encounter.encounter_id]
                    lacks[subject_id] = lacks.get(subject_id, False) or is_kept
    return [MissingSubject(subject_id, lacks[subject_id]) for subject_id in sorted(lacks)]


class FakePackReading:
    """The part of `service.ports.Reading` that a change of the model pack needs."""

    def _records(self, gallery_id: str) -> "Records":
        raise NotImplementedError  # the fakes that mix this in have them

    def without_counterpart(self, gallery_id: str, reference_ids: Sequence[int], pack_id: str) -> set[int]:
        records = self._records(gallery_id)
        known = facts(records)
        made = places(records, of_pack(records, records.references, pack_id))
        return {
            each for each in reference_ids if each in known and (known[each][0], known[each][1].position) not in made
        }

    def samples_after(
        self, gallery_id: str, packs: tuple[str, str], after: int, last: int, limit: int
    ) -> list[StoredSample]:
        records = self._records(gallery_id)
        known = facts(records)
        made = places(records, of_pack(records, records.references, packs[1]))
        wanted = [
            number
            for number in sorted(of_pack(records, records.references, packs[0]))
            if after < number <= last and (known[number][0], known[number][1].position) not in made
        ]
        return [
            StoredSample(number, records.samples[known[number][0]].get(known[number][1].position), known[number][1].box)
            for number in wanted[:limit]
        ]

    def _paired(self, gallery_id: str, packs: tuple[str, str]) -> list[tuple[int, PairedTemplate]]:
        records = self._records(gallery_id)
        known = facts(records)
        second = {
            (known[number][0], known[number][1].position): reference
            for number, reference in of_pack(records, records.references, packs[1]).items()
        }
        found = []
        for number, one in sorted(of_pack(records, records.references, packs[0]).items()):
            other = second.get((known[number][0], known[number][1].position))
            if other is not None and records.encounters[one.encounter_id].status is EncounterStatus.ACTIVE:
                pair = PairedTemplate(one.subject_id, one.encounter_id, one.verifies, one.embedding, other.embedding)
                found.append((number, pair))
        return found

    def paired_templates(self, gallery_id: str, packs: tuple[str, str], after: int, limit: int) -> list[PairedTemplate]:
        return [pair for number, pair in self._paired(gallery_id, packs) if number > after][:limit]

    def paired_templates_of(
        self, gallery_id: str, packs: tuple[str, str], subject_ids: Sequence[str]
    ) -> list[PairedTemplate]:
        return [pair for _, pair in self._paired(gallery_id, packs) if pair.subject_id in subject_ids]

    def repeated_templates(self, gallery_id: str, packs: tuple[str, str], subjects: int) -> list[PairedTemplate]:
        known = self._records(gallery_id).subjects
        several = [each for each in sorted(known) if len(known[each].encounter_ids) > 1][:subjects]
        found = [pair for _, pair in self._paired(gallery_id, packs) if pair.subject_id in several]
        return sorted(found, key=lambda pair: pair.subject_id)
