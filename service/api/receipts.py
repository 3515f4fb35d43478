"""Receipts of erasures: their form, and the key that verifies them."""

from datetime import datetime

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api.context import ServiceDep
from service.api.error_responses import responses
from service.api.guarded_route import GuardedRoute
from service.api.schemas import answer
from service.errors import MasterKeyUnusable
from service.receipts import FORMAT

router = APIRouter(tags=["receipts"], route_class=GuardedRoute)


class ErasedPartsOut(BaseModel):
    """How much was erased, by kind."""

    model_config = ConfigDict(title="ErasedParts")

    data_keys: int = Field(examples=[1])
    encounters: int = Field(examples=[2])
    enrolments: int = Field(examples=[2])
    templates: int = Field(examples=[2])
    index_places: int = Field(examples=[2], description="Of the templates, those that were searched.")
    samples: int = Field(examples=[0])
    candidates: int = Field(examples=[1], description="That were found for the subject.")
    cases: int = Field(examples=[1])
    mentions: int = Field(examples=[0], description="Among what was found for others: the score stays, the ids went.")


class ReceiptOut(BaseModel):
    """A receipt of an erasure: JSON in one form, whose bytes are signed (docs/erasure.md)."""

    model_config = ConfigDict(title="ErasureReceipt")

    format: str = Field(examples=[FORMAT])
    receipt_id: str = Field(examples=["5a0e3c1f9b7d4e2a8c6f0b1d3e5a7c9f"])
    gallery_id: str = Field(examples=["default"])
    subject_id: str = Field(examples=["P-1041"], description="As in the request; the service keeps it nowhere.")
    erased_at: datetime
    parts: ErasedPartsOut
    key_id: str | None = Field(
        examples=["0198c7d2a1b03f6e5d4c3b2a19087f6e"], description="Of the data key that was destroyed."
    )
    compacted_by: datetime = Field(description="From then on no file of an index holds anything of it.")
    key_backups_until: datetime = Field(description="Until then backups of the key store may hold the wrapped key.")
    nonce: str = Field(
        examples=["8f14e45fceea167a5a36dedd4bea2543"],
        description="In this receipt alone: nobody can try subjects until one fits the digest that is kept.",
    )
    public_key_id: str = Field(examples=["3b1f0c7a9d2e4f55"], description="Of `GET /v1/receipts/public-key`.")
    digest: str = Field(description="SHA-256 (hexadecimal) of all but this and the signature.")
    signature: str = Field(description="Ed25519 (hexadecimal) of the same bytes.")


class PublicKeyOut(BaseModel):
    """The key that verifies receipts."""

    model_config = ConfigDict(title="PublicKey")

    public_key_id: str = Field(examples=["3b1f0c7a9d2e4f55"])
    algorithm: str = Field(examples=["Ed25519"])
    pem: str = Field(examples=["-----BEGIN PUBLIC KEY-----\\n...\\n-----END PUBLIC KEY-----\\n"])


@router.get(
    "/v1/receipts/public-key",
    summary="Read the key that verifies receipts",
    response_model=PublicKeyOut,
    responses=responses(MasterKeyUnusable),
)
def read_public_key(service: ServiceDep) -> Response:
    """Return the public half of the key that signs receipts of erasures. Publish it where others trust it."""
    key = service.receipts.public_key
    return answer(PublicKeyOut(public_key_id=key.name, algorithm="Ed25519", pem=key.pem))
