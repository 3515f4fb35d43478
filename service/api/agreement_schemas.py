"""What the routes of sharing agreements read and answer."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from service.agreement import Agreement, AgreementState, AgreementUse, Disclosure, Terms, UseOutcome
from service.agreements import PartnerAnswer
from service.api.identification_schemas import IdentificationOut, identification_fields
from service.api.request_schemas import TEXT_PATTERN, Body, Instant
from service.api.sample_schemas import Out
from service.api.schemas import PageOut

ClientId = Annotated[str, StringConstraints(pattern=r"^(local|(client|oidc):[!-~]{1,255})$")]
PurposeCode = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
Description = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=TEXT_PATTERN)]
DisclosureName = Literal["hit_or_no_hit", "candidate_references", "full"]


class AgreementIn(Body):
    """What two agencies agreed."""

    partner_id: ClientId = Field(
        description="The client that may search: `client:NAME` of an API key, or `oidc:SUBJECT` of a token."
    )
    purpose: PurposeCode = Field(description="What for, as a code; a search that names another one is refused.")
    description: Description | None = Field(None, description="In words. Nothing of any person.")
    disclosure: DisclosureName = Field(description="What an answer tells: docs/partners.md.")
    starts_at: Instant | None = Field(None, description="Now if not given.")
    ends_at: Instant = Field(description="From then on it has ended; there is none without an end.")
    searches_per_day: Annotated[int, Field(ge=1, le=100_000)] = Field(100, description="Of a day in UTC.")

    def terms(self, now: datetime) -> Terms:
        return Terms(
            partner_id=self.partner_id,
            purpose=self.purpose,
            description=self.description,
            disclosure=Disclosure(self.disclosure),
            starts_at=self.starts_at or now,
            ends_at=self.ends_at,
            searches_per_day=self.searches_per_day,
        )


class AgreementOut(Out):
    agreement_id: str
    gallery_id: str
    partner_id: str
    purpose: str
    description: str | None
    disclosure: Disclosure
    starts_at: datetime
    ends_at: datetime
    searches_per_day: int
    state: AgreementState
    created_at: datetime
    ended_at: datetime | None = Field(description="When it was ended before its date; else null.")

    @classmethod
    def of(cls, agreement: Agreement, now: datetime) -> "AgreementOut":
        terms = {name: getattr(agreement.terms, name) for name in Terms.__slots__}
        return cls(
            **terms,
            agreement_id=agreement.agreement_id,
            gallery_id=agreement.gallery_id,
            state=agreement.state(now),
            created_at=agreement.created_at,
            ended_at=agreement.ended_at,
        )


class OwnAgreementOut(AgreementOut):
    """An agreement as the gallery's own side sees it."""

    created_by: str
    ended_by: str | None

    @classmethod
    def of(cls, agreement: Agreement, now: datetime) -> "OwnAgreementOut":
        shared = dict(AgreementOut.of(agreement, now))
        return cls(**shared, created_by=agreement.created_by, ended_by=agreement.ended_by)


class AgreementsOut(PageOut[AgreementOut]):
    pass


class OwnAgreementsOut(PageOut[OwnAgreementOut]):
    pass


class AgreementUseOut(Out):
    use_id: int = Field(description="From 1 in each agreement.")
    agreement_id: str
    used_by: str
    used_at: datetime
    purpose: str | None
    request_id: str | None
    outcome: UseOutcome | None = Field(description="null: under way, or cut off before it was answered.")
    complete: bool | None = Field(description="Whether everything was searched; null where nothing was answered.")
    error_code: str | None

    @classmethod
    def of(cls, use: AgreementUse) -> "AgreementUseOut":
        return cls.model_validate(use)


class AgreementUsesOut(PageOut[AgreementUseOut]):
    pass


class HitOut(Out):
    """The answer at the level `hit_or_no_hit`. Nobody was enrolled and nothing is kept of the sample."""

    kind: Literal["identification_only"] = "identification_only"
    agreement_id: str
    hit: bool
    complete: bool = Field(description="False: not everything could be searched, and no hit says nothing.")


class CandidateReferenceOut(Out):
    rank: int
    subject_id: str = Field(description="As the other agency calls the person.")


class CandidateReferencesOut(HitOut):
    """The answer at the level `candidate_references`."""

    candidates: list[CandidateReferenceOut]


class PartnerIdentificationOut(IdentificationOut):
    """The answer at the level `full`: that of an identification."""

    kind: Literal["identification_only"] = "identification_only"
    agreement_id: str


PartnerAnswerOut = HitOut | CandidateReferencesOut | PartnerIdentificationOut


def partner_answer(answer: PartnerAnswer) -> PartnerAnswerOut:
    """Return as much of what was found as the agreement lets be told."""
    agreement_id, found = answer.agreement.agreement_id, answer.found
    match answer.agreement.terms.disclosure:
        case Disclosure.HIT_OR_NO_HIT:
            return HitOut(agreement_id=agreement_id, hit=answer.is_hit, complete=found.searched.complete)
        case Disclosure.CANDIDATE_REFERENCES:
            # somebody who was erased since has no reference any more
            named = [each for each in found.decision.candidates if each.subject_id is not None]
            return CandidateReferencesOut(
                agreement_id=agreement_id,
                hit=answer.is_hit,
                complete=found.searched.complete,
                candidates=[CandidateReferenceOut(rank=each.rank, subject_id=each.subject_id or "") for each in named],
            )
        case Disclosure.FULL:
            return PartnerIdentificationOut(**identification_fields(found), agreement_id=agreement_id)
