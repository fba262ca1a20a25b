"""A backup's two archives, each a folder with a manifest of checksums: the data, and apart from it the keyring."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import orjson

from service.errors import ConfigurationError, Conflict

FORMAT: Final = "memvault-backup-1"
DATA: Final = "data"
KEYRING: Final = "keyring"
DUMP: Final = "database.dump"
KEYS: Final = "keyring.tar"
MANIFEST: Final = "manifest.json"
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive whose files are what was written."""

    folder: Path
    about: Mapping[str, Any]
    size: int

    def file(self, name: str) -> Path:
        """Return the path of one of its files."""
        return self.folder / name


def make_folder(folder: Path) -> None:
    """Make the folder of a new archive.

    Raises:
        Conflict: when there is something in it.
        ConfigurationError: when it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise Conflict(f"{folder}: is not empty; name a new folder")
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(f"{folder}: cannot be made ({error.strerror})") from None


def finish(folder: Path, kind: str, about: Mapping[str, Any], names: Sequence[str]) -> Archive:
    """Write the manifest, last of all: an archive without it is unfinished."""
    files = [{"name": name, "bytes": (folder / name).stat().st_size, "sha256": digest(folder / name)} for name in names]
    document = {"format": FORMAT, "kind": kind, **about, "files": files}
    write_durably(folder / MANIFEST, orjson.dumps(document, option=orjson.OPT_INDENT_2))
    return Archive(folder, document, sum((folder / name).stat().st_size for name in names))


def verified(folder: Path, kind: str, *, progress: Callable[[int], None] = lambda bytes_: None) -> Archive:
    """Return an archive once all of its files are what was written. Nothing is changed.

    Raises:
        ConfigurationError: when it is none, is unfinished or damaged, naming the file.
    """
    try:
        about: Any = orjson.loads((folder / MANIFEST).read_bytes())
        if about["format"] != FORMAT or about["kind"] != kind:
            raise ConfigurationError(f"{folder}: is no {kind} archive of the format {FORMAT}")
        size = 0
        for file in about["files"]:
            path = folder / Path(file["name"]).name
            if path.stat().st_size != file["bytes"] or digest(path, progress=progress) != file["sha256"]:
                raise ConfigurationError(f"{path}: is not what was written: its checksum differs from the manifest's")
            size += int(file["bytes"])
    except FileNotFoundError as error:
        raise ConfigurationError(f"{error.filename}: is missing; the {kind} archive is unfinished or another") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{folder}: is no {kind} archive ({type(error).__name__})") from None
    return Archive(folder, about, size)


def pack(tar: Path, folders: Mapping[str, Path], *, progress: Callable[[int], None]) -> int:
    """Pack folders under the names given into a file of mode 0600; return how many files.

    They may be in use: files appear and change whole. One that is gone by the time it is read is left out.
    """
    count = 0
    descriptor = os.open(tar, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out, tarfile.open(fileobj=out, mode="w") as archive:
        for name, folder in folders.items():
            for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
                # Files in the making have a name that begins with a dot.
                if path.name.startswith("."):
                    continue
                try:
                    _add(archive, path, f"{name}/{path.relative_to(folder)}")
                except FileNotFoundError:
                    continue
                count += 1
                progress(count)
        archive.close()
        out.flush()
        os.fsync(out.fileno())
    return count


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    """Add a file; once more where it was replaced meanwhile, as a key is that is destroyed: the last one counts."""
    while True:
        with path.open("rb") as file:
            archive.addfile(archive.gettarinfo(arcname=name, fileobj=file), file)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return


def unpack(tar: Path, folder: Path) -> None:
    """Unpack into a folder, refusing names that lead out of it."""
    with tarfile.open(tar) as archive:
        for member in archive:
            if not member.isfile():
                continue
            member.mode = 0o600
            archive.extract(member, folder, filter="data")
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o700)


def digest(path: Path, *, progress: Callable[[int], None] = lambda bytes_: None) -> str:
    """Return the SHA-256 of a file; `progress` is told how many bytes were read since it was last told."""
    found = sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
            progress(len(block))
    return found.hexdigest()


def write_durably(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 that is either whole or absent."""
    temporary = path.with_name(f".{path.name}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
