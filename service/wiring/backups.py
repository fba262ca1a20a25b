"""Puts together what backs an installation up and what restores one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service.audit.assembly import checkpoint_folder
from service.errors import ConfigurationError, Conflict
from service.portability.archives import DATA, DUMP, KEYRING, Archive, verified
from service.portability.backup import BackedUp, Progress, back_up
from service.portability.restore import KEYS_FOLDER, ROWS_FOLDER, TOMBSTONES, Outside, restore_outside
from service.portability.unfinished import UnfinishedRestore
from service.settings import Settings
from service.storage.dumping import restore
from service.storage.keyring_copies import take_in, write_journal, write_keys
from service.storage.tombstones import FileTombstones
from service.wiring.embedding import index_folders, refuse_served
from service.wiring.keys import open_database_keys
from service.wiring.reaching import prepare_data_dir

if TYPE_CHECKING:
    from service.wiring import Connections, Installation


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore brought back before the database was opened, and the note to take away once it is settled."""

    outside: Outside
    data_bytes: int
    note: UnfinishedRestore


def make_backup(
    installation: Installation,
    *,
    data: Path,
    keyring: Path,
    schema: str,
    progress: Progress = lambda archive, done: None,
) -> BackedUp:
    """Back the installation up into two folders, while it runs.

    Raises:
        ConfigurationError: when no role is configured that reads everything.
    """
    dsn = installation.connections.backup_dsn
    if dsn is None:
        raise ConfigurationError(
            "database.backup_url: is needed to back up the database of database.url: a role with BYPASSRLS, since"
            " row-level security binds the owner too"
        )
    return back_up(
        dsn,
        installation.database,
        installation.trail,
        partial(_staged, installation.settings),
        data=data,
        keyring=keyring,
        schema=schema,
        progress=progress,
    )


def restore_backup(
    settings: Settings,
    reach: Callable[[Settings, ExitStack], Connections],
    *,
    data: Path,
    keyring: Path,
    replace: bool,
    progress: Progress = lambda archive, done: None,
) -> Restored:
    """Put a backup in place: verify both archives, then the keyring, then the database.

    Raises:
        ConfigurationError: for an archive that is not what was written, a database that does not answer, and one that
            no role is configured to fill; with nothing touched.
        Conflict: when there is a database already and `replace` does not say to drop it, the keyring is another's, or
            another restore is at work.
    """
    dumped = verified(data, DATA)
    packed = verified(keyring, KEYRING)
    _refuse_running(settings)
    prepare_data_dir(settings.data_dir)
    note = UnfinishedRestore(settings.data_dir)
    again = note.begin()
    with ExitStack() as stack:
        try:
            connections = reach(settings, stack)
            full = _check_place(settings, connections, replace=replace)
            outside = _restore_outside(settings, packed, stack)
        except (Conflict, ConfigurationError):
            # Nothing was changed.
            if not again:
                note.end()
            raise
        # One that was killed may have left a program that fills the database still.
        if full or (again and settings.embedded):
            _drop(connections)
    with ExitStack() as stack:
        connections = reach(settings, stack)
        if settings.embedded and connections.backup_dsn is not None:
            restore(connections.backup_dsn, dumped.file(DUMP), owner=True, progress=lambda n: progress(DATA, n))
        elif connections.owner_dsn is not None:
            restore(connections.owner_dsn, dumped.file(DUMP), owner=False, progress=lambda n: progress(DATA, n))
    # The index is made again from the record.
    for folder in index_folders(settings.data_dir):
        shutil.rmtree(folder, ignore_errors=True)
    return Restored(outside, dumped.size, note)


def _check_place(settings: Settings, connections: Connections, *, replace: bool) -> bool:
    """Return whether there is a database to drop, where it may be dropped."""
    full = _has_schema(connections)
    if full and not (replace and settings.embedded):
        raise Conflict(
            "the database holds an installation already; say --replace to drop it"
            if settings.embedded
            else "database.url: the database holds an installation already; restore into an empty database"
        )
    if not settings.embedded and connections.owner_dsn is None:
        raise ConfigurationError("database.owner_url: is needed to restore into the database of database.url")
    return full


def _restore_outside(settings: Settings, packed: Archive, stack: ExitStack) -> Outside:
    if settings.keyring.url is None:
        return restore_outside(packed, outside_folders(settings), FileTombstones(settings.tombstones_folder))
    keys = open_database_keys(settings, stack)
    take = partial(take_in, keys.keyring, keys.database)
    return restore_outside(packed, outside_folders(settings), keys.tombstones, take)


def outside_folders(settings: Settings) -> dict[str, Path]:
    """Return what is kept beside the database, by the names in the archive."""
    folders = {KEYS_FOLDER: settings.keys_folder, TOMBSTONES: settings.tombstones_folder}
    checkpoints = checkpoint_folder(settings)
    return folders if checkpoints is None else folders | {"checkpoints": checkpoints}


def _staged(settings: Settings, place: Path) -> dict[str, Path]:
    """Return the folders of a backup's keyring; what is in a database is written into folders of the place."""
    folders = outside_folders(settings)
    if settings.keyring.url is None:
        return folders
    with ExitStack() as stack:
        keys = open_database_keys(settings, stack)
        # The keys first: what is erased meanwhile is in the journal, and is erased again.
        write_keys(keys.database, place / ROWS_FOLDER)
        write_journal(keys.tombstones, place / TOMBSTONES)
    return folders | {ROWS_FOLDER: place / ROWS_FOLDER, TOMBSTONES: place / TOMBSTONES}


def _refuse_running(settings: Settings) -> None:
    """Return unless a process serves this folder: the index belongs to it.

    Raises:
        IndexLocked: when one does.
    """
    if settings.index.url is None:
        refuse_served(settings.data_dir)


def _has_schema(connections: Connections) -> bool:
    try:
        with psycopg.connect(connections.app_dsn, connect_timeout=10) as connection:
            row = connection.execute("SELECT to_regclass('public.tenants') IS NOT NULL").fetchone()
    except psycopg.OperationalError:
        raise ConfigurationError(
            "database.url: does not answer; check host, port, database, user and password"
        ) from None
    return bool(row and row[0])


def _drop(connections: Connections) -> None:
    if connections.backup_dsn is None:
        raise ConfigurationError("database.backup_url: is needed to replace the database")
    name = str(conninfo_to_dict(connections.backup_dsn)["dbname"])
    with psycopg.connect(make_conninfo(connections.backup_dsn, dbname="postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
