"""Shows a program its folders below folders that its user may not enter, in a mount namespace of the program's own."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_CLONE_FS = 0x00000200
_CLONE_NEWNS = 0x00020000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_SLAVE = 0x20, 0x1000, 0x4000, 0x80000
_MS_RELATIME = 0x200000
# What a mount has and must keep when it is changed, as statvfs tells it; relatime alone has another number there.
_KEPT_FLAGS = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | 0x400 | 0x800
_ST_RELATIME = 0x1000


class MountsRefused(Exception):
    """The system does not let us have mounts of our own. The cause is the OSError, if there was one."""


def run_in_private_mounts(
    action: Callable[[], None], *, closed: Collection[Path], shown: Collection[Path], fixed: Collection[Path]
) -> None:
    """Run `action`, which starts a process, where that process finds `shown` and `fixed` below the `closed` folders.

    All paths are absolute, stay what they are, and exist. Each closed folder is covered by an empty one that everybody
    may enter; in it only the paths to `shown` and `fixed` are made again, the latter read-only. So the process sees
    nothing else of a closed folder: not the rest of the data folder, and not its keys.

    Only the process that is started has these mounts, and they end with the last of its children; no other process
    sees them, no permission changes, and the files and sockets are the same inside and outside. `action` must read
    nothing from below a closed folder itself (no imports, for instance). Raises MountsRefused, or what `action` raises.
    """
    if sys.platform != "linux" or Path("/") in closed:
        raise MountsRefused

    def inside() -> None:
        try:
            _enter(closed, shown, fixed)
        except OSError as error:
            raise MountsRefused from error
        action()

    # A thread has mounts of its own, hands them on to the process that it starts, and takes them along when it ends.
    # Between the fork and the exec of a process, where nothing may be allocated, there is no place for all this.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="mounts") as thread:
        thread.submit(inside).result()


def _enter(closed: Collection[Path], shown: Collection[Path], fixed: Collection[Path]) -> None:
    """Leave the mounts of the process for our own, which is for this thread alone and for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(_CLONE_NEWNS | _CLONE_FS))
    os.umask(0o022)  # the thread's own from here on
    # From here nothing gets out. What is unmounted outside is unmounted here too: a disk is not kept busy.
    _mount(libc, None, Path("/"), None, _MS_REC | _MS_SLAVE, None)
    held: dict[Path, int] = {}
    try:
        for path in sorted({*shown, *fixed}):
            held[path] = os.open(path, os.O_PATH | os.O_CLOEXEC)
        for folder in closed:
            options = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
            _mount(libc, "tmpfs", folder, "tmpfs", options, "mode=0755,size=1m")
        for path, descriptor in held.items():
            if os.path.isdir(f"/proc/self/fd/{descriptor}"):
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            _mount(libc, f"/proc/self/fd/{descriptor}", path, None, _MS_BIND | _MS_REC, None)
            if path in fixed:
                _mount(libc, None, path, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _kept_flags(path), None)
    finally:
        for descriptor in held.values():
            os.close(descriptor)


def _kept_flags(path: Path) -> int:
    found = os.statvfs(path).f_flag
    return (found & _KEPT_FLAGS) | (_MS_RELATIME if found & _ST_RELATIME else 0)


def _mount(
    libc: ctypes.CDLL, source: str | None, target: Path, kind: str | None, flags: int, options: str | None
) -> None:
    texts = [text if text is None else os.fsencode(text) for text in (source, str(target), kind, options)]
    _check(libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
