"""Settings of Qdrant, the index: embedded in the data folder, or a server or cluster."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import Field, SecretStr, model_validator

from service.settings.base import Section, is_loopback
from service.settings.languages import Language


class Quantization(StrEnum):
    """How vectors are kept in memory on a server."""

    NONE = "none"
    SCALAR = "scalar"
    BINARY = "binary"


class Index(Section):
    """Qdrant, the index."""

    url: str | None = Field(
        None,
        description="URL of a Qdrant server or cluster. Not set: Qdrant Edge in the data folder, for one process.",
    )
    api_key: SecretStr | None = Field(
        None, description="Key of the Qdrant server; needed except on this machine. Give it by environment."
    )
    ca_file: Path | None = Field(None, description="Certificates of the authority that the server's are checked by.")
    grpc_port: int | None = Field(
        6334, ge=1, le=65535, description="Port of the server's gRPC interface; `null` speaks HTTP only."
    )
    trusted_network: bool = Field(
        False,
        description="Allows `http://` to another machine: only where the network itself is encrypted or closed, as "
        "inside a cluster with network policies.",
    )
    timeout: float = Field(5.0, ge=1, le=60, description="Seconds that one call of the server may take.")
    collection: str = Field(
        "memvault",
        pattern=r"^[a-z][a-z0-9_]{0,40}$",
        description="Beginning of the names of the collection and its aliases on the server.",
    )
    shards: int = Field(
        1, ge=1, le=1000, description="Shards of the collection on a cluster, or of each of its shard keys."
    )
    shard_keys: int = Field(
        0,
        ge=0,
        le=1000,
        description="Shard keys that the tenants are dealt to on a cluster, each with `shards` shards, so that a "
        "search asks those of one key; 0 spreads each tenant over all shards. A change needs `memvault index rebuild`.",
    )
    replicas: int = Field(1, ge=1, le=20, description="Copies of each shard on a cluster.")
    write_consistency: int = Field(1, ge=1, le=20, description="Copies that a write waits for.")
    quantization: Quantization = Field(
        Quantization.SCALAR,
        description="`scalar` keeps vectors in one byte a number as well, which a server scans in memory, `binary` in "
        "one bit (models of 1024 numbers and more); what they find is compared again by the full vectors.",
    )
    on_disk: bool = Field(False, description="Keep the full vectors on the server's disk and not in its memory.")
    language: Language = Field(
        Language.ENGLISH,
        description="Language of the words of tenants that have no language of their own (`memvault tenant language`); "
        "after a change run `memvault index rebuild`.",
    )
    maintenance_interval: float = Field(
        30.0, ge=1, description="Seconds between looks at whether the index wants optimising."
    )

    @model_validator(mode="after")
    def _is_not_open(self) -> Index:
        if self.url is None:
            return self
        scheme, _, rest = self.url.partition("://")
        host = rest.partition("/")[0]
        if scheme not in ("http", "https") or not host or "@" in host or "?" in rest or "#" in rest:
            raise ValueError("url: must be an http:// or https:// URL with a host and no user name or query")
        name = host.rsplit(":", 1)[0].strip("[]")
        if is_loopback(name):
            return self
        if self.api_key is None:
            raise ValueError(
                "api_key: is needed, or whoever reaches the Qdrant server reads and changes the index of all tenants; "
                "set QDRANT__SERVICE__API_KEY on the server and MEMVAULT_INDEX__API_KEY here"
            )
        if len(self.api_key.get_secret_value()) < 32:
            raise ValueError("api_key: must have 32 characters or more")
        if scheme == "http" and not self.trusted_network:
            raise ValueError(
                "url: must be https://, for the key and the vectors would cross the network in the open; set "
                "index.trusted_network only where the network itself is closed"
            )
        return self
