"""The tree of all settings, nested by owner."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from service.settings.base import Cron, Section, SecureUrl
from service.settings.credentials import Auth
from service.settings.forgetting import Erasure
from service.settings.keeping import Retention
from service.settings.keys import Keyring
from service.settings.migrating import Migration
from service.settings.qdrant import Index
from service.settings.quotas import Quotas
from service.settings.secrets import check_database_url, check_key, same_database
from service.settings.trail import Audit
from service.settings.watching import Metrics, Telemetry
from service.settings.webhooks import Webhooks

ENV_PREFIX: Final = "MEMVAULT_"
#: Messages that one add may be allowed to have: where the shape is checked, each wrong one costs a kilobyte.
MOST_MESSAGES: Final = 10_000


class Server(Section):
    """The HTTP server."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    public_url: SecureUrl | None = Field(
        None,
        description="URL at which clients reach the service, for instance `https://memory.example.com`. The URLs of "
        "other pages in lists (`next`, `previous`) begin with it; not set, they are paths. Needed for access tokens "
        "(`auth.oidc.issuer`): it is what they are issued for.",
    )
    threads: int = Field(16, ge=2, le=256, description="Threads that run the actions; the bound on concurrent work.")
    body_limit: int = Field(4 * 1024 * 1024, ge=1024, description="Largest request body in bytes; more is 413.")
    body_seconds: float = Field(
        30.0, ge=0.1, le=3600, description="Seconds within which the body of a request must have arrived; else 408."
    )
    answer_seconds: float = Field(
        60.0,
        ge=0.1,
        le=3600,
        description="Seconds within which an answer must have begun, beside `server.event_wait`; else 503. What was to "
        "be written may still be written.",
    )
    drain_seconds: float = Field(
        0.0,
        ge=0,
        le=600,
        description="Seconds that requests are still served after SIGTERM, while `/readyz` answers 503 `draining`. "
        "Behind a load balancer: longer than it takes to notice. A second signal ends it.",
    )
    grace_seconds: float = Field(
        10.0, ge=0, le=600, description="Seconds that requests under way may then take to end before they are cut off."
    )
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


