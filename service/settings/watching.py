"""Settings of what is seen from outside: metrics and traces."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from service.settings.base import Section, is_loopback

#: Characters of a token that cannot be guessed.
_TOKEN_CHARS = 32


class Metrics(Section):
    """Metrics for Prometheus. `serve` answers `/metrics` on its own port."""

    host: str = Field("127.0.0.1", description="Address that `memvault worker` answers probes and metrics on.")
    port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port on which `memvault worker` answers `/healthz`, `/readyz` and `/metrics`; 0 takes a free one. "
        "Not set: it listens nowhere.",
    )
    token: SecretStr | None = Field(
        None,
        description="Secret of 32 characters or more that `/metrics` asks for, as `Authorization: Bearer`. Not set: "
        "whoever reaches the port may read the metrics.",
    )
    tenants: int = Field(
        0,
        ge=0,
        le=1000,
        description="How many tenants have figures of their own, by their ids: those that use the LLM most. All others "
        "count together as `other`. More than 0 needs `metrics.token`.",
    )
    interval: float = Field(
        15.0, ge=1, le=3600, description="Seconds between two looks at the stores, the queue and the trail."
    )
    tenants_a_look: int = Field(
        20,
        ge=1,
        le=1000,
        description="Tenants whose memories, quarantine and retention are looked at each time, one after the other.",
    )

    @field_validator("token")
    @classmethod
    def _cannot_be_guessed(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < _TOKEN_CHARS:
            raise ValueError(f"must have {_TOKEN_CHARS} characters or more")
        return value

    @model_validator(mode="after")
    def _tenants_are_not_for_everybody(self) -> Metrics:
        if self.tenants and self.token is None:
            raise ValueError("tenants: needs metrics.token, or whoever reaches the port reads what each tenant uses")
        return self


class Telemetry(Section):
    """OpenTelemetry traces. Spans hold ids, counts and times, and never content."""

    otlp_endpoint: str | None = Field(
        None,
        description="URL of an OTLP/HTTP collector, for instance `https://collector.example.com:4318`; `/v1/traces` is "
        "added. Not set: off, whatever the environment says to OpenTelemetry.",
    )
    headers: SecretStr | None = Field(
        None, description="Headers for the collector, as `name=value,name=value`; for instance its key."
    )
    ca_file: Path | None = Field(None, description="Certificates of the authority that the collector's are checked by.")
    trusted_network: bool = Field(
        False,
        description="Allows `http://` to another machine: only where the network itself is encrypted or closed.",
    )
    sample_ratio: float = Field(
        1.0, ge=0, le=1, description="Part of the traces that is exported; the trace's id decides, in every service."
    )
    service_name: str = Field(
        "memvault", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="`service.name` of the spans' resource."
    )

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and headers_of(value) is None:
            raise ValueError("must be name=value,name=value in ASCII")
        return value

    @model_validator(mode="after")
    def _is_not_open(self) -> Telemetry:
        if self.otlp_endpoint is None:
            return self
        parts = urlsplit(self.otlp_endpoint)
        host = parts.hostname or ""
        if parts.scheme not in ("http", "https") or not host or parts.username or parts.query or parts.fragment:
            raise ValueError("otlp_endpoint: must be an http:// or https:// URL with a host, no user name and no query")
        if parts.scheme == "http" and not is_loopback(host) and not self.trusted_network:
            raise ValueError(
                "otlp_endpoint: must be https://; set telemetry.trusted_network only where the network itself is closed"
            )
        return self

    @property
    def traces_url(self) -> str | None:
        """Where spans are sent to, or None."""
        if self.otlp_endpoint is None:
            return None
        base = self.otlp_endpoint.rstrip("/")
        return base if base.endswith("/v1/traces") else f"{base}/v1/traces"


def headers_of(told: SecretStr) -> dict[str, str] | None:
    """Return the headers that a setting names, or None when it cannot be read."""
    found: dict[str, str] = {}
    for one in told.get_secret_value().split(","):
        name, separator, value = one.partition("=")
        name, value = name.strip(), value.strip()
        if not separator or not name or not value or not f"{name}{value}".isascii() or not value.isprintable():
            return None
        if not all(character.isalnum() or character in "-_" for character in name):
            return None
        found[name.lower()] = value
    return found
