"""Every deliberate error of biodedup.

Over 300 lines on purpose: codes and statuses in one place, nothing but declarations.

BiodedupError
├── InvalidRequest                    the request does not have the documented form
│   └── RequestTooLarge  UnsupportedMediaType  MethodNotAllowed  RequestMalformed  HeadersTooLarge  RequestTimedOut
├── Unauthenticated                   no credential, or none that holds
├── Forbidden                         the caller's roles do not allow it here
├── SampleRejected                    a finding about a photograph, nothing was searched (outcome REJECTED)
│   ├── SampleEmpty  SampleTooLarge  ImageFormatUnsupported  ImageUnreadable
│   ├── ImageTooManyPixels  ImageTooSmall  ImageTooSlow
│   └── NoFace  SeveralFaces  FaceTooSmall  LandmarksDegenerate  TemplateUnusable  QualityTooLow
├── NotFound
│   └── GalleryNotFound  SubjectNotFound  EncounterNotFound  EnrolmentNotFound  CaseNotFound
│       SweepNotFound  CalibrationNotFound  MigrationNotFound  ClientNotFound  SampleNotFound
│       AgreementNotFound  HoldNotFound  RetentionReportNotFound
├── Conflict
│   └── GalleryExists  EncounterExists  IdempotencyKeyReused  NoReference  EncounterWithdrawn  EncounterOutdated
│       SweepUnderway  GalleriesNotComparable  CalibrationUnfit  MigrationUnderway  MigrationNotReady
│       PeopleWouldBeMissed  CaseVoid  KeyRotationUnderway  ClientExists  PurposeNotAgreed  LegalHold
│       RetentionRuleChanged  RetentionReportExpired  RetentionUnderway  ClockDoubtful
├── Overloaded                        the queue is full: come back later
├── RateLimited                       the client had its share of this minute: come back later
├── AgreementLimitReached             a partner's searches of the day are used up
├── Unavailable                       something the service depends on does not answer
│   └── StoreUnavailable  IndexUnavailable  PackNotLoaded  NotReady  ProviderUnavailable
├── AuditChainBroken                  entries of the audit trail are not as they were written
├── ModelPackError
│   └── PackMismatch  PackUnknown  PackManifestInvalid  PackNotInstalled  PackDigestMismatch  PackDownloadFailed
│       PackArchiveUnsafe  PackLicenceNotAccepted  PackGraphUnsupported
├── KeysUnusable                      what was encrypted cannot be read with the keys that are here
│   └── MasterKeyUnusable  KeysMissing  Undecipherable
├── KeyDestroyed                      what it encrypted was erased
├── LedgerCorrupt                     the ledger of erasures cannot be read
├── ReceiptInvalid                    a receipt was changed, or was signed with another key
├── TemplatesInvalid                  templates that are to be imported are none, or not the gallery's
├── DiskSpaceShort                    what is to be done would fill the disk
├── SettingsInvalid                   a setting is misspelt or out of range
├── VarInUse                          another process owns the folder
└── VarUnusable                       the folder cannot be made or written

`code` is for machines and never changes; `status` is its HTTP status; the message is for people and holds nothing
personal and no path. Adapters translate foreign exceptions with `raise ... from error`.
"""

from typing import ClassVar


class BiodedupError(Exception):
    """A deliberate error with a stable code, safe to show to a caller."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class InvalidRequest(BiodedupError):
    code = "invalid_request"
    status = 422


class RequestTooLarge(InvalidRequest):
    code = "request_too_large"
    status = 413


class UnsupportedMediaType(InvalidRequest):
    """The Content-Type is none that the route reads."""

    code = "unsupported_media_type"
    status = 415


class MethodNotAllowed(InvalidRequest):
    code = "method_not_allowed"
    status = 405


class RequestMalformed(InvalidRequest):
    """What two programs may read differently: a header twice, an encoded slash, a path that climbs."""

    code = "request_malformed"
    status = 400


class HeadersTooLarge(InvalidRequest):
    """The address or the headers are longer than any honest ones."""

    code = "headers_too_large"
    status = 431


class RequestTimedOut(InvalidRequest):
    """The request did not arrive in its time."""

    code = "request_timed_out"
    status = 408


class Unauthenticated(BiodedupError):
    """No credential, or one that is unknown, wrong, expired or revoked: which of these is not said."""

    code = "unauthenticated"
    status = 401


class Forbidden(BiodedupError):
    """None of the caller's roles allows this here; whether there is such a gallery is not said."""

    code = "forbidden"
    status = 403


class SampleRejected(BiodedupError):
    """No usable face in a sample. `advice` says what the person at the desk can do."""

    code = "sample_rejected"
    status = 422


