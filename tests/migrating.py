"""Two synthetic packs that see people differently, and a gallery that changes from one to the other."""

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np

from service.decision import DecisionRule
from service.domain import FacePolicy, Lease, Template
from service.errors import NoFace
from service.job_runner import LEASE_PERIOD, JobRunner
from service.migration import MigrationService
from service.packs import Pack, Packs
from service.ports import Store
from service.template_making import TemplateMaking
from tests.synthetic import BOX, PACK_ID, QUALITIES, PersonEmbedder, _unit, calibration
from tests.world import GALLERY, START, World

NEW_PACK = "better"
NEW_MODEL = "better-1"
NEW_DIMENSION = 256
OLD_BLIND = 100
"""From this capture on, the old pack takes each photograph for another person."""
NEW_BLIND = 200
"""From this capture on, the new pack does so too, and the old one does not."""
UNSEEN = 900
"""From this person on, the new pack finds no face."""
OTHER_FACE = 800
"""From this person on (and below UNSEEN), the new pack finds another face in the picture."""
LEASE = Lease("the one process", START + LEASE_PERIOD)


class OldEmbedder(PersonEmbedder):
    """Knows people by their first captures."""

    def extract(self, data: bytes, policy: FacePolicy) -> Template:
        template = super().extract(data, policy)
        person, capture = (int(word) for word in data.split()[1:3])
        if not OLD_BLIND <= capture < NEW_BLIND:
            return template
        stranger = np.random.default_rng([3, person, capture]).normal(size=self.dimension)
        return replace(template, embedding=_unit(stranger))


class NewEmbedder:
    """Knows them also by captures that the old pack takes for others, and is blind otherwise."""

    pack_id = NEW_PACK
    model_id = NEW_MODEL
    dimension = NEW_DIMENSION

    def extract(self, data: bytes, policy: FacePolicy) -> Template:
        words = data.split()
        if len(words) != 4 or words[0] != b"face":
            raise NoFace("no face was found")
        person, capture = int(words[1]), int(words[2])
        if person >= UNSEEN:
            raise NoFace("no face was found")
        seen = [4, person, capture] if capture >= NEW_BLIND else [5, person]
        face = np.random.default_rng(seen).normal(size=NEW_DIMENSION)
        noise = np.random.default_rng([6, person, capture]).normal(size=NEW_DIMENSION)
        far = replace(BOX, left=BOX.left + 500, right=BOX.right + 500)
        return Template(NEW_PACK, _unit(face + 0.2 * noise), QUALITIES[words[3]], far if person >= OTHER_FACE else BOX)


def two_packs() -> Packs:
    of_new = replace(calibration(), pack_id=NEW_PACK)
    return Packs(
        {
            PACK_ID: Pack(OldEmbedder(), DecisionRule(calibration(), fnir_warning=0.1), judges_quality=True),
            NEW_PACK: Pack(NewEmbedder(), DecisionRule(of_new, fnir_warning=0.1), judges_quality=True),
        }
    )


def world_of(store: Store | None = None, *, keep_samples: bool = True) -> World:
    return World(store, keep_samples=keep_samples, packs=two_packs())


def making_of(world: World, block_size: int = 5, threads: int = 1) -> TemplateMaking:
    return TemplateMaking(
        world.store,
        world.matcher,
        world.packs,
        world.metrics,
        face_policy=FacePolicy.REFUSE,
        block_size=block_size,
        threads=threads,
    )


def migrations_of(world: World) -> MigrationService:
    return MigrationService(world.store, world.matcher, world.packs, world.metrics, lambda: None)


def work(world: World) -> None:
    """Make, or delete, all that is to be made or deleted."""
    JobRunner(
        making_of(world),
        name="migration",
        is_alone=True,
        clock=world.clock,
        retry_s=0.0,
        on_look=world.matcher.forget_other_packs,
    ).work()


def make_all(world: World, migrations: MigrationService | None = None) -> MigrationService:
    """Begin a migration and make all templates."""
    migrations = migrations or migrations_of(world)
    migrations.begin(GALLERY, NEW_PACK)
    work(world)
    return migrations


def lease_at(now: datetime) -> Lease:
    return Lease("the one process", now + timedelta(minutes=1))
