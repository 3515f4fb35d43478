"""Every knob of the service, from `BIODEDUP_*` environment variables; an unknown or wrong one stops the service.

Over 300 lines on purpose: all settings in one place, most of it declarations.
"""

import difflib
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from service.domain import FacePolicy, QualityGate
from service.errors import SettingsInvalid

PREFIX = "BIODEDUP_"

OUTSIDE_NAMES = {
    "BIODEDUP_URL": "the service that the command line talks to",
    "BIODEDUP_CA_FILE": "the authority that signed its certificate",
    "BIODEDUP_API_KEY": "the key that the command line shows it",
}
"""Names that are right but no settings of the service."""

TEST_PREFIX = "BIODEDUP_TEST_"
"""The tests read names of their own; they change nothing in the service."""

SHARE = "share"
BYTES = "bytes"
PIXELS = "px"
SECONDS = "s"
MIB = 1024 * 1024

Names = Annotated[tuple[str, ...], NoDecode]
"""Written as one text, separated by commas."""


def _unit(unit: str) -> dict[str, Any]:
    return {"unit": unit}


class Settings(BaseSettings):
    """All settings with their defaults. `Settings()` reads no environment: `load_settings` does."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    host: str = Field(
        default="127.0.0.1", min_length=1, description="Address to listen on; only this machine by default."
    )
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes any free port.")
    tls_cert_file: Path | None = Field(
        default=None, description="Certificate chain (PEM) for https; read again when it changes."
    )
    tls_key_file: Path | None = Field(default=None, description="Its private key (PEM), not readable by others.")
    trusted_proxies: Names = Field(
        default=(), description="Addresses or networks of proxies whose X-Forwarded-For and -Proto are believed."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least serious event that is logged."
    )

    auth: Literal["on", "off"] = Field(
        default="on", description="Whether every request must prove who sends it; `off` only on this machine."
    )
    key_days: int = Field(
        default=365,
        ge=1,
        le=3650,
        json_schema_extra=_unit("days"),
        description="After this long a new API key ends, unless it is given another time.",
    )
    oidc_issuer: str | None = Field(
        default=None, min_length=1, description="Address of an OpenID Connect provider whose tokens are taken too."
    )
    oidc_audience: str | None = Field(
        default=None, min_length=1, description="What its tokens must name as their audience."
    )
    oidc_roles_claim: str = Field(
        default="biodedup_roles", min_length=1, description="Their claim that lists the roles of the caller."
    )

    var_dir: Path = Field(
        default=Path("./var"), description="Folder of the embedded record and index; one process owns it."
    )
    database_url: SecretStr | None = Field(
        default=None, description="Address of the record; not set: a SQLite file in the folder above. Holds a password."
    )
    key_database_url: SecretStr | None = Field(
        default=None,
        description="Address of the key store, another database than the record; not set: a SQLite file in the folder "
        "above. Holds a password.",
    )
    master_key_source: str = Field(
        default="file",
        pattern=r"^(file(:.+)?|env|pkcs11:.+|transit:.+)$",
        description="Where the master key is kept: `file`, `file:PATH`, `env`, `pkcs11:...` or `transit:...`.",
    )
    master_key: SecretStr | None = Field(
        default=None, description="The master key of the source `env`: 32 random bytes in base64."
    )
    next_master_key: SecretStr | None = Field(
        default=None, description="While the master key of the source `env` is rotated: the next one."
    )
    token_pin: SecretStr | None = Field(default=None, description="PIN of the user of the PKCS#11 token.")
    transit_token: SecretStr | None = Field(default=None, description="Token for the transit engine.")
    models_dir: Path = Field(
        default=Path(__file__).resolve().parent.parent / "models",
        description="Folder of the model packs, one sub-folder a pack.",
    )
    pack: str = Field(default="opencv-zoo", min_length=1, description="Model pack of new galleries.")
    extra_packs: Names = Field(default=(), description="Further packs to load, for galleries that use them.")
    accepted_licences: Names = Field(default=(), description="Packs whose restricted licence you have read and accept.")
    index: Literal["segmented", "faiss", "exact"] = Field(
        default="segmented", description="How galleries are searched."
    )
    default_gallery: str = Field(
        default="default",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Gallery that is made at the first start.",
    )

    review_fpir: float = Field(
        default=0.01,
        ge=1e-6,
        le=0.5,
        json_schema_extra=_unit(SHARE),
        description="Share of new people that may be flagged by mistake; sets the review threshold of new galleries.",
    )
    duplicate_fpir: float = Field(
        default=0.001,
        ge=1e-6,
        le=0.5,
        json_schema_extra=_unit(SHARE),
        description="The same for the outcome DUPLICATE; at most the review rate.",
    )
    verification_fmr: float = Field(
        default=0.001,
        ge=1e-6,
        le=0.1,
        json_schema_extra=_unit(SHARE),
        description="Share of pairs of different people that a 1:1 comparison may accept.",
    )
    fnir_warning: float = Field(
        default=0.10,
        ge=0.0,
        le=1.0,
        json_schema_extra=_unit(SHARE),
        description="Expected share of missed duplicates above which answers, readiness and a metric warn.",
    )

    metric_sites: Names = Field(
        default=(),
        max_length=200,
        description="Sites that the metrics of quality name; every other one counts as `other`.",
    )

    recapture_years_young_child: float = Field(
        default=1.0,
        ge=0.1,
        le=50.0,
        json_schema_extra=_unit("years"),
        description="After this long a child captured under 5 is due to be captured anew.",
    )
    recapture_years_child: float = Field(
        default=2.0,
        ge=0.1,
        le=50.0,
        json_schema_extra=_unit("years"),
        description="The same for a child captured between 5 and 15.",
    )
    recapture_years_adult: float = Field(
        default=10.0,
        ge=0.1,
        le=50.0,
        json_schema_extra=_unit("years"),
        description="The same for anybody older, and for those of unknown age.",
    )

    keep_samples: bool = Field(default=False, description="Keep the submitted images in new galleries.")
    quality_gate: QualityGate = Field(
        default=QualityGate.OFF, description="Which samples new galleries refuse for their quality."
    )
    face_policy: FacePolicy = Field(
        default=FacePolicy.REFUSE, description="What to do when a sample shows several faces."
    )
    min_face_width_px: int = Field(
        default=20, ge=8, le=1000, json_schema_extra=_unit(PIXELS), description="A narrower face is rejected."
    )
    max_samples: int = Field(
        default=5, ge=1, le=20, json_schema_extra=_unit("samples"), description="Samples in one request."
    )
    max_sample_bytes: int = Field(
        default=10 * MIB, ge=1024, le=100 * MIB, json_schema_extra=_unit(BYTES), description="Size of one sample."
    )
    max_request_bytes: int = Field(
        default=40 * MIB, ge=1024, le=1024 * MIB, json_schema_extra=_unit(BYTES), description="Size of one request."
    )
    max_pixels: int = Field(
        default=50_000_000,
        ge=10_000,
        le=400_000_000,
        json_schema_extra=_unit(PIXELS),
        description="Width times height of one sample, checked before it is decoded.",
    )
    decode_timeout_s: float = Field(
        default=5.0,
        ge=0.1,
        le=60.0,
        json_schema_extra=_unit(SECONDS),
        description="Time to decode one sample, judged beforehand.",
    )
    sample_timeout_s: float = Field(
        default=30.0,
        ge=1.0,
        le=600.0,
        json_schema_extra=_unit(SECONDS),
        description="A worker busy with one sample for longer is stopped and the sample refused.",
    )

    workers: int = Field(
        default=0,
        ge=0,
        le=256,
        json_schema_extra=_unit("processes"),
        description="Samples worked on at once, each in a process of its own (about 200 MB); 0: one a core.",
    )
    queue_limit: int = Field(
        default=64,
        ge=1,
        le=200,  # each waiting sample holds a thread and its bytes
        json_schema_extra=_unit("samples"),
        description="Samples that may wait; further ones get 429.",
    )
    queue_timeout_s: float = Field(
        default=30.0,
        ge=0.1,
        le=600.0,
        json_schema_extra=_unit(SECONDS),
        description="Longest wait of a sample, then 429.",
    )

    limit_requests_per_minute: int = Field(
        default=12_000,
        ge=0,
        le=10_000_000,
        json_schema_extra=_unit("requests"),
        description="Requests of one client in a minute, then 429; 0: no limit.",
    )
    limit_searches_per_minute: int = Field(
        default=6_000,
        ge=0,
        le=10_000_000,
        json_schema_extra=_unit("searches"),
        description="Enrolments, identifications, verifications and sweeps of one client in a minute; 0: no limit.",
    )
    limit_mib_per_minute: int = Field(
        default=6_000,
        ge=0,
        le=10_000_000,
        json_schema_extra=_unit("MiB"),
        description="What one client may send in a minute; 0: no limit.",
    )
    limit_failed_sign_ins_per_minute: int = Field(
        default=60,
        ge=0,
        le=1_000_000,
        json_schema_extra=_unit("requests"),
        description="Requests of one address without a credential that holds, in a minute; 0: no limit.",
    )
    header_timeout_s: float = Field(
        default=15.0,
        ge=0.1,
        le=600.0,
        json_schema_extra=_unit(SECONDS),
        description="Time for a TLS handshake, and for the headers of a request, then the connection is closed.",
    )
    receive_timeout_s: float = Field(
        default=120.0,
        ge=0.1,
        le=3600.0,
        json_schema_extra=_unit(SECONDS),
        description="Time for the body of a request to arrive, then 408.",
    )
    send_timeout_s: float = Field(
        default=60.0,
        ge=0.1,
        le=3600.0,
        json_schema_extra=_unit(SECONDS),
        description="A caller that takes nothing of an answer for so long is hung up on.",
    )
    max_connections: int = Field(
        default=4_096,
        ge=1,
        le=1_000_000,
        json_schema_extra=_unit("connections"),
        description="Connections open at once; further ones are closed.",
    )
    max_connections_per_address: int = Field(
        default=512,
        ge=1,
        le=1_000_000,
        json_schema_extra=_unit("connections"),
        description="The same of one address; a trusted proxy may have all.",
    )
    audit_anchor_file: Path | None = Field(
        default=None, description="File outside the database to which anchors of the audit trail are appended."
    )
    audit_anchor_entries: int = Field(
        default=1000,
        ge=1,
        le=1_000_000,
        json_schema_extra=_unit("entries"),
        description="A chain of the audit trail is anchored again after so many further entries.",
    )
    audit_anchor_period_s: float = Field(
        default=600.0,
        ge=1.0,
        le=86_400.0,
        json_schema_extra=_unit(SECONDS),
        description="A chain with fewer further entries is anchored again after this long.",
    )

    ledger_dir: Path | None = Field(
        default=None,
        description="Folder of the ledger of erasures, outside every backup; not set: `ledger` in the folder of the "
        "record.",
    )
    compact_within_hours: float = Field(
        default=24.0,
        ge=0.001,
        le=720.0,
        json_schema_extra=_unit("hours"),
        description="After an erasure, the time by which no file of an index holds anything of it.",
    )
    key_backup_days: int = Field(
        default=30,
        ge=3,
        le=3650,
        json_schema_extra=_unit("days"),
        description="Age at which backups of the key store are deleted; receipts of erasures print the date.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the given values only: the environment comes through `load_settings`, which refuses unknown names."""
        return (init_settings,)

    @field_validator("extra_packs", "accepted_licences", "metric_sites", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    @field_validator("log_level", "index", "face_policy", "auth", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("database_url", "key_database_url")
    @classmethod
    def _known_database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.match(r"(sqlite|postgresql)(\+\w+)?://", value.get_secret_value()):
            raise ValueError("starts with neither sqlite:// nor postgresql://")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            try:
                network = ipaddress.ip_network(each)
            except ValueError:
                raise ValueError(f"{each!r} is no address and no network, such as 10.0.0.7 or 10.0.0.0/24") from None
            if network.prefixlen == 0:
                raise ValueError(f"{each} is everybody: name the proxy")
        return value

    @field_validator("oidc_issuer")
    @classmethod
    def _safe_issuer(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if not parts.hostname or parts.username or parts.query or parts.fragment:
            raise ValueError("is no plain address of a provider")
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
            raise ValueError("must begin with https://: whoever changes its keys on the way decides who may do what")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if self.auth == "off" and not is_loopback(self.host):
            raise ValueError(
                f"{PREFIX}AUTH=off asks nobody who they are, so {PREFIX}HOST must be an address of this machine alone, "
                f"such as 127.0.0.1 (it is {self.host!r})"
            )
        if (self.oidc_issuer is None) != (self.oidc_audience is None):
            raise ValueError(f"{PREFIX}OIDC_ISSUER and {PREFIX}OIDC_AUDIENCE belong together: set both or neither")
        if self.duplicate_fpir > self.review_fpir:
            raise ValueError(f"{PREFIX}DUPLICATE_FPIR must not be greater than {PREFIX}REVIEW_FPIR")
        if self.max_sample_bytes > self.max_request_bytes:
            raise ValueError(f"{PREFIX}MAX_SAMPLE_BYTES must not be greater than {PREFIX}MAX_REQUEST_BYTES")
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError(f"{PREFIX}TLS_CERT_FILE and {PREFIX}TLS_KEY_FILE belong together: set both or none")
        if 0 < self.limit_mib_per_minute * MIB < self.max_request_bytes:
            raise ValueError(f"{PREFIX}LIMIT_MIB_PER_MINUTE must not be less than {PREFIX}MAX_REQUEST_BYTES")
        return self

    @property
    def packs(self) -> tuple[str, ...]:
        """Every pack to load, the pack of new galleries first, none twice."""
        return tuple(dict.fromkeys((self.pack, *self.extra_packs)))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`. A name other than localhost may lead anywhere."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def setting_names() -> dict[str, str]:
    """The environment variable of each field, in the order of the fields: `{"BIODEDUP_HOST": "host", ...}`."""
    return {PREFIX + field.upper(): field for field in Settings.model_fields}


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings that `environ` asks for. An empty value counts as not set.

    Raises:
        SettingsInvalid: a `BIODEDUP_*` name is unknown, or values are out of range; one line each, no secret.
    """
    names = setting_names()
    ours = {name: value for name, value in environ.items() if _is_ours(name)}
    unknown = [_explain_unknown(name) for name in sorted(ours) if name not in names]
    if unknown:
        raise SettingsInvalid("\n".join(unknown))
    values = {names[name]: value for name, value in ours.items() if value.strip()}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsInvalid("\n".join(_explain_invalid(detail, values) for detail in error.errors())) from None


def _is_ours(name: str) -> bool:
    """Whether a variable is meant for the service, also when the prefix itself is misspelt (`BIODEUP_PORT`)."""
    first_word = name.upper().partition("_")[0]
    meant = difflib.SequenceMatcher(None, first_word, PREFIX.rstrip("_")).ratio() > 0.85
    return meant and name not in OUTSIDE_NAMES and not name.startswith(TEST_PREFIX)


def _explain_unknown(name: str) -> str:
    """Say which name comes nearest."""
    if re.match(rf"{PREFIX}(SERVICE_(HOST|PORT)|PORT_\d)", name):
        return (
            f"{name} is not a setting; Kubernetes adds it for a Service called biodedup: "
            "put `enableServiceLinks: false` into the pod"
        )
    known = [*setting_names(), *OUTSIDE_NAMES]
    meant = PREFIX + name.upper().partition("_")[2]
    nearest = difflib.get_close_matches(meant, known, n=1, cutoff=0.0)[0]
    return f"{name} is not a setting; did you mean {nearest}?"


_SECRETS = {
    "database_url",
    "key_database_url",
    "master_key_source",  # an address may hold a password by mistake
    "master_key",
    "next_master_key",
    "token_pin",
    "transit_token",
}


def _explain_invalid(detail: ErrorDetails, values: Mapping[str, str]) -> str:
    """One line for people: which variable, what is wrong with it, and its value unless it is a secret."""
    message = detail["msg"].removeprefix("Value error, ")
    if not detail["loc"]:
        return message
    field = str(detail["loc"][0])
    message = message[:1].lower() + message[1:]
    given = "" if field in _SECRETS else f" (it is {values[field]!r})"
    return f"{PREFIX}{field.upper()}: {message}{given}"