class SampleEmpty(SampleRejected):
    code = "sample_empty"


class SampleTooLarge(SampleRejected):
    code = "sample_too_large"
    status = 413


class ImageFormatUnsupported(SampleRejected):
    code = "image_format_unsupported"


class ImageUnreadable(SampleRejected):
    code = "image_unreadable"


class ImageTooManyPixels(SampleRejected):
    code = "image_too_many_pixels"


class ImageTooSmall(SampleRejected):
    code = "image_too_small"


class ImageTooSlow(SampleRejected):
    code = "image_too_slow"


class NoFace(SampleRejected):
    code = "no_face"


class SeveralFaces(SampleRejected):
    code = "several_faces"


class FaceTooSmall(SampleRejected):
    code = "face_too_small"


class LandmarksDegenerate(SampleRejected):
    code = "landmarks_degenerate"


class TemplateUnusable(SampleRejected):
    """The recogniser made no finite vector of length 1: it would never be found again."""

    code = "template_unusable"


class QualityTooLow(SampleRejected):
    """The gallery's quality gate refuses the sample; the message says what to do at the desk."""

    code = "quality_too_low"


class NotFound(BiodedupError):
    code = "not_found"
    status = 404


class GalleryNotFound(NotFound):
    code = "gallery_not_found"


class SubjectNotFound(NotFound):
    code = "subject_not_found"


class EncounterNotFound(NotFound):
    code = "encounter_not_found"


class EnrolmentNotFound(NotFound):
    code = "enrolment_not_found"


class CaseNotFound(NotFound):
    code = "case_not_found"


class SweepNotFound(NotFound):
    code = "sweep_not_found"


class CalibrationNotFound(NotFound):
    code = "calibration_not_found"


class SampleNotFound(NotFound):
    """The encounter keeps no sample at this position."""

    code = "sample_not_found"


class MigrationNotFound(NotFound):
    code = "migration_not_found"


class ClientNotFound(NotFound):
    code = "client_not_found"


class AgreementNotFound(NotFound):
    """No agreement that the caller may use now: unknown, somebody else's, not begun or ended; which is not said."""

    code = "agreement_not_found"


class HoldNotFound(NotFound):
    """The subject, or the gallery, is under no legal hold of its own."""

    code = "hold_not_found"


class RetentionReportNotFound(NotFound):
    code = "retention_report_not_found"


class Conflict(BiodedupError):
    code = "conflict"
    status = 409


class GalleryExists(Conflict):
    code = "gallery_exists"


class EncounterExists(Conflict):
    """The caller's `encounter_id` is taken by other content."""

    code = "encounter_exists"


class EncounterWithdrawn(Conflict):
    """A withdrawn encounter has no biometric data left and cannot become active again."""

    code = "encounter_withdrawn"


class CaseVoid(Conflict):
    """Every record that the case compared the person with was erased."""

    code = "case_void"


class EncounterOutdated(Conflict):
    """Others were enrolled while the encounter was inactive, and were not compared with it."""

    code = "encounter_outdated"


class IdempotencyKeyReused(Conflict):
    """The `Idempotency-Key` was used for other content."""

    code = "idempotency_key_reused"


class NoReference(Conflict):
    """The subject has no template that may verify anyone."""

    code = "no_reference"


class SweepUnderway(Conflict):
    """One sweep of a gallery at a time: another is not begun before it ended."""

    code = "sweep_underway"


class GalleriesNotComparable(Conflict):
    """Two galleries of different model packs, or with templates of different models: no score has a meaning."""

    code = "galleries_not_comparable"


class CalibrationUnfit(Conflict):
    """A calibration that cannot be made of a gallery, or is not for its model."""

    code = "calibration_unfit"


class MigrationUnderway(Conflict):
    """The model pack of a gallery changes: another change is not begun before this one ended."""

    code = "migration_underway"


class MigrationNotReady(Conflict):
    """The step does not follow from where the migration is; the message says what does."""

    code = "migration_not_ready"


class PeopleWouldBeMissed(Conflict):
    """People have no template of the pack that would rule, and the caller did not name their number."""

    code = "people_would_be_missed"


class KeyRotationUnderway(Conflict):
    """The master key is being rotated already."""

    code = "key_rotation_underway"


class ClientExists(Conflict):
    """A client of this name is there, or was: names are not given twice."""

    code = "client_exists"


class PurposeNotAgreed(Conflict):
    """A partner's search is for another purpose than the agreement."""

    code = "purpose_not_agreed"


