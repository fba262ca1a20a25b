"""Gives one program a user name where the system has none: a user namespace with a single mapped id."""

from __future__ import annotations

import ctypes
import os
import pwd
import sys
from collections.abc import Callable
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_PR_SET_DUMPABLE = 4


def enter_named_namespace(uid: int, gid: int) -> Callable[[], None] | None:
    """Return a function for the child process (`preexec_fn`) in which user `uid` bears the name of another user.

    Container platforms run processes under random numbers without an entry in the user database, and `initdb` refuses
    such a user. Inside the namespace the number is that of some named user; outside nothing changes, so files belong to
    `uid` as ever. Nothing is gained but the name: one id is mapped, and it is our own.
    None where there is no such thing (not Linux, or no named user). The function raises OSError if it is forbidden.
    """
    named = next((entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0), None)
    if sys.platform != "linux" or named is None:
        return None
    libc = ctypes.CDLL(None, use_errno=True)  # loaded before the fork

    def enter() -> None:
        libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # a process that dropped root may not write its own maps otherwise
        if libc.unshare(_CLONE_NEWUSER) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        Path("/proc/self/setgroups").write_text("deny", encoding="utf-8")
        Path("/proc/self/uid_map").write_text(f"{named} {uid} 1", encoding="utf-8")
        Path("/proc/self/gid_map").write_text(f"{gid or 1} {gid} 1", encoding="utf-8")
        os.chdir("/")

    return enter
