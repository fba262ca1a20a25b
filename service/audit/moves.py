"""Details of the events by which memories and whole installations move: export, import, backup, keys, models."""

from __future__ import annotations

from datetime import date
from enum import StrEnum

from service.audit.codes import ExportPart as ExportPart
from service.audit.codes import ImportSource as ImportSource
from service.audit.detail import Code
from service.audit.details import Detail
from service.audit.events import AuditEvent
from service.storage.tombstones import TombstoneKind


class ExportRequested(Detail):
    """An export was asked for."""

    event = AuditEvent.EXPORT_REQUESTED


class ExportRead(Detail):
    """A part of an export was read, with so many memories."""

    event = AuditEvent.EXPORT_READ
    what: ExportPart
    memories: int


class MemoriesImported(Detail):
    """Memories were imported: how many are new, how many were there already, and steps of history with them.

    `alike`: the new ones are of the same users, agents, apps and runs, and have the same last visible day.
    """

    event = AuditEvent.MEMORIES_IMPORTED
    source: ImportSource
    imported: int
    known: int
    history: int
    alike: bool | None = None
    expires_on: date | None = None


class BackupMade(Detail):
    """The installation was backed up: so many bytes of data, so many files beside the database."""

    event = AuditEvent.BACKUP_MADE
    data_bytes: int
    keyring_files: int


class KeyringKind(StrEnum):
    """Where a keyring is."""

    FOLDER = "folder"
    DATABASE = "database"


class KeyringMoved(Detail):
    """The keyring was copied from one kind of place to another: so many keys and tombstones were not there before."""

    event = AuditEvent.KEYRING_MOVED
    before: KeyringKind
    after: KeyringKind
    keys: int
    tombstones: int


class KeyringRewrapped(Detail):
    """All keys were wrapped by the present wrapping key: how many were wrapped by another."""

    event = AuditEvent.KEYRING_REWRAPPED
    kind: KeyringKind
    keys: int


class EmbedderChanged(Detail):
    """Another embedding model serves: whose it was and is, their dimensions, and how many memories its index got.

    `generation` is the number of the index. Where the provider's name is no code, it is left out.
    """

    event = AuditEvent.EMBEDDER_CHANGED
    before: Code | None
    after: Code | None
    before_dimensions: int | None
    dimensions: int
    generation: int
    memories: int


class TombstoneApplied(Detail):
    """The database was restored to a time before this was done, and it was done again."""

    event = AuditEvent.TOMBSTONE_APPLIED
    kind: TombstoneKind
