"""Erasure over HTTP: a receipt that anybody can verify, and that comes again where its answer was lost."""

import uuid
from datetime import datetime, timedelta

import httpx

from service.receipts import verified
from service.signing import PublicKey
from tests.api.conftest import Enrol
from tests.api.problems import problem_of


def public_key(client: httpx.Client) -> PublicKey:
    answer = client.get("/v1/receipts/public-key")
    assert answer.status_code == 200, answer.text
    key = PublicKey.from_pem(answer.json()["pem"])
    assert (answer.json()["algorithm"], answer.json()["public_key_id"]) == ("Ed25519", key.name)
    return key


def test_the_receipt_of_an_erasure_verifies_byte_by_byte(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna/1", subject_id="S-1")
    answer = client.delete(f"{gallery}/subjects/S-1")

    receipt = verified(answer.content, public_key(client))
    assert receipt == answer.json()
    assert (receipt["subject_id"], receipt["parts"]["templates"]) == ("S-1", 1)
    assert f"/v1/galleries/{receipt['gallery_id']}" == gallery
    assert receipt["parts"]["data_keys"] == 1
    assert len(bytes.fromhex(receipt["key_id"])) == 16
    erased_at = datetime.fromisoformat(receipt["erased_at"])
    assert datetime.fromisoformat(receipt["compacted_by"]) - erased_at == timedelta(hours=24)
    assert datetime.fromisoformat(receipt["key_backups_until"]) - erased_at == timedelta(days=30)


def test_a_repeat_with_the_same_key_gets_the_same_bytes(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna/1", subject_id="S-1")
    enrol(b"berta/1", subject_id="S-2")
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    first = client.delete(f"{gallery}/subjects/S-1", headers=headers)
    again = client.delete(f"{gallery}/subjects/S-1", headers=headers)
    other = client.delete(f"{gallery}/subjects/S-2", headers=headers)

    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    assert problem_of(other, 409) == "idempotency_key_reused"
    assert client.get(f"{gallery}/subjects/S-2").status_code == 200
    assert problem_of(client.delete(f"{gallery}/subjects/S-1"), 404) == "subject_not_found"


def test_the_trail_has_the_digest_of_the_receipt_and_not_the_subject(
    client: httpx.Client, gallery: str, enrol: Enrol
) -> None:
    enrol(b"anna/1", subject_id="S-1041-planted")
    receipt = client.delete(f"{gallery}/subjects/S-1041-planted").json()

    found = client.get(f"{gallery}/audit", params={"event": "subject.erased"})
    (entry,) = found.json()["items"]
    assert entry["details"]["receipt_digest"] == receipt["digest"]
    assert "S-1041-planted" not in found.text
