"""Every knob, nested by owner: defaults < `--config` file < environment (`MEMVAULT_…`, nested with `__`) < flags."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.sources import EnvSettingsSource

from service.errors import ConfigurationError

ENV_PREFIX = "MEMVAULT_"
#: Read by the test fixtures only, never by the service.
TEST_ENV_PREFIX = "MEMVAULT_TEST_"
#: Days that the trail is kept at least; the database refuses to drop younger rows too.
AUDIT_FLOOR_DAYS: Final = 183


def secure_url(url: str) -> str:
    """Return the URL when what is read from it or sent to it cannot be changed on the way.

    Raises:
        ValueError: for anything but `https://…`, or `http://…` on this machine, and for a URL with more than a path.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not host or parts.username is not None or parts.query or parts.fragment or not url.isascii() or " " in url:
        raise ValueError("must be a URL with a host, without a user name, query or fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise ValueError("must be an https:// URL (http:// only on this machine)")
    return url


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


SecureUrl = Annotated[str, AfterValidator(secure_url)]


class _Section(BaseModel):
    """A part of the settings; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Server(_Section):
    """The HTTP server."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    public_url: SecureUrl | None = Field(
        None,
        description="URL at which clients reach the service, for instance `https://memory.example.com`. Needed for "
        "access tokens (`auth.oidc.issuer`): it is what they are issued for.",
    )
    threads: int = Field(16, ge=2, le=256, description="Threads that run the actions; the bound on concurrent work.")
    body_limit: int = Field(4 * 1024 * 1024, ge=1024, description="Largest request body in bytes; more is 413.")
    allowed_hosts: list[str] = Field(
        default_factory=list,
        description="Host names by which clients reach the MCP endpoint, beside `server.host` and loopback; a request "
        "for another host, or from a web page of another, is refused.",
    )
    event_wait: float = Field(
        25.0, ge=0, le=300, description="Seconds that the v1 and open-source dialects wait for an extraction."
    )

    @field_validator("public_url")
    @classmethod
    def _without_slash(cls, value: str | None) -> str | None:
        return None if value is None else value.rstrip("/")


class Database(_Section):
    """Postgres, the record."""

    url: SecretStr | None = Field(
        None, description="URL of the application role. Not set: the embedded Postgres in the data folder."
    )
    owner_url: SecretStr | None = Field(
        None, description="URL of the owner role, for `memvault migrate` only; needed when `database.url` is set."
    )
    maintenance_url: SecretStr | None = Field(
        None,
        description="URL of the maintenance role, which may drop old parts of the audit trail and nothing else of it.",
    )
    embedded_template: Path | None = Field(
        None,
        description="Folder made by `memvault postgres-template`, copied instead of running initdb: for containers "
        "whose user has no name.",
    )
    app_role: str = Field(
        "memvault_app", pattern=r"^[a-z_][a-z0-9_]{0,62}$", description="Name of the role that migrations grant to."
    )
    pool_size: int = Field(20, ge=2, le=200, description="Connections kept at most.")
    prepared_statements: bool = Field(True, description="Off behind a transaction pooler that does not support them.")

    @field_validator("url", "owner_url")
    @classmethod
    def _is_postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("must be a postgresql:// URL")
        return value


class Index(_Section):
    """Qdrant, the index."""

    language: str = Field("english", description="Language of stop words and stemmer for keyword search.")
    maintenance_interval: float = Field(
        30.0, ge=1, description="Seconds between looks at whether the index wants optimising."
    )


class Embeddings(_Section):
    """The embedding model. After a change the next start embeds all memories again; searches wait for it."""

    provider: str = Field(
        "minilm",
        description="`minilm`: all-MiniLM-L6-v2 inside the process; else a provider of Mem0 (`openai`, `ollama`, …).",
    )
    config: dict[str, Any] = Field(
        default_factory=dict,
        repr=False,
        description="Mem0's own configuration of that provider: model, URL, key. Not for `minilm`.",
    )
    dimensions: int = Field(384, ge=8, le=8192, description="Numbers in a vector of the model.")
    threads: int = Field(0, ge=0, le=64, description="Threads of `minilm`; 0 is one for each core.")
    batch_queries: int = Field(
        0, ge=0, le=512, description="Most concurrent queries that are embedded in one run; 0 embeds each by itself."
    )