class LegalHold(Conflict):
    """The subject, or its gallery, is under legal hold: nothing of it is erased until that is lifted."""

    code = "legal_hold"


class RetentionRuleChanged(Conflict):
    """The retention rule is another one than the report was made from."""

    code = "retention_rule_changed"


class RetentionReportExpired(Conflict):
    """The report is too old to act on, or a newer one took its place."""

    code = "retention_report_expired"


class RetentionUnderway(Conflict):
    """One retention run of a gallery at a time."""

    code = "retention_underway"


class ClockDoubtful(Conflict):
    """The clock of the machine is earlier than what was recorded last: nobody's age can be told by it."""

    code = "clock_doubtful"


class Overloaded(BiodedupError):
    code = "overloaded"
    status = 429


class RateLimited(BiodedupError):
    """A client asked more in a minute than it may; `Retry-After` says when to ask again."""

    code = "rate_limited"
    status = 429


class AgreementLimitReached(BiodedupError):
    """The searches that an agreement allows in a day (UTC) are used up."""

    code = "agreement_limit_reached"
    status = 429


class Unavailable(BiodedupError):
    code = "unavailable"
    status = 503


class StoreUnavailable(Unavailable):
    code = "store_unavailable"


class IndexUnavailable(Unavailable):
    code = "index_unavailable"


class PackNotLoaded(Unavailable):
    """The gallery's model pack is not loaded in this process."""

    code = "pack_not_loaded"


class NotReady(Unavailable):
    code = "not_ready"


class ProviderUnavailable(Unavailable):
    """The OpenID Connect provider does not answer, and the token is signed with a key that is not known yet."""

    code = "provider_unavailable"


class AuditChainBroken(BiodedupError):
    """Entries of the audit trail were changed, removed, inserted or put in another order."""

    code = "audit_chain_broken"


class ModelPackError(BiodedupError):
    code = "model_pack_error"


class PackUnknown(ModelPackError):
    code = "pack_unknown"
    status = 404


class PackMismatch(ModelPackError):
    """A gallery holds templates of another model than the one that is loaded; they cannot be compared."""

    code = "pack_mismatch"
    status = 503


class PackManifestInvalid(ModelPackError):
    code = "pack_manifest_invalid"


class PackNotInstalled(ModelPackError):
    code = "pack_not_installed"
    status = 503


class PackDigestMismatch(ModelPackError):
    code = "pack_digest_mismatch"


class PackDownloadFailed(ModelPackError):
    code = "pack_download_failed"
    status = 503


class PackArchiveUnsafe(ModelPackError):
    code = "pack_archive_unsafe"


class PackLicenceNotAccepted(ModelPackError):
    code = "pack_licence_not_accepted"
    status = 403


class PackGraphUnsupported(ModelPackError):
    code = "pack_graph_unsupported"


class KeysUnusable(BiodedupError):
    """What was encrypted cannot be read with the keys that are here."""

    code = "keys_unusable"
    status = 503


class MasterKeyUnusable(KeysUnusable):
    """The master key is missing, cannot be reached, or is not the one that wrapped the keys."""

    code = "master_key_unusable"


class KeysMissing(KeysUnusable):
    """The key store is missing, is another record's, or lacks keys that the record needs."""

    code = "keys_missing"


class Undecipherable(KeysUnusable):
    """An encrypted value was changed, moved, or sealed under another key; or is not encrypted where it must be."""

    code = "undecipherable"
    status = 500


class KeyDestroyed(BiodedupError):
    """The key of a value was destroyed with its subject: nobody can read the value again."""

    code = "key_destroyed"
    status = 404


class LedgerCorrupt(BiodedupError):
    """A line of the ledger of erasures is not as it was written: whom a restore brought back is not known."""

    code = "ledger_corrupt"
    status = 503


class ReceiptInvalid(BiodedupError):
    """A receipt of an erasure is not as it was signed."""

    code = "receipt_invalid"
    status = 422


class TemplatesInvalid(BiodedupError):
    """What is to be imported does not have the documented form; the message names the first wrong row."""

    code = "templates_invalid"
    status = 422


class DiskSpaceShort(BiodedupError):
    code = "disk_space_short"
    status = 507


class SettingsInvalid(BiodedupError):
    code = "settings_invalid"


class VarInUse(BiodedupError):
    code = "var_in_use"
    status = 503


class VarUnusable(BiodedupError):
    code = "var_unusable"
    status = 503


def all_errors(base: type[BiodedupError] = BiodedupError) -> list[type[BiodedupError]]:
    """Every error class below and including `base`, in the order they are written here."""
    found = [base]
    for child in base.__subclasses__():
        found.extend(all_errors(child))
    return found
