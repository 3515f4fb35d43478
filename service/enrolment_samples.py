"""The templates of a request, and those of them that the gallery's quality gate lets through to be searched."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service import quality_rule
from service.domain import (
    Embeddings,
    NewTemplate,
    NotAssessed,
    PresentationAttack,
    QualityGate,
    SampleFinding,
    Template,
)
from service.errors import QualityTooLow, SampleRejected


@dataclass(frozen=True, slots=True)
class Extracted:
    """What became of each sample before the gate, with its position: a template, or why there is none."""

    pack_ids: tuple[str, ...]  # that were asked: of the gallery as it was read
    templates: tuple[tuple[int, Template], ...]
    rejected: tuple[tuple[int, SampleRejected], ...]
    standby: tuple[tuple[int, Template], ...] = ()  # of the usable samples, by the standby pack


@dataclass(frozen=True, slots=True)
class Probes:
    """The usable samples of a request, as they are searched."""

    pack_ids: tuple[str, ...]  # that were asked
    templates: tuple[Template, ...]
    positions: tuple[int, ...]  # of the samples they come from
    rejected: tuple[SampleFinding, ...]
    embeddings: Embeddings
    standby: tuple[tuple[int, Template], ...]  # of those samples, with their positions

    @property
    def standby_embeddings(self) -> Embeddings:
        """(n, D) float32; (0, 0) where the standby pack made none."""
        rows = [template.embedding for _, template in self.standby]
        return np.stack(rows) if rows else np.empty((0, 0), np.float32)

    @property
    def attack_warnings(self) -> tuple[str, ...]:
        """Return what a human is told where a sample may be no living face; nothing else follows from it."""
        suspected = [
            str(position)
            for position, template in zip(self.positions, self.templates, strict=True)
            if template.presentation_attack.is_attack
        ]
        if not suspected:
            return ()
        return (f"Sample {', '.join(suspected)} may show a print, a screen or a mask: a human must look.",)

    def standby_templates(self, model_id: str | None, verifies: Sequence[bool]) -> tuple[NewTemplate, ...]:
        """Return the standby pack's templates for the record.

        Args:
            model_id: of that pack; given where there is one.
            verifies: of each of `positions`, whether it may verify: the decision's, not this pack's.
        """
        if not self.standby:
            return ()
        assert model_id is not None
        may_verify = dict(zip(self.positions, verifies, strict=True))
        return tuple(
            NewTemplate(position, template, model_id, verifies=may_verify[position], sample=None)
            for position, template in self.standby
        )


def let_through(extracted: Extracted, gate: QualityGate) -> Probes:
    """Return the probes that a gate lets through, and a finding on each other sample.

    The templates of the ruling pack are judged; those of the standby pack go with them.

    Raises:
        SampleRejected: no sample is usable; that of the first one.
    """
    passed: list[tuple[int, Template]] = []
    findings = [_refused(position, error) for position, error in extracted.rejected]
    errors = list(extracted.rejected)
    for position, template in extracted.templates:
        try:
            quality_rule.check(gate, template.quality)
            passed.append((position, template))
        except QualityTooLow as error:
            errors.append((position, error))
            attack = template.presentation_attack
            findings.append(SampleFinding(position, None, error.code, template.quality, template.box, attack))
    if not passed:
        raise min(errors, key=lambda each: each[0])[1]
    positions, templates = zip(*passed, strict=True)
    embeddings = np.stack([template.embedding for template in templates])
    standby = tuple(each for each in extracted.standby if each[0] in positions)
    return Probes(extracted.pack_ids, templates, positions, tuple(findings), embeddings, standby)


def _refused(position: int, error: SampleRejected) -> SampleFinding:
    return SampleFinding(position, None, error.code, None, None, PresentationAttack(NotAssessed.NO_FACE))
