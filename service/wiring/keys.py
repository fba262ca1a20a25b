"""Puts together the keyring and the journal of tombstones: in folders, or in a database of their own."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from service.errors import ConfigurationError
from service.settings import Settings
from service.storage.keyring import FileKeyring, Keyring
from service.storage.keyring_copies import move_in
from service.storage.keyring_database import KeyringDatabase
from service.storage.keyring_rows import DatabaseKeyring
from service.storage.tombstones import FileTombstones, Tombstones
from service.storage.tombstones_rows import DatabaseTombstones
from service.storage.wrapping import WrappingKey, WrappingKeys


@dataclass(frozen=True, slots=True)
class DatabaseKeys:
    """A keyring in a database, with what only such a one can."""

    database: KeyringDatabase
    keyring: DatabaseKeyring
    tombstones: DatabaseTombstones


@dataclass(frozen=True, slots=True)
class Moved:
    """What was taken over: keys and tombstones that were not there."""

    keys: int
    tombstones: int


def open_keys(settings: Settings, stack: ExitStack) -> tuple[Keyring, Tombstones]:
    """Return the keyring and the journal.

    Raises:
        ConfigurationError: when they cannot be used, or the wrapping key is another one's.
    """
    if settings.keyring.url is None:
        return FileKeyring(settings.keys_folder), FileTombstones(settings.tombstones_folder)
    keys = open_database_keys(settings, stack)
    return keys.keyring, keys.tombstones


def open_database_keys(settings: Settings, stack: ExitStack) -> DatabaseKeys:
    """Return the keyring in a database; else as `open_keys`, and also without one."""
    chosen = settings.keyring
    if chosen.url is None or chosen.wrapping_key is None:
        raise ConfigurationError("keyring.url: is not set: the keyring is in a folder")
    database = KeyringDatabase(chosen.url.get_secret_value())
    stack.callback(database.close)
    second = chosen.second_wrapping_key
    wrapping = WrappingKeys(
        WrappingKey.of(chosen.wrapping_key.get_secret_value()),
        None if second is None else WrappingKey.of(second.get_secret_value()),
    )
    return DatabaseKeys(database, DatabaseKeyring(database, wrapping), DatabaseTombstones(database))


def rewrap_keys(settings: Settings) -> int:
    """Wrap all keys by the present wrapping key and return how many were wrapped by another."""
    with ExitStack() as stack:
        return open_database_keys(settings, stack).keyring.rewrap()


def move_keys(settings: Settings) -> Moved:
    """Take the keys and the journal over from the folders in which they are without `keyring.url`. Nothing is removed.

    Raises:
        ConfigurationError: when there is no keyring in the folder, or no database to move to.
    """
    if not (settings.keys_folder / "master.key").exists():
        raise ConfigurationError(f"{settings.keys_folder}: holds no keyring (no master.key); name its data folder")
    with ExitStack() as stack:
        keys = open_database_keys(settings, stack)
        # The journal first: an erasure must not be known later than the key that it destroyed.
        known = {one.id for one in keys.tombstones.all()}
        added = [one for one in FileTombstones(settings.tombstones_folder).all() if one.id not in known]
        for tombstone in added:
            keys.tombstones.add(tombstone)
        return Moved(move_in(keys.keyring, keys.database, FileKeyring(settings.keys_folder)), len(added))