class Llm(_Section):
    """The language model that extraction uses, by any provider that Mem0 supports."""

    provider: str | None = Field(None, description="Mem0's name of the provider (`openai`, `ollama`, …). Not set: off.")
    model: str | None = Field(None, description="Model name as the provider knows it.")
    base_url: str | None = Field(None, description="Base URL of an OpenAI-compatible or Ollama endpoint.")
    api_key: SecretStr | None = Field(None, description="Key for the provider.")
    config: dict[str, Any] = Field(
        default_factory=dict,
        repr=False,
        description="More entries of Mem0's own LLM configuration, passed on as they are.",
    )
    timeout: float = Field(60.0, gt=0, le=600, description="Seconds that one call to the LLM may take.")
    attempts: int = Field(5, ge=1, le=20, description="Tries of an extraction before its event is FAILED.")
    retry_wait: float = Field(2.0, ge=0, le=300, description="Seconds before the second try; doubles with each.")

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must be an http:// or https:// URL")
        return value


class Fallback(StrEnum):
    """What an add with `infer=true` does when no LLM is configured."""

    VERBATIM = "verbatim"
    REFUSE = "refuse"


class Extraction(_Section):
    """What happens to an add with `infer=true`."""

    fallback: Fallback | None = Field(
        None,
        description="Without an LLM: `verbatim` stores the messages as they are and marks them so, `refuse` answers "
        "400. Not set: `verbatim` with the embedded Postgres, `refuse` otherwise.",
    )


class Limits(_Section):
    """Bounds on what one request may carry."""

    message_chars: int = Field(20_000, ge=1, description="Characters in one message or memory; more is 413.")
    messages: int = Field(200, ge=1, description="Messages in one add; more is 413.")
    query_chars: int = Field(4_000, ge=1, description="Characters in a search query; more is 400.")


Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


class Oidc(_Section):
    """Access tokens of one OAuth or OpenID Connect issuer as credentials, beside API keys. Off without an issuer."""

    issuer: SecureUrl | None = Field(None, description="The issuer, exactly as its tokens say in `iss`. Not set: off.")
    audience: str | None = Field(
        None,
        min_length=1,
        description="What a token for the MCP endpoint must have in `aud`. Not set: `server.public_url` with `/mcp`.",
    )
    rest_audience: str | None = Field(
        None,
        min_length=1,
        description="What a token for the REST API must have in `aud`. Not set: `server.public_url`.",
    )
    jwks_url: SecureUrl | None = Field(
        None, description="URL of the issuer's signing keys. Not set: the one that the issuer's metadata names."
    )
    ca_file: Path | None = Field(
        None, description="PEM file of the authority that signed the issuer's certificate. Not set: the public ones."
    )
    timeout: float = Field(5.0, gt=0, le=30, description="Seconds that one request to the issuer may take.")
    algorithms: list[Algorithm] = Field(
        ["RS256", "ES256", "EdDSA"], min_length=1, description="Signature algorithms that are accepted."
    )
    leeway: float = Field(30.0, ge=0, le=300, description="Seconds by which the issuer's clock may differ from ours.")
    tenant_claim: str = Field(
        "tenant", min_length=1, description="Claim with the tenant's name or id; `a.b` reaches into an object."
    )
    user_claim: str = Field(
        "sub",
        min_length=1,
        description="Claim with the user, or a list of users, that the token is bound to; a token without is refused.",
    )
    bind_users: bool = Field(True, description="Off: tokens reach every user of their tenant, whatever they claim.")
    system_claim: str | None = Field(
        None,
        min_length=1,
        description="Claim that is `true` in tokens of system agents: those are bound to no user. Not set: there are "
        "none.",
    )
    scope_claim: str = Field("scope", min_length=1, description="Claim with the scopes: words in a string, or a list.")
    scope_map: dict[str, list[str]] = Field(
        default_factory=dict,
        description="What each scope of the issuer stands for: permissions or roles. Not empty: other scopes grant "
        "nothing. Empty: the scopes are the permissions themselves (`memory:read`).",
    )
    keys_fresh: float = Field(
        300.0, ge=1, le=86_400, description="Seconds after which the signing keys are fetched again, in the background."
    )
    keys_stale: float = Field(
        86_400.0, ge=1, description="Seconds that known signing keys are used while the issuer does not answer."
    )
    refetch_wait: float = Field(
        10.0, ge=0, le=300, description="Least seconds between two requests for signing keys, whatever tokens arrive."
    )


