"""What a record promises of its register of erasures, on the fake, SQLite and PostgreSQL alike."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.domain import CaseKind, ErasedParts
from service.errors import IdempotencyKeyReused
from service.receipts import ErasureTerms, is_of
from tests.store.building import KINDS, AnyStore, Clock, candidate_of, enrol, new_enrolment, new_template, open_store


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyStore]:
    yield from open_store(request.param, tmp_path, Clock(), is_encrypted=request.param != "fake")


def enrol_some(store: AnyStore) -> None:
    """Enrol `s-a`, in two encounters, with a candidate and a case, and found for somebody else."""
    neighbour = enrol(store, new_enrolment("n"))
    templates = [new_template("a", 0, b"image"), new_template("a1", 1)]
    found = [candidate_of(neighbour)]
    first = enrol(store, new_enrolment("a", templates=templates, candidates=found, cases=[CaseKind.DUPLICATE]))
    enrol(store, new_enrolment("a2", "s-a"))
    enrol(store, new_enrolment("z", candidates=[candidate_of(first)], cases=[CaseKind.DUPLICATE]))


def test_an_erasure_counts_what_went(store: AnyStore) -> None:
    enrol_some(store)
    with store.writing("camp") as tx:
        erasure = tx.erase_subject("s-a")

    keys = 1 if erasure.record.key_id else 0
    assert erasure.record.parts == ErasedParts(
        data_keys=keys, encounters=2, enrolments=2, templates=3, index_places=3, samples=1, candidates=1, cases=1,
        mentions=1,
    )  # fmt: skip
    assert (erasure.seq, erasure.record.gallery_id) == (5, "camp")


def test_an_erasure_is_found_again_by_its_request(store: AnyStore) -> None:
    enrol_some(store)
    terms = ErasureTerms(repeat_digest="asked", public_key_id="key")
    with store.writing("camp") as tx:
        erasure = tx.erase_subject("s-a", terms)

    found = store.erasure_by("camp", "asked")
    assert found == erasure.record
    assert is_of(found, "s-a", terms.nonce)
    assert store.erasure_by("camp", "never") is None
    assert store.erasure_by("village", "asked") is None


def test_a_request_that_erased_somebody_erases_nobody_else(store: AnyStore) -> None:
    enrol_some(store)
    with store.writing("camp") as tx:
        tx.erase_subject("s-a", ErasureTerms(repeat_digest="asked"))

    with pytest.raises(IdempotencyKeyReused), store.writing("camp") as tx:
        tx.erase_subject("s-n", ErasureTerms(repeat_digest="asked"))

    assert store.subject("camp", "s-n").encounter_ids == ("e-n",)


def test_each_erasure_has_a_receipt_of_its_own_though_nobody_asked(store: AnyStore) -> None:
    enrol_some(store)
    found = []
    for name in ("s-a", "s-n"):
        with store.writing("camp") as tx:
            found.append(tx.erase_subject(name).record)
    assert found[0].receipt_id != found[1].receipt_id
    assert found[0].digest != found[1].digest


def test_the_entry_of_an_erasure_carries_the_digest_of_its_receipt_and_no_subject(store: AnyStore) -> None:
    enrol_some(store)
    with store.writing("camp") as tx:
        record = tx.erase_subject("s-a").record

    entry = store.audit_block("camp", 0, 100)[-1]
    assert (entry.event, entry.references) == ("subject.erased", ())
    assert entry.details == {"encounters": 2, "templates": 3, "samples": 1, "receipt_digest": record.digest}
