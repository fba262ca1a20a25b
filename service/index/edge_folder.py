"""The folder of the embedded index: who owns it, which generation of the shard is current, and what is swept away.

index/
├── lock          held by the process that serves, and by those of its shards; its pid inside
├── current       JSON: the generation that serves, whether it has all that the record has, and what it was made for;
│                 replaced atomically
├── removed       there is deleted data in the files; its time says since when, and what is in it how many points
└── <generation>/ one Edge shard
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from service import clock
from service.errors import ConfigurationError, IndexUnavailable
from service.index.interface import IndexDamaged, IndexLocked

_FORMAT: Final = 2
#: Bytes that must be free for a write. The engine writes through memory maps: where the disk has no block for one, the
#: kernel ends the process.
_LEAST_ROOM: Final = 64 * 1024 * 1024
#: How long the process of a shard may take to end after the one that serves was killed.
_ORPHAN_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.05


def owner_of(path: Path) -> str | None:
    """Return the process that has the folder of an index, or None where nobody has it."""
    try:
        lock = os.open(path / "lock", os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
    else:
        return None
    finally:
        os.close(lock)


class IndexFolder:
    """Owns the folder from construction to `close`.

    `model` names what makes the vectors. Raises `IndexLocked` when another process has the folder, and
    `ConfigurationError` when this user may not use it.
    """

    def __init__(self, path: Path, *, dimensions: int, model: str) -> None:
        self.path = path
        self._made_for = {"format": _FORMAT, "dimensions": dimensions, "model": model}
        #: Whether the current generation has all that the record has; False until that is known.
        self.complete = False
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except PermissionError as error:
            raise ConfigurationError(
                f"The index folder {path} cannot be used by this user ({error.strerror}): run this as the user that "
                "owns it, or move it away, and the index is made again from the record."
            ) from None
        if not self._locked():
            owner = os.pread(self._lock, 20, 0).decode("ascii", "replace").strip()
            os.close(self._lock)
            raise IndexLocked(
                f"The index folder {path} is in use by process {owner or 'unknown'}. It belongs to the one process "
                "that serves: stop that process, or give this one a data folder of its own."
            )
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode("ascii"), 0)

    @property
    def held(self) -> tuple[int, ...]:
        """The descriptors that a process keeps which has a shard of the folder open."""
        return (self._lock,)

    def _locked(self) -> bool:
        """Lock the folder and tell whether that was possible; wait for what a process that was killed has left."""
        until = time.monotonic() + _ORPHAN_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError:
                owner = os.pread(self._lock, 20, 0).decode("ascii", "replace").strip()
                if not owner.isdigit() or _runs(int(owner)) or time.monotonic() > until:
                    return False
            time.sleep(_POLL_SECONDS)

    def current(self) -> Path | None:
        """Return the folder of the current generation, or None where no index was made yet.

        Raises `IndexDamaged` when it is missing, unreadable or made for another model.
        """
        try:
            content = json.loads((self.path / "current").read_text(encoding="utf-8"))
            generation = self.path / str(content.pop("generation"))
            self.complete = content.pop("complete") is True
        except FileNotFoundError:
            if any(entry.is_dir() for entry in self.path.iterdir()):
                raise self.damaged("the file `current` is missing") from None
            return None
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise self.damaged("the file `current` cannot be read") from error
        if content != self._made_for:
            raise self.damaged(f"it was made for {content} and the settings say {self._made_for}")
        if not generation.is_dir():
            raise self.damaged("the current generation is missing")
        return generation

    def check_room(self) -> None:
        """Return if there is room for a write.

        Raises:
            IndexUnavailable: when the disk is full; the record keeps what the index lacks meanwhile.
        """
        disk = os.statvfs(self.path)
        if disk.f_bavail * disk.f_frsize < _LEAST_ROOM:
            raise IndexUnavailable(
                f"The disk of the index folder {self.path} has less than {_LEAST_ROOM >> 20} MB left: make room, and "
                "the index is brought up to the record by itself.",
                retry_after=30,
            )

    def damaged(self, why: str) -> IndexDamaged:
        """Return the error that says what is wrong and what to do."""
        return IndexDamaged(
            f"The index folder {self.path} cannot be used: {why}. Run `memvault index rebuild`: the index is made "
            "again from the record, and nothing is lost."
        )

    def new(self) -> Path:
        """Return the path of a new generation. It is not made yet and not current."""
        return self.path / clock.new_id().hex

    def switch(self, generation: Path, *, complete: bool) -> None:
        """Make a generation the current one, durably and at once."""
        fresh = self.path / "current.new"
        # Opened before, since nothing may fail once the other generation is current: it would be removed.
        folder = os.open(self.path, os.O_RDONLY)
        try:
            with fresh.open("w", encoding="utf-8") as file:
                json.dump({"generation": generation.name, "complete": complete} | self._made_for, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path / "current")
            with suppress(OSError):
                os.fsync(folder)
        finally:
            os.close(folder)
        self.complete = complete

    def sweep(self, keep: Path) -> None:
        """Remove every generation but one."""
        for entry in self.path.iterdir():
            if entry.is_dir() and entry != keep:
                self.remove(entry)

    def remove(self, generation: Path) -> None:
        """Remove a generation, finished or not. What cannot be removed now is swept at the next start."""
        shutil.rmtree(generation, ignore_errors=True)

    def mark_removed(self) -> None:
        """Remember that the files hold deleted data from now on."""
        mark = self.path / "removed"
        # Touching it again would make it younger.
        if not mark.exists():
            mark.touch(mode=0o600)

    def count_removed(self, count: int) -> None:
        """Remember of how many points the files hold deleted data, since when they did before."""
        self._write_removed(count, (self.path / "removed").stat().st_mtime_ns)

    def renew_removed(self, count: int) -> None:
        """Remember that the files hold deleted data of so many points since now, whatever they held before."""
        self._write_removed(count, None)

    def clear_removed(self) -> None:
        """Remember that they hold none."""
        (self.path / "removed").unlink(missing_ok=True)

    def removed_seconds(self) -> float | None:
        """Return for how long the files have held deleted data, or None when they hold none."""
        try:
            return max(0.0, clock.now().timestamp() - (self.path / "removed").stat().st_mtime)
        except FileNotFoundError:
            return None

    def removed_count(self) -> int:
        """Return of how many points the files hold deleted data, as it was remembered last."""
        try:
            return max(0, int((self.path / "removed").read_bytes()))
        except (OSError, ValueError):
            # There is no such file, or it has nothing in it yet.
            return 0

    def _write_removed(self, count: int, since: int | None) -> None:
        fresh = self.path / "removed.new"
        fresh.touch(mode=0o600)
        fresh.write_bytes(b"%d" % count)
        if since is not None:
            os.utime(fresh, ns=(since, since))
        fresh.replace(self.path / "removed")

    def close(self) -> None:
        """Let others have the folder: as root, also the user whose data folder it is in."""
        with suppress(OSError):
            _hand_over(self.path)
        os.close(self._lock)


def _hand_over(folder: Path) -> None:
    """As root, give all of a folder to whoever owns the folder that it is in. Links are not followed."""
    owner = folder.parent.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    for _, _, files, descriptor in os.fwalk(folder):
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
        for name in files:
            # A second name may be that of a file elsewhere.
            if os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_nlink == 1:
                os.chown(name, owner.st_uid, owner.st_gid, dir_fd=descriptor, follow_symlinks=False)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
