"""Stores to test and made-up records to fill them with."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from service.domain import (
    Box,
    Candidate,
    CaseKind,
    Continuity,
    Embedding,
    EncounterFacts,
    Enrolment,
    FalseMatchRate,
    Gallery,
    NewEnrolment,
    NewTemplate,
    OutcomeKind,
    Quality,
    SampleFinding,
    Searched,
    Template,
    Thresholds,
)
from service.key_ring import KeyRing
from service.store.sql_store import SqlStore
from tests import postgres
from tests.fake_keys import FakeKeyStore, FakeMasterKey
from tests.fakes import FakeStore

AnyStore = FakeStore | SqlStore

SQL_KINDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]
KINDS = ["fake", *SQL_KINDS]
START = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
EVER = datetime(2000, 1, 1, tzinfo=UTC)
DIMENSION = 128


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **duration: float) -> None:
        self.now += timedelta(**duration)


def open_store(
    kind: str, folder: Path, clock: Callable[[], datetime], *, is_encrypted: bool = True
) -> Iterator[AnyStore]:
    """Yield an empty store of this kind with the gallery `camp`; close it after."""
    cipher = new_ring() if is_encrypted else None
    store: AnyStore
    if kind == "fake":
        store = FakeStore(clock)
    elif kind == "sqlite":
        store = SqlStore(f"sqlite:///{folder}/record.sqlite", clock, cipher=cipher)
        store.migrate()
    else:
        store = SqlStore(postgres.fresh_database(), clock, cipher=cipher)
    store.create_gallery(new_gallery())
    yield store
    if isinstance(store, SqlStore):
        store.close()


def new_ring() -> KeyRing:
    return KeyRing(FakeKeyStore(), FakeMasterKey())


def new_gallery(gallery_id: str = "camp", review_fpir: float = 0.01) -> Gallery:
    return Gallery(gallery_id, "opencv-zoo", review_fpir, 0.001, 1e-4, keep_samples=True, created_at=START)


def embedding_of(name: str) -> Embedding:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    values = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
    return values / np.float32(np.linalg.norm(values))


QUALITY = Quality(112.5, 51.25, 0.93, 214.5, 127.0, -3.5, 2.0, 0.25, 1)
BOX = Box(10.5, 20.25, 123.0, 150.75)
THRESHOLDS = Thresholds(41, 0.01, 0.001, 0.36, None, 2.4e-4, 2.4e-5, True, 0.03, "LFW, development half")
FACTS = EncounterFacts(
    captured_at=datetime(2026, 2, 28, 23, 30, tzinfo=UTC),
    site="Gate 4",
    operator_ref="desk-17",
    birth_year=1990,
    sex="F",
    labels=(("programme", "food"), ("batch", "7")),
)


def new_template(name: str, position: int = 0, sample: bytes | None = None) -> NewTemplate:
    template = Template("opencv-zoo", embedding_of(name), QUALITY, BOX)
    return NewTemplate(position, template, "opencv-zoo@1", verifies=True, sample=sample)


def new_enrolment(
    name: str,
    subject_id: str | None = None,
    *,
    templates: Sequence[NewTemplate] | None = None,
    candidates: Sequence[Candidate] = (),
    cases: Sequence[CaseKind] = (),
    key: str | None = None,
    facts: EncounterFacts | None = None,
    biometric_exception: str | None = None,
    rejected: Sequence[SampleFinding] = (),
) -> NewEnrolment:
    """Return the enrolment of encounter `e-<name>`, with one template unless others are given."""
    return NewEnrolment(
        enrolment_id=f"n-{name}",
        subject_id=subject_id or f"s-{name}",
        encounter_id=f"e-{name}",
        facts=facts or EncounterFacts(),
        biometric_exception=biometric_exception,
        content_digest=hashlib.sha256(name.encode()).hexdigest(),
        idempotency_key=key,
        outcome=OutcomeKind.REVIEW if candidates else OutcomeKind.UNIQUE,
        candidates=tuple(candidates),
        thresholds=THRESHOLDS,
        searched=Searched(41, 7, complete=True),
        continuity=Continuity(0.71, 0.4, passed=True),
        templates=tuple(templates if templates is not None else [new_template(name)]),
        rejected_samples=tuple(rejected),
        cases=tuple(cases),
        warnings=("expected_fnir_high",),
    )


def candidate_of(enrolment: Enrolment, rank: int = 1) -> Candidate:
    reference_id = enrolment.samples[0].reference_id
    rate = FalseMatchRate(1.2e-5, 3.4e-5, extrapolated=True)
    return Candidate(rank, enrolment.subject_id, enrolment.encounter_id, reference_id, 0.512345678901, rate)


def enrol(store: AnyStore, enrolment: NewEnrolment, gallery_id: str = "camp") -> Enrolment:
    with store.writing(gallery_id) as tx:
        return tx.insert_enrolment(enrolment)