class Auth(_Section):
    """How credentials are checked."""

    cache_seconds: float = Field(
        2.0, ge=0, le=5, description="Seconds that a checked key is trusted; the longest a revoked key goes on."
    )
    oidc: Oidc = Field(default_factory=Oidc)


class History(_Section):
    """What is kept of a memory's past."""

    keep_deleted: bool = Field(
        False, description="Keep the texts in the history of deleted memories. Off: a delete removes them everywhere."
    )


class Queue(_Section):
    """Background work."""

    in_process: bool | None = Field(
        None,
        description="Run the worker inside `serve`. Not set: yes, since the embedded index belongs to one process.",
    )
    concurrency: int = Field(4, ge=1, le=64, description="Jobs that one worker runs at a time.")
    poll_interval: float = Field(1.0, gt=0, le=60, description="Seconds between looks for jobs without a notification.")


class AuditS3(_Section):
    """Checkpoints of the trail into S3-compatible object storage, each object locked against removal."""

    bucket: str | None = Field(None, description="Bucket with object lock, made before. Not set: off.")
    prefix: str = Field("memvault/checkpoints/", description="What the names of the objects begin with.")
    endpoint: str | None = Field(None, description="URL of the storage. Not set: the one of the region at AWS.")
    region: str = Field("us-east-1", description="Region of the bucket.")
    retain_days: int = Field(
        400, ge=1, le=36_500, description="Days that an object is locked (compliance mode) from its writing on."
    )
    access_key_id: SecretStr | None = Field(None, description="Not set: the SDK's own chain of credentials.")
    secret_access_key: SecretStr | None = Field(None, description="Goes with `access_key_id`.")


class AuditSyslog(_Section):
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


class Audit(_Section):
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
        None, description="Days that rows of the trail are kept, 183 or more. Not set: for ever."
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


class Log(_Section):
    """Logs. They never hold memory text, metadata or user ids."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is written.")
    format: Literal["console", "json"] = Field("console", description="`json` writes one object a line.")


class Settings(BaseSettings):
    """All settings. Built by `load_settings`, so that every mistake is one clear line."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    data_dir: Path = Field(Path(".memvault"), description="Folder of the embedded stores, keys and credentials.")
    bootstrap_key: SecretStr | None = Field(
        None, description="Secret of 32 characters or more that is accepted as the admin key of the tenant `default`."
    )
    server: Server = Field(default_factory=Server)
    database: Database = Field(default_factory=Database)
    index: Index = Field(default_factory=Index)
    embeddings: Embeddings = Field(default_factory=Embeddings)
    llm: Llm = Field(default_factory=Llm)
    extraction: Extraction = Field(default_factory=Extraction)
    limits: Limits = Field(default_factory=Limits)
    auth: Auth = Field(default_factory=Auth)
    history: History = Field(default_factory=History)
    queue: Queue = Field(default_factory=Queue)
    audit: Audit = Field(default_factory=Audit)
    log: Log = Field(default_factory=Log)

    @field_validator("bootstrap_key")
    @classmethod
    def _is_long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 32:
            raise ValueError("must have 32 characters or more")
        return value

    @field_validator("auth")
    @classmethod
    def _has_what_tokens_are_for(cls, value: Auth, info: ValidationInfo) -> Auth:
        server = info.data.get("server")
        if value.oidc.issuer is not None and isinstance(server, Server) and server.public_url is None:
            raise ValueError("oidc.issuer needs server.public_url: it is what access tokens are issued for")
        return value

    @property
    def embedded(self) -> bool:
        """Whether Postgres is the embedded one."""
        return self.database.url is None

    @property
    def fallback(self) -> Fallback:
        """What `infer=true` does without an LLM, the default resolved."""
        if self.extraction.fallback is not None:
            return self.extraction.fallback
        return Fallback.VERBATIM if self.embedded else Fallback.REFUSE

    @property
    def worker_in_process(self) -> bool:
        """Whether `serve` runs the worker too, the default resolved."""
        return True if self.queue.in_process is None else self.queue.in_process

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what `load_settings` hands in and nothing else: no `.env` file is read behind the user's back."""
        return (init_settings,)


