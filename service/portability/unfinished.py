"""The note in the data folder that a restore has begun: until one has ended nothing else opens what is there.

A restore that is killed leaves a part of the keys, or no database. A service that began a new installation on them
would sign a trail of its own, and no later restore could tell that one from what was forged.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from service.errors import ConfigurationError, Conflict
from service.storage.embedded.errors import FolderRefused
from service.storage.embedded.locks import FileLock

_FILE: Final = "restore.unfinished"
#: How the folder begins into which a keyring is unpacked, beside its place.
STAGED: Final = ".restore-"


class UnfinishedRestore:
    """The note of one data folder. While a restore is at work it is locked as well."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._lock = FileLock(self._path)

    def begin(self) -> bool:
        """Leave the note, durably, and tell whether one was there: an earlier restore was cut short.

        Raises:
            Conflict: while another restore is at work here.
            ConfigurationError: when it cannot be written.
        """
        again = self._path.exists()
        try:
            if not self._lock.try_acquire():
                raise Conflict(f"data_dir {self._path.parent}: another restore is at work here")
            descriptor = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except FolderRefused as error:
            raise ConfigurationError(str(error)) from None
        except OSError as error:
            raise ConfigurationError(f"{self._path}: cannot be written ({error.strerror})") from None
        return again

    def end(self) -> None:
        """Remove the note: what is there may be opened."""
        self._path.unlink(missing_ok=True)
        self._lock.release()


def refuse_unfinished(folder: Path) -> None:
    """Return unless a restore into this data folder has begun and not ended.

    Raises:
        ConfigurationError: when one has; it says what to do.
    """
    try:
        found = (folder / _FILE).exists()
    except OSError as error:
        raise ConfigurationError(f"data_dir {folder}: cannot be entered ({error.strerror})") from None
    if found:
        raise ConfigurationError(
            f"data_dir {folder}: a restore has begun here and not ended, so that what is there may be a part only; run "
            "`memvault restore` again, with --replace where it asks for it"
        )


def sweep_staged(folder: Path) -> None:
    """Remove the keyrings that killed restores had unpacked: erasures do not reach the keys in them."""
    for left in folder.glob(f"{STAGED}*"):
        shutil.rmtree(left, ignore_errors=True)
