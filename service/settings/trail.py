"""Settings of the audit trail."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, SecretStr, field_validator

from service.settings.base import Section

#: Days that the trail is kept at least; the database refuses to drop younger rows too.
AUDIT_FLOOR_DAYS: Final = 183


class AuditS3(Section):
    """Checkpoints of the trail into S3-compatible object storage, each object locked against removal."""

    bucket: str | None = Field(None, description="Bucket with object lock, made before. Not set or empty: off.")
    prefix: str = Field("memvault/checkpoints/", description="What the names of the objects begin with.")
    endpoint: str | None = Field(None, description="URL of the storage. Not set: the one of the region at AWS.")
    region: str = Field("us-east-1", description="Region of the bucket.")
    retain_days: int = Field(
        400, ge=1, le=36_500, description="Days that an object is locked (compliance mode) from its writing on."
    )
    access_key_id: SecretStr | None = Field(None, description="Not set: the SDK's own chain of credentials.")
    secret_access_key: SecretStr | None = Field(None, description="Goes with `access_key_id`.")

    @field_validator("bucket")
    @classmethod
    def _is_off_when_empty(cls, value: str | None) -> str | None:
        # So that a variable can turn off what a file sets.
        return value or None


class AuditSyslog(Section):
    """The trail as syslog messages (RFC 5424), for a SIEM."""

    address: str | None = Field(None, description="Host of the collector. Not set: off.")
    port: int = Field(514, ge=1, le=65535, description="Port of the collector.")
    protocol: Literal["tls", "tcp", "udp"] = Field(
        "tcp", description="`tls` and `tcp` count octets (RFC 5425, RFC 6587); `udp` may lose events."
    )
    ca_file: Path | None = Field(
        None, description="PEM file of the authority that the collector's certificate must come from, for `tls`."
    )
    facility: int = Field(13, ge=0, le=23, description="Facility number; 13 is `log audit`.")


class Audit(Section):
    """The audit trail: sealing, signed checkpoints, its own retention and its streams."""

    seal_interval: float = Field(2.0, ge=0.1, le=3600, description="Seconds between seals; the usual unsealed window.")
    checkpoint_folder: Path | None = Field(
        None,
        description="Folder that signed checkpoints are appended to. Not set: `checkpoints` in the data folder with "
        "the embedded Postgres, off otherwise.",
    )
    checkpoint_stdout: bool = Field(False, description="Write each signed checkpoint to standard output, one a line.")
    s3: AuditS3 = Field(default_factory=AuditS3)
    signing_key: Path | None = Field(
        None,
        description="PEM file with the Ed25519 private key. Not set: `keys/audit-signing.pem` in the data folder, made "
        "at the first start, with the embedded Postgres; otherwise needed, and outside the data folder.",
    )
    previous_signing_key: Path | None = Field(
        None, description="The key before a rotation; while it is set, checkpoints carry the signatures of both."
    )
    public_keys: tuple[Path, ...] = Field(
        (), description="PEM files with the public keys of retired signing keys, which `audit verify` accepts too."
    )
    retention_days: int | None = Field(
        None, le=36_500, description="Days that rows of the trail are kept, 183 or more. Not set: for ever."
    )
    syslog: AuditSyslog = Field(default_factory=AuditSyslog)
    stream: bool = Field(False, description="Write each event of the trail to standard output, one JSON object a line.")
    stream_file: Path | None = Field(
        None, description="File that each event of the trail is appended to, one JSON object a line. Not set: off."
    )
    matches_per_minute: int = Field(
        30, ge=1, le=10_000, description="Values that one key may hold against the trail in a minute, in each process."
    )

    @field_validator("retention_days")
    @classmethod
    def _is_above_the_floor(cls, value: int | None) -> int | None:
        if value is not None and value < AUDIT_FLOOR_DAYS:
            raise ValueError(f"must be {AUDIT_FLOOR_DAYS} or more: the trail is kept for six months at least")
        return value
