"""Details of the events by which memories and whole installations move: export, import, backup, restore."""

from __future__ import annotations

from service.audit.codes import ExportPart as ExportPart
from service.audit.codes import ImportSource as ImportSource
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
    """Memories were imported: how many are new, how many were there already, and steps of history with them."""

    event = AuditEvent.MEMORIES_IMPORTED
    source: ImportSource
    imported: int
    known: int
    history: int


class BackupMade(Detail):
    """The installation was backed up: so many bytes of data, so many files beside the database."""

    event = AuditEvent.BACKUP_MADE
    data_bytes: int
    keyring_files: int


class TombstoneApplied(Detail):
    """The database was restored to a time before this was done, and it was done again."""

    event = AuditEvent.TOMBSTONE_APPLIED
    kind: TombstoneKind
