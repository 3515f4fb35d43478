"""The model packs of a process: what makes their templates, and how their scores are judged."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from service.calibration import Calibration
from service.decision import DecisionRule
from service.domain import Gallery
from service.errors import PackNotLoaded
from service.ports import Embedder


@dataclass(frozen=True, slots=True)
class Pack:
    """A loaded model pack: its embedder, and how its scores are judged where a gallery says nothing else."""

    embedder: Embedder
    rule: DecisionRule
    judges_quality: bool = False  # its templates have a unified quality score


class KeptCalibrations(Protocol):
    """Where the calibrations of galleries are kept: the record."""

    def calibration(self, gallery_id: str, calibration_id: str) -> Calibration:
        """Raises GalleryNotFound, CalibrationNotFound."""
        ...


class Packs:
    """The packs loaded in this process, by id, and the calibrations that galleries chose."""

    def __init__(self, packs: Mapping[str, Pack], kept: KeptCalibrations | None = None) -> None:
        self._packs = dict(packs)
        self._kept = kept
        self._rules: dict[tuple[str, str], DecisionRule] = {}  # a calibration of one id never changes

    def beside(self, kept: KeptCalibrations) -> "Packs":
        """Return the same packs beside a record."""
        return Packs(self._packs, kept)

    def loaded(self) -> list[str]:
        return sorted(self._packs)

    def of(self, pack_id: str) -> Pack:
        """Raises PackNotLoaded."""
        pack = self._packs.get(pack_id)
        if pack is None:
            raise PackNotLoaded(
                f"the model pack {pack_id} is not loaded: fetch it with `biodedup models fetch {pack_id}` "
                f"and name it in BIODEDUP_PACK or BIODEDUP_EXTRA_PACKS"
            )
        return pack

    def rule(self, gallery: Gallery) -> DecisionRule:
        """Return how scores are judged in a gallery: by the calibration it chose, or by that of its pack.

        Raises:
            PackNotLoaded, StoreUnavailable
        """
        rule = self.of(gallery.pack_id).rule
        chosen = gallery.calibration_id
        if chosen is None or chosen == rule.calibration.calibration_id:
            return rule
        key = (gallery.gallery_id, chosen)
        if key not in self._rules:
            assert self._kept is not None, "a gallery chose a calibration of a record that is not there"
            self._rules[key] = replace(rule, calibration=self._kept.calibration(*key))
        # one that was chosen while the gallery changed its model: scores of another pack mean nothing to it
        return self._rules[key] if self._rules[key].calibration.pack_id == gallery.pack_id else rule