Overrides = Annotated[Mapping[str, Any], "nested like the settings"]


def load_settings(
    *, config: Path | None = None, environ: Mapping[str, str] | None = None, flags: Overrides | None = None
) -> Settings:
    """Build the settings from a file, the environment and flags, the later ones winning.

    Raises:
        ConfigurationError: naming the setting that is unknown or wrong and where it was given.
    """
    environ = os.environ if environ is None else environ
    layers = [_from_file(config) if config else {}, _from_environment(environ), _pruned(flags or {})]
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merged(merged, layer)
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise ConfigurationError(_one_line(error, config, environ)) from None


def setting_names(section: type[BaseModel] = Settings, prefix: str = "") -> dict[str, Any]:
    """Return every setting by its dotted name with its pydantic field, for the docs and for error messages."""
    names: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            names.update(setting_names(annotation, f"{prefix}{name}."))
        else:
            names[f"{prefix}{name}"] = field
    return names


def _from_file(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"--config {path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigurationError(f"--config {path}: is not valid YAML") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigurationError(f"--config {path}: must be a mapping of settings")
    return raw


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Read `MEMVAULT_…` variables; one that names no setting is an error, since a typing mistake must not pass."""
    known = {f"{ENV_PREFIX}{name.upper().replace('.', '__')}" for name in setting_names()}
    sections = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
    for name in environ:
        if not name.startswith(ENV_PREFIX) or name.startswith(TEST_ENV_PREFIX):
            continue
        nested_free_form = name.startswith((f"{ENV_PREFIX}LLM__CONFIG__", f"{ENV_PREFIX}EMBEDDINGS__CONFIG__"))
        if name not in known and name not in sections and not nested_free_form:
            raise ConfigurationError(f"{name}: there is no such setting; see docs/settings.md")
    source = EnvSettingsSource(Settings, case_sensitive=False)
    source.env_vars = {key.lower(): value for key, value in environ.items()}
    try:
        return source()
    except Exception as error:
        raise ConfigurationError(f"environment: {_first_line(error)}") from None


def _pruned(flags: Overrides) -> dict[str, Any]:
    pruned: dict[str, Any] = {}
    for key, value in flags.items():
        if isinstance(value, Mapping):
            if inner := _pruned(value):
                pruned[key] = inner
        elif value is not None:
            pruned[key] = value
    return pruned


def _merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _one_line(error: ValidationError, config: Path | None, environ: Mapping[str, str]) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    variable = f"{ENV_PREFIX}{name.upper().replace('.', '__')}"
    where = f"environment variable {variable}" if variable in environ else f"in {config}" if config else "flag"
    if first["type"] == "extra_forbidden":
        return f"{name} ({where}): there is no such setting; see docs/settings.md"
    return f"{name} ({where}): {first['msg'].removeprefix('Value error, ')}"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


__all__ = ["Fallback", "Settings", "load_settings", "setting_names"]