class Database(Section):
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
    backup_url: SecretStr | None = Field(
        None,
        description="URL of a role that reads past row-level security (`BYPASSRLS` or a superuser), for `memvault "
        "backup` only; needed there when `database.url` is set.",
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

    @field_validator("url", "owner_url", "maintenance_url", "backup_url")
    @classmethod
    def _is_postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_database_url(value.get_secret_value())
        return value


class Embeddings(Section):
    """The embedding model. `memvault index rebuild --embedder …` brings another one in; until then the old serves."""

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
    timeout: float = Field(
        30.0,
        gt=0,
        le=600,
        description="Seconds that one call of a provider may take; an import and a change of the model embed up to 100 "
        "texts by one.",
    )
    folder: Path | None = Field(
        None,
        description="Folder with the graph of `minilm`, written when it is missing (90 MB); may be read-only when "
        "`memvault model` wrote it. Not set: `model` in the data folder.",
    )
    threads: int = Field(0, ge=0, le=64, description="Threads of `minilm`; 0 is one for each core.")
    batch_queries: int = Field(
        0, ge=0, le=512, description="Most concurrent queries that are embedded in one run; 0 embeds each by itself."
    )


class Llm(Section):
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
    input_cost: float = Field(
        0.0, ge=0, description="Cost units, in a unit of yours, of a million tokens that the model reads; for metrics."
    )
    output_cost: float = Field(0.0, ge=0, description="The same of a million tokens that it writes.")
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


class Extraction(Section):
    """What happens to an add with `infer=true`."""

    fallback: Fallback | None = Field(
        None,
        description="Without an LLM: `verbatim` stores the messages as they are and marks them so, `refuse` answers "
        "400. Not set: `verbatim` with the embedded Postgres, `refuse` otherwise.",
    )


class Limits(Section):
    """Bounds on what one request may carry."""

    message_chars: int = Field(20_000, ge=1, description="Characters in one message or memory; more is 413.")
    messages: int = Field(200, ge=1, le=MOST_MESSAGES, description="Messages in one add; more is 413.")
    query_chars: int = Field(4_000, ge=1, description="Characters in a search query; more is 400.")


class Duplicates(Section):
    """What is taken for the same memory."""

    similarity: float | None = Field(
        0.9,
        ge=0.5,
        le=1,
        description="Least cosine of the vectors with which an add is not stored again that differs from a memory in "
        "punctuation and needless words only. Spaces, a full stop and case, but that of codes and units, never make "
        "another memory. `null` or `off`: only an identical add is not stored again.",
    )

    look: Cron | None = Field(
        None,
        description="When each tenant is looked through for memories that say the same, as cron says it (UTC); what is "
        "found is proposed, see `memvault consolidate`. Not set, empty, `null` or `off`: never.",
    )
    questions: int = Field(
        20,
        ge=0,
        le=1000,
        description="With an LLM: most questions to it about one tenant in one look, of up to 30 memories each, which "
        "of them a newer one makes untrue. They count as its calls (`quotas.llm_calls_per_day`). 0: no memory is shown "
        "to the LLM for it.",
    )

    @field_validator("similarity", mode="before")
    @classmethod
    def _may_be_off(cls, value: Any) -> Any:
        # An unquoted `off` is False in YAML.
        return None if value is False or value in ("off", "null") else value

    @field_validator("look", mode="before")
    @classmethod
    def _may_be_never(cls, value: Any) -> Any:
        return None if value == "" else cls._may_be_off(value)


class History(Section):
    """What is kept of a memory's past."""

    keep_deleted: bool = Field(
        False, description="Keep the texts in the history of deleted memories. Off: a delete removes them everywhere."
    )


class Queue(Section):
    """Background work."""

    in_process: bool | None = Field(
        None,
        description="Run the worker inside `serve`. Not set: yes, since the embedded index belongs to one process.",
    )
    concurrency: int = Field(4, ge=1, le=64, description="Jobs that one worker runs at a time.")
    stalled_seconds: float = Field(
        30.0,
        ge=3,
        le=3600,
        description="Seconds without a sign of life after which a worker is taken for dead and its jobs are given to "
        "another.",
    )
    stop_seconds: float = Field(
        10.0,
        ge=0,
        le=600,
        description="Seconds that jobs under way may take to end when the worker is stopped; then they go back to the "
        "queue, for the next worker.",
    )
    poll_interval: float = Field(1.0, gt=0, le=60, description="Seconds between looks for jobs without a notification.")


class Log(Section):
    """Logs. They never hold memory text, metadata or user ids."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is written.")
    format: Literal["console", "json"] = Field("console", description="`json` writes one object a line.")


class Settings(BaseSettings):
    """All settings. Built by `load_settings`, so that every mistake is one clear line."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    data_dir: Path = Field(Path(".memvault"), description="Folder of the embedded stores, keys and credentials.")
    secrets_dir: Path | None = Field(
        None,
        description="Folder with a file for each secret (or any other setting), named as its environment variable: "
        "`MEMVAULT_DATABASE__URL`. What everyone can read is refused.",
    )
    bootstrap_key: SecretStr | None = Field(
        None, description="Secret of 32 characters or more that is accepted as the admin key of the tenant `default`."
    )
    server: Server = Field(default_factory=Server)
    database: Database = Field(default_factory=Database)
    migration: Migration = Field(default_factory=Migration)
    keyring: Keyring = Field(default_factory=Keyring)
    index: Index = Field(default_factory=Index)
    embeddings: Embeddings = Field(default_factory=Embeddings)
    llm: Llm = Field(default_factory=Llm)
    extraction: Extraction = Field(default_factory=Extraction)
    limits: Limits = Field(default_factory=Limits)
    quotas: Quotas = Field(default_factory=Quotas)
    auth: Auth = Field(default_factory=Auth)
    duplicates: Duplicates = Field(default_factory=Duplicates)
    history: History = Field(default_factory=History)
    erasure: Erasure = Field(default_factory=Erasure)
    retention: Retention = Field(default_factory=Retention)
    queue: Queue = Field(default_factory=Queue)
    audit: Audit = Field(default_factory=Audit)
    webhooks: Webhooks = Field(default_factory=Webhooks)
    log: Log = Field(default_factory=Log)
    metrics: Metrics = Field(default_factory=Metrics)
    telemetry: Telemetry = Field(default_factory=Telemetry)

    @field_validator("bootstrap_key")
    @classmethod
    def _is_long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_key(value.get_secret_value())
        return value

    @field_validator("keyring")
    @classmethod
    def _is_apart(cls, value: Keyring, info: ValidationInfo) -> Keyring:
        database = info.data.get("database")
        if value.url is None or not isinstance(database, Database):
            return value
        ours = value.url.get_secret_value()
        for one in (database.url, database.owner_url, database.maintenance_url, database.backup_url):
            if one is not None and same_database(one.get_secret_value(), ours):
                raise ValueError(
                    "url: names the database of the record; the keys need a database of their own, with backups of "
                    "their own, or every backup of the data holds the keys to it"
                )
        return value

    @field_validator("auth")
    @classmethod
    def _has_what_tokens_are_for(cls, value: Auth, info: ValidationInfo) -> Auth:
        server = info.data.get("server")
        if value.oidc.issuer is not None and isinstance(server, Server) and server.public_url is None:
            raise ValueError("oidc.issuer needs server.public_url: it is what access tokens are issued for")
        return value

    @property
    def keys_folder(self) -> Path:
        """Where the keys are, the default resolved."""
        return (self.keyring.folder or self.data_dir) / "keys"

    @property
    def tombstones_folder(self) -> Path:
        """Where the tombstones are, the default resolved."""
        return (self.keyring.folder or self.data_dir) / "tombstones"

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
