"""Restore: what is outside the database first, never going back, then the database from its dump."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.errors import ConfigurationError, Conflict
from service.portability.archives import KEYS, Archive, unpack
from service.portability.unfinished import STAGED, sweep_staged
from service.storage.keyring import adopt
from service.storage.tombstones import FileTombstones, Tombstones

KEYS_FOLDER: Final = "keys"
#: The keys of a keyring in a database.
ROWS_FOLDER: Final = "keyring-database"
TOMBSTONES: Final = "tombstones"


@dataclass(frozen=True, slots=True)
class Outside:
    """What came back beside the database: keys that were missing, tombstones that the journal lacked."""

    keys: int
    tombstones: int


def restore_outside(
    archive: Archive, folders: Mapping[str, Path], tombstones: Tombstones, take_in: Callable[[Path], int] | None = None
) -> Outside:
    """Bring back the keyring, the journal of tombstones and the other folders, as far as they are not there.

    The keyring goes to its folder or, with `take_in`, from the folder that this is given into its database.

    Nothing that is there goes back: a key that was destroyed since stays destroyed, and so does one that the archive
    knows to be destroyed.

    Raises:
        Conflict: when the keyring that is there is another installation's.
        ConfigurationError: when the archive's keyring is of the other kind, or wrapped by another key.
    """
    beside = folders[KEYS_FOLDER].parent
    beside.mkdir(mode=0o711, parents=True, exist_ok=True)
    sweep_staged(beside)
    with tempfile.TemporaryDirectory(prefix=STAGED, dir=beside) as place:
        unpacked = Path(place)
        unpack(archive.file(KEYS), unpacked)
        of_files, of_rows = (unpacked / KEYS_FOLDER / "master.key").exists(), (unpacked / ROWS_FOLDER).is_dir()
        if not of_files and not of_rows:
            raise ConfigurationError(f"{archive.folder}: holds no keyring")
        if of_rows != (take_in is not None):
            kind, setting = ("a database", "set") if of_rows else ("a folder", "do not set")
            raise ConfigurationError(
                f"keyring.url: the keyring of this backup is one in {kind}; {setting} it to restore"
            )
        others = set(folders) - {KEYS_FOLDER, TOMBSTONES}
        if take_in is None:
            keys = adopt(unpacked / KEYS_FOLDER, folders[KEYS_FOLDER])
        else:
            keys = take_in(unpacked / ROWS_FOLDER)
            # What else is in that folder: the key that signs the trail of an embedded installation.
            others |= {KEYS_FOLDER}
        before = {one.id for one in tombstones.all()}
        added = [one for one in FileTombstones(unpacked / TOMBSTONES).all() if one.id not in before]
        for tombstone in added:
            tombstones.add(tombstone)
        for name in others:
            if (unpacked / name).is_dir() and not _has_files(folders[name]):
                shutil.copytree(unpacked / name, folders[name], dirs_exist_ok=True)
    return Outside(keys, len(added))


def refuse_full(places: Mapping[str, Path]) -> None:
    """Return if nothing is at any of the places.

    Raises:
        Conflict: naming the first that is not empty.
    """
    for path in places.values():
        if _has_files(path):
            raise Conflict(f"{path}: is there already; restore into an empty place, or say --replace")


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(path.is_file() for path in folder.rglob("*"))
