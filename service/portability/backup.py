"""Backup: a consistent dump of the database, and apart from it the keyring with what is kept outside the database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from service import clock
from service.audit.events import AuditEvent
from service.audit.moves import BackupMade
from service.audit.trail import Trail
from service.portability.archives import DATA, DUMP, KEYRING, KEYS, Archive, finish, make_folder, pack
from service.scope import SYSTEM_TENANT, installation_caller
from service.storage.database import Database
from service.storage.dumping import dump

#: Told the name of the archive and how far it is.
Progress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class BackedUp:
    """What was written."""

    data: Archive
    keyring: Archive
    keyring_files: int


def back_up(
    dsn: str,
    database: Database,
    trail: Trail,
    outside: Callable[[Path], Mapping[str, Path]],
    *,
    data: Path,
    keyring: Path,
    schema: str,
    progress: Progress = lambda archive, done: None,
) -> BackedUp:
    """Write both archives, while the service runs.

    `dsn` is of a role that reads everything. `outside` returns the folders with what is beside the database, by name,
    some written into the folder that it is given, which goes afterwards. The keyring comes
    second: a person's key is made before the first row, so that it opens all of the dump, but for the erased.

    Raises:
        Conflict: when a folder is not empty.
        ConfigurationError: when the role may not read everything.
    """
    make_folder(data)
    make_folder(keyring)
    about = {"made_at": clock.now().isoformat(), "schema": schema}
    dump(dsn, data / DUMP, progress=lambda size: progress(DATA, size))
    dumped = finish(data, DATA, about, [DUMP])
    with TemporaryDirectory(prefix=".staged-", dir=keyring) as staged:
        present = {name: folder for name, folder in outside(Path(staged)).items() if folder.is_dir()}
        count = pack(keyring / KEYS, present, progress=lambda files: progress(KEYRING, files))
    packed = finish(keyring, KEYRING, about, [KEYS])
    caller = installation_caller(SYSTEM_TENANT)
    with database.transaction(caller.scope) as connection:
        detail = BackupMade(data_bytes=dumped.size, keyring_files=count)
        trail.write(connection, caller, AuditEvent.BACKUP_MADE, detail=detail)
    return BackedUp(dumped, packed, count)
