"""Settings of the keyring: in a folder, or in a database of its own."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, field_validator, model_validator

from service.settings.base import Section
from service.settings.secrets import check_database_url, check_wrapping_key


class Keyring(Section):
    """The keys that content is encrypted with, and the tombstones of what was erased."""

    folder: Path | None = Field(
        None,
        description="Folder for `keys/` and `tombstones/`, beside neither database nor index and in no backup of them. "
        "All replicas of one installation need the same one. Not set: the data folder.",
    )
    url: SecretStr | None = Field(
        None,
        description="URL of a Postgres database of its own for keys and tombstones, instead of the folder; its role "
        "owns it. Never the record's database. Not set: the folder.",
    )
    wrapping_key: SecretStr | None = Field(
        None,
        description="What wraps the keys in the database of `keyring.url`: 32 bytes in base64, kept apart from that "
        "database and from its backups; needed there.",
    )
    second_wrapping_key: SecretStr | None = Field(
        None, description="A second one that opens keys as well, while `keyring.wrapping_key` is changed."
    )

    @field_validator("url")
    @classmethod
    def _is_postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_database_url(value.get_secret_value())
        return value

    @field_validator("wrapping_key", "second_wrapping_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_wrapping_key(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> Keyring:
        if self.url is None:
            if self.wrapping_key is not None or self.second_wrapping_key is not None:
                raise ValueError("wrapping_key: wraps the keys in a database, and keyring.url names none")
        elif self.wrapping_key is None:
            raise ValueError(
                "wrapping_key: is needed with keyring.url: make one with `openssl rand -base64 32` and keep it apart "
                "from that database"
            )
        return self
