"""Advisory locks on files, which the kernel releases when the last process that holds them dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.clock import monotonic
from service.storage.belonging import hand_over
from service.storage.embedded.errors import FolderRefused

POLL_SECONDS = 0.02


class FileLock:
    """One `flock` on one file. Two instances are two holders, also inside one process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def try_acquire(self, *, shared: bool = False) -> bool:
        """Take the lock, or change its kind, without waiting. False if another holder is in the way.

        A failed change of kind loses the lock that was held before (`flock` gives it up first).
        """
        if self._fd is None:
            self._fd = _open(self.path)
        try:
            fcntl.flock(self._fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            return False
        return True

    def acquire(self, *, deadline: float) -> bool:
        """Take the lock for ourselves alone; False if `deadline` (monotonic seconds) passes first."""
        while not self.try_acquire():
            if monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    @contextmanager
    def open_for_child(self) -> Iterator[int]:
        """Give the descriptor of a held lock to hand to a child process, and close ours afterwards.

        The lock then lives exactly as long as the child and whatever the child forks.
        """
        if self._fd is None:
            raise ValueError(f"{self.path} is not locked")
        fd, self._fd = self._fd, None
        try:
            yield fd
        finally:
            os.close(fd)  # no LOCK_UN: that would take the lock away from the child as well

    def release(self) -> None:
        """Give the lock up. Harmless if it is not held."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            fcntl.flock(fd, fcntl.LOCK_UN)  # said aloud, for a forked copy of the descriptor would keep it
            os.close(fd)


def _open(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except PermissionError as error:
        if path.parent.stat().st_uid == os.geteuid():
            raise FolderRefused(
                f"{path} cannot be written ({error.strerror}): allow it with chmod -R u+rwX {path.parent}"
            ) from error
        raise FolderRefused(
            f"{path} belongs to another user: run this command as the user that owns {path.parent}"
        ) from error
    hand_over(fd, path.parent)
    return fd
