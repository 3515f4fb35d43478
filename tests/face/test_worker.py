"""What a worker answers arrives as it was sent."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from service.domain import AttackFinding, Box, PresentationAttack, Quality, Template
from service.errors import BiodedupError, NoFace
from service.face.worker import Answer

PHASES = (("decode", 0.25), ("detect", 0.5))
QUALITY = Quality(112.5, 51.25, 0.93, 214.5, 127.0, -3.5, 2.0, 0.25, 1)


def sent(answer: Answer) -> Answer:
    arrived = pickle.loads(pickle.dumps(answer))
    assert isinstance(arrived, Answer)
    return arrived


def test_a_template_arrives_as_it_was_sent() -> None:
    embedding = np.random.default_rng(1).standard_normal(128, dtype=np.float32)
    template = Template("opencv-zoo", embedding, QUALITY, Box(10.5, 20.25, 123.0, 150.75))

    arrived = sent(Answer(template, PHASES))

    assert isinstance(arrived.result, Template)
    assert arrived.result.embedding.dtype == np.float32
    assert np.array_equal(arrived.result.embedding, embedding)
    assert replace(arrived.result, embedding=embedding) == template
    assert arrived.phases == PHASES


def test_a_suspected_attack_arrives_as_it_was_sent() -> None:
    attack = PresentationAttack(None, AttackFinding.ATTACK, 0.25, 0.8)
    template = Template("opencv-zoo", np.ones(4, np.float32), QUALITY, Box(1, 2, 3, 4), attack)

    arrived = sent(Answer(template, PHASES))

    assert isinstance(arrived.result, Template)
    assert arrived.result.presentation_attack == attack


@pytest.mark.parametrize("result", [None, NoFace("no face was found")])
def test_what_is_no_template_arrives_as_it_was_sent(result: BiodedupError | None) -> None:
    arrived = sent(Answer(result, PHASES))

    assert type(arrived.result) is type(result)
    assert str(arrived.result) == str(result)
    assert arrived.phases == PHASES
