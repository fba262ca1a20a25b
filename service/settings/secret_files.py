"""Reads settings from a folder of files, one a setting: how orchestrators hand secrets to a process."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from service.errors import ConfigurationError

#: Bytes of the largest file that is read; a key or a URL has some hundred.
_LARGEST: Final = 64 * 1024


def read_secret_files(folder: Path, is_setting: Callable[[str], bool]) -> dict[str, str]:
    """Return what the files of a folder hold, each by the environment variable it is named after.

    `is_setting` tells such names; capitals do not matter. Folders, hidden files (the links by which Kubernetes
    changes all files at once) and files with a dot in their name (a certificate, a key in PEM) are left alone.

    Raises:
        ConfigurationError: for a file that names no setting, that everyone can read or that this user cannot, and for
            one that is empty. What is in a file is never said.
    """
    try:
        files = sorted(path for path in folder.iterdir() if "." not in path.name and not path.is_dir())
    except OSError as error:
        raise ConfigurationError(f"secrets_dir {folder}: cannot be read ({error.strerror})") from None
    found: dict[str, str] = {}
    for path in files:
        name = path.name.upper()
        if not is_setting(name):
            raise ConfigurationError(f"{path}: there is no such setting; see docs/settings.md")
        if name in found:
            raise ConfigurationError(f"{path}: the same setting is in another file of this folder too; remove one")
        found[name] = _read(path)
    return found


def _read(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise ConfigurationError(f"{path}: is not a file")
            if state.st_mode & 0o007:
                raise ConfigurationError(
                    f"{path}: everyone can read it: give it mode 0600, or 0440 (`defaultMode`, `mode`) where it is "
                    "mounted"
                )
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read by the user {os.geteuid()} ({error.strerror}); give it to that user or its group"
        ) from None
    if len(content) > _LARGEST:
        raise ConfigurationError(f"{path}: is larger than {_LARGEST} bytes, which no setting is")
    try:
        text = content.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: is not text in UTF-8") from None
    if not text:
        raise ConfigurationError(f"{path}: is empty; remove it if the setting is not meant to be set")
    return text
