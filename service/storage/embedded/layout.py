"""The folder of the embedded Postgres: what lies where, with which owner and mode."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from service.storage.embedded.errors import FolderRefused
from service.storage.embedded.identity import Identity, closed_above

PORT = 5432  # no TCP: the number only names the socket file
_SOCKET_NAME = f".s.PGSQL.{PORT}"
_LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103
_KEPT_LOG_BYTES = 16 * 1024 * 1024


class Layout:
    """The names inside the folder. Ours (0600): locks, secrets, settings. The cluster user's (0700): three folders.

    As root the folder is root's with mode 0711, so the cluster user passes through it, lists nothing, and can change
    neither its configuration nor who may log in.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.staging = folder / "data.partial"
        self.sockets = folder / "run"
        self.logs = folder / "log"
        self.start_log = folder / "start.log"
        self.configuration = folder / "postgresql.conf"
        self.access_rules = folder / "pg_hba.conf"
        self.superuser = folder / "superuser.json"
        self.socket_record = folder / "socket_folder"
        self.lifecycle_lock = folder / "lifecycle.lock"
        self.users_lock = folder / "users.lock"
        self.cluster_lock = folder / "cluster.lock"

    def prepare(self) -> None:
        """Make the folder, and the data folder above it if that is missing. No folder above is changed."""
        mode = 0o711 if os.geteuid() == 0 else 0o700
        try:
            for folder in (self.folder.parent, self.folder):
                with suppress(FileExistsError):
                    folder.mkdir(mode=mode)
                    folder.chmod(mode)  # the umask may have taken bits away
        except OSError as error:
            raise FolderRefused(
                f"{self.folder} cannot be made ({error.strerror}): choose another place with --data-dir"
            ) from error
        found = self.folder.stat()
        if found.st_uid == os.geteuid():
            self.folder.chmod(mode)
        elif os.geteuid() != 0:
            raise FolderRefused(
                f"{self.folder} belongs to user id {found.st_uid}, not to you (user id {os.geteuid()}): "
                "run memvault as that user, or choose another place with --data-dir"
            )

    def make_cluster_folder(self, path: Path, identity: Identity) -> None:
        """Make one of the cluster user's folders, mode 0700, or put its owner and mode right."""
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            # Root may be at work in another user's folder, who could put a link to some other folder here.
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise FolderRefused(
                f"{path} is not a folder that can be used ({error.strerror}): remove it, it is made anew"
            ) from error
        try:
            os.fchmod(fd, 0o700)
        finally:
            os.close(fd)
        identity.take_over(path)

    def socket_folder(self, identity: Identity) -> Path:
        """Return a private folder (0700) whose socket path fits into the system's limit; make it if needed.

        It lies inside ours. Where that path is too long it is a new folder in a temporary place, known from a record
        in ours and only used again while it is a real folder of the cluster user with mode 0700.
        """
        if _fits(self.sockets):
            self.make_cluster_folder(self.sockets, identity)
            return self.sockets
        recorded = self._recorded_socket_folder()
        if recorded is not None and _is_private(recorded, identity):
            return recorded
        for base in dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"]):
            try:
                if not _fits(Path(base, "memvault-12345678")) or closed_above(Path(base, "x"), identity):
                    continue
                made = Path(tempfile.mkdtemp(prefix="memvault-", dir=base))
            except OSError:
                continue
            identity.take_over(made)
            self.write(self.socket_record, f"{made}\n")
            return made
        raise FolderRefused(
            f"the socket path inside {self.sockets} is longer than {_LONGEST_SOCKET_PATH} bytes, and no short "
            "temporary folder can be written: set TMPDIR to one, or choose a shorter --data-dir"
        )

    def remove_socket_files(self, identity: Identity) -> None:
        """Remove what dead servers left behind: their locks name process ids that may be others' by now."""
        recorded = self._recorded_socket_folder()
        for folder in (self.sockets, recorded):
            if folder is not None and _is_private(folder, identity):
                for leftover in folder.glob(".s.PGSQL.*"):
                    leftover.unlink()

    def remove_short_socket_folder(self, identity: Identity) -> None:
        """Remove the folder in the temporary place, after its server has ended."""
        recorded = self._recorded_socket_folder()
        if recorded is not None and _is_private(recorded, identity):
            shutil.rmtree(recorded)
        self.socket_record.unlink(missing_ok=True)

    def remove_old_logs(self) -> None:
        """Keep the newest logs up to a fixed size."""
        logs = sorted(self.logs.glob("*.log"), key=lambda log: log.lstat().st_mtime, reverse=True)
        total = 0
        for log in logs:
            total += log.lstat().st_size
            if total > _KEPT_LOG_BYTES:
                log.unlink()

    def write(self, path: Path, text: str, *, reader: Identity | None = None) -> None:
        """Replace `path` in one step, durably; mode 0600, or 0640 for a `reader` that is not us."""
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                if os.geteuid() == 0:
                    owner = self.folder.stat()
                    os.fchown(fd, owner.st_uid, reader.gid if reader else owner.st_gid)
                    os.fchmod(fd, 0o640 if reader and reader.dropped else 0o600)
                file.write(text)
                file.flush()
                os.fsync(fd)
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)  # a full disk must not also fill up with these
            raise
        sync_folder(self.folder)

    def _recorded_socket_folder(self) -> Path | None:
        try:
            return Path(self.socket_record.read_text(encoding="utf-8").strip())
        except FileNotFoundError:
            return None


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / _SOCKET_NAME)) <= _LONGEST_SOCKET_PATH


def _is_private(folder: Path, identity: Identity) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == identity.uid and stat.S_IMODE(found.st_mode) == 0o700
