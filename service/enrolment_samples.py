"""From the samples of an enrolment to the probes that are searched: extraction, then the gallery's quality gate."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service import quality_rule
from service.domain import Embeddings, FacePolicy, QualityGate, SampleFinding, Template
from service.errors import QualityTooLow, SampleRejected
from service.ports import Embedder


@dataclass(frozen=True, slots=True)
class Extracted:
    """What became of each sample before the gate, with its position: a template, or why there is none."""

    templates: tuple[tuple[int, Template], ...]
    rejected: tuple[tuple[int, SampleRejected], ...]


@dataclass(frozen=True, slots=True)
class Probes:
    """The usable samples of a request, as they are searched."""

    templates: tuple[Template, ...]
    positions: tuple[int, ...]  # of the samples they come from
    rejected: tuple[SampleFinding, ...]
    embeddings: Embeddings


def extract(samples: Sequence[bytes], embedder: Embedder, policy: FacePolicy) -> Extracted:
    """Raises Overloaded, NotReady."""
    templates: list[tuple[int, Template]] = []
    rejected: list[tuple[int, SampleRejected]] = []
    for position, sample in enumerate(samples):
        try:
            templates.append((position, embedder.extract(sample, policy)))
        except SampleRejected as error:
            rejected.append((position, error))
    return Extracted(tuple(templates), tuple(rejected))


def let_through(extracted: Extracted, gate: QualityGate) -> Probes:
    """Return the probes that a gate lets through, and a finding on each other sample.

    Raises:
        SampleRejected: no sample is usable; that of the first one.
    """
    passed: list[tuple[int, Template]] = []
    findings = [SampleFinding(position, None, error.code, None, None) for position, error in extracted.rejected]
    errors = list(extracted.rejected)
    for position, template in extracted.templates:
        try:
            quality_rule.check(gate, template.quality)
            passed.append((position, template))
        except QualityTooLow as error:
            errors.append((position, error))
            findings.append(SampleFinding(position, None, error.code, template.quality, template.box))
    if not passed:
        raise min(errors, key=lambda each: each[0])[1]
    positions, templates = zip(*passed, strict=True)
    embeddings = np.stack([template.embedding for template in templates])
    return Probes(templates, positions, tuple(findings), embeddings)
