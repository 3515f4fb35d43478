"""The keys of the encryption at rest: which master key wraps them, and its rotation. Never a key itself."""

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api.context import ServiceDep
from service.api.error_responses import responses
from service.api.guarded_route import GuardedRoute
from service.api.schemas import answer
from service.audit_chain import AuditEvent
from service.errors import KeyRotationUnderway, MasterKeyUnusable
from service.key_ring import MasterKeys

router = APIRouter(tags=["keys"], route_class=GuardedRoute)


class KeysOut(BaseModel):
    """Which master key wraps now, and how many gallery keys each master key has wrapped."""

    model_config = ConfigDict(title="Keys")

    master_key_id: str = Field(examples=["6b1f0c7a9d2e4f55"], description="A name, from which nothing of it follows.")
    gallery_keys: dict[str, int] = Field(
        examples=[{"6b1f0c7a9d2e4f55": 12}], description="By master key; after a rotation one is left."
    )

    @classmethod
    def of(cls, keys: MasterKeys) -> "KeysOut":
        return cls(master_key_id=keys.key_id, gallery_keys=keys.gallery_keys)


class KeyRotationOut(KeysOut):
    """How the keys are after a rotation."""

    model_config = ConfigDict(title="KeyRotation")

    rewrapped: int = Field(examples=[12], description="Gallery keys that this rotation wrapped anew.")


@router.get(
    "/v1/keys", summary="Look at the master key", response_model=KeysOut, responses=responses(MasterKeyUnusable)
)
def get_keys(service: ServiceDep) -> Response:
    """Say which master key wraps the gallery keys, by a name that tells keys apart and gives nothing of them away."""
    return answer(KeysOut.of(service.keys.master_keys()))


@router.post(
    "/v1/keys/rotations",
    summary="Rotate the master key",
    response_model=KeyRotationOut,
    responses=responses(KeyRotationUnderway, MasterKeyUnusable),
)
def rotate_keys(service: ServiceDep) -> Response:
    """Wrap every gallery key under a new master key; enrolments and searches go on meanwhile.

    One that was interrupted is finished. No template is touched: a gallery key is 32 bytes.
    """
    rewrapped = service.keys.rotate_master_key()
    service.audit.record(AuditEvent.KEYS_ROTATED, None, details={"gallery_keys": rewrapped})
    keys = service.keys.master_keys()
    return answer(KeyRotationOut(master_key_id=keys.key_id, gallery_keys=keys.gallery_keys, rewrapped=rewrapped))
