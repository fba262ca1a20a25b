"""Restore: what is outside the database first, never going back, then the database from its dump."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.errors import ConfigurationError, Conflict
from service.portability.archives import KEYS, Archive, unpack
from service.storage.keyring import adopt
from service.storage.tombstones import Tombstones

KEYS_FOLDER: Final = "keys"
TOMBSTONES: Final = "tombstones"


@dataclass(frozen=True, slots=True)
class Outside:
    """What came back beside the database: keys that were missing, tombstones that the journal lacked."""

    keys: int
    tombstones: int


def restore_outside(archive: Archive, folders: Mapping[str, Path], tombstones: Tombstones) -> Outside:
    """Bring back the keyring, the journal of tombstones and the other folders, as far as they are not there.

    Nothing that is there goes back: a key that was destroyed since stays destroyed, and so does one that the archive
    knows to be destroyed.

    Raises:
        Conflict: when the keyring that is there is another installation's.
    """
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=folders[KEYS_FOLDER].parent) as place:
        unpacked = Path(place)
        unpack(archive.file(KEYS), unpacked)
        if not (unpacked / KEYS_FOLDER / "master.key").exists():
            raise ConfigurationError(f"{archive.folder}: holds no keyring")
        keys = adopt(unpacked / KEYS_FOLDER, folders[KEYS_FOLDER])
        before = {one.id for one in tombstones.all()}
        added = [one for one in Tombstones(unpacked / TOMBSTONES).all() if one.id not in before]
        for tombstone in added:
            tombstones.add(tombstone)
        for name, folder in folders.items():
            if name not in (KEYS_FOLDER, TOMBSTONES) and (unpacked / name).is_dir() and not _has_files(folder):
                shutil.copytree(unpacked / name, folder, dirs_exist_ok=True)
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
