"""The model packs of a process: what makes their templates, and how their scores are judged."""

from collections.abc import Mapping
from dataclasses import dataclass

from service.decision import DecisionRule
from service.errors import PackNotLoaded
from service.ports import Embedder


@dataclass(frozen=True, slots=True)
class Pack:
    """A loaded model pack: its embedder, and how its scores are judged."""

    embedder: Embedder
    rule: DecisionRule


class Packs:
    """The packs loaded in this process, by id."""

    def __init__(self, packs: Mapping[str, Pack]) -> None:
        self._packs = dict(packs)

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
