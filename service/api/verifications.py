"""Verifications: is this the person they say they are, or do two samples show one person?"""

from fastapi import APIRouter, Response

from service.api.bodies import AnyBody
from service.api.context import ServiceDep
from service.api.error_responses import SAMPLE_ERRORS, responses
from service.api.guarded_route import GuardedRoute
from service.api.openapi_bodies import VERIFICATION_BODY
from service.api.parameters import GalleryPath
from service.api.sample_schemas import BoxOut, PresentationAttackOut, QualityOut, advice_out
from service.api.samples import verification_request
from service.api.schemas import VerificationOut, answer
from service.errors import NoReference, SubjectNotFound
from service.verification import Verification

router = APIRouter(tags=["verifications"], route_class=GuardedRoute)


@router.post(
    "/v1/galleries/{gallery_id}/verifications",
    summary="Compare a sample with a subject or with another sample",
    response_model=VerificationOut,
    responses=responses(*SAMPLE_ERRORS, SubjectNotFound, NoReference),
    openapi_extra=VERIFICATION_BODY,
)
def create_verification(service: ServiceDep, gallery_id: GalleryPath, body: AnyBody) -> Response:
    """Compare 1:1 at `verification_fmr`, the gallery's own if none is given. It enrols nobody."""
    asked = verification_request(body)
    if asked.reference_sample is not None:
        found = service.verification.verify_samples(
            gallery_id, asked.sample, asked.reference_sample, asked.verification_fmr
        )
    else:
        found = service.verification.verify_subject(
            gallery_id, asked.sample, asked.subject_id or "", asked.verification_fmr
        )
    return answer(_out(found))


def _out(found: Verification) -> VerificationOut:
    reference = found.reference
    return VerificationOut(
        matched=found.matched,
        score=found.score,
        threshold=found.threshold,
        verification_fmr=found.verification_fmr,
        fmr=found.false_match.fmr,
        fmr_upper=found.false_match.fmr_upper,
        extrapolated=found.false_match.extrapolated,
        expected_fnmr=found.expected_fnmr,
        population=found.population,
        calibration_id=found.calibration_id,
        reference_id=found.reference_id,
        quality=QualityOut.model_validate(found.probe.quality),
        box=BoxOut.model_validate(found.probe.box),
        presentation_attack=PresentationAttackOut.of(found.probe.presentation_attack),
        reference_presentation_attack=PresentationAttackOut.of(reference.presentation_attack) if reference else None,
        advice=advice_out(found.probe.quality),
    )
