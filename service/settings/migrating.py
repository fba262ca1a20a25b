"""Settings of migrations: how long they wait for locks, for statements and for each other."""

from __future__ import annotations

from pydantic import Field

from service.settings.base import Section


class Migration(Section):
    """Changes of the schema, by `memvault migrate` and by a start with the embedded Postgres."""

    lock_timeout: float = Field(
        5.0,
        ge=0.1,
        le=600,
        description="Seconds that a migration waits for a lock on a table; while it waits, others wait behind it.",
    )
    lock_attempts: int = Field(
        6, ge=1, le=100, description="Tries of a migration that gets no lock, with growing pauses, before it gives up."
    )
    statement_timeout: float = Field(
        1800.0, ge=0.1, le=86_400, description="Seconds that one statement of a migration may take."
    )
    wait: float = Field(
        300.0, ge=0, le=86_400, description="Seconds that a migrator waits for another one to end before it gives up."
    )
