"""Settings of forgetting on purpose."""

from __future__ import annotations

from pydantic import Field

from service.settings.base import Section


class Erasure(Section):
    """Erasures of persons, connectors and tenants."""

    physical_delay: float = Field(
        5.0,
        ge=0,
        le=86_400,
        description="Seconds between the removal of the rows and the physical pass; erasures in between share one.",
    )
    lock_timeout: float = Field(
        1.0,
        gt=0,
        le=600,
        description="Seconds that the physical pass waits for a table, while others wait behind it; then it lets go "
        "and tries again later.",
    )
    backup_days: int | None = Field(
        None,
        ge=0,
        le=36_500,
        description="Days that backups of the data live. Receipts say until when. Not set: they cannot.",
    )
    keyring_backup_days: int | None = Field(
        None,
        ge=0,
        le=36_500,
        description="Days that backups of the keyring live. Receipts say until when. Not set: they cannot.",
    )
