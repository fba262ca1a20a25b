"""Runs a command where no network is but loopback: `python -m tests.offline make test-run`.

The kernel takes the network away, by a namespace of its own, so that nothing that is started in it can get one back.
Ends with the command's exit code; with 77 and one line when the kernel gives this user no such namespace.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

#: Set for the command, so that a test can hold the suite to it.
OFFLINE: Final = "MEMVAULT_TEST_OFFLINE"
FORBIDDEN: Final = 77
_INSIDE: Final = "--inside"
#: A documentation address: nobody's.
_OUTSIDE: Final = ("192.0.2.1", 9)
_SET_FLAGS, _UP = 0x8914, 0x1
_AMBIENT, _CLEAR_ALL = 47, 4


def way() -> list[str] | None:
    """Return how this user gets a network namespace and stays who they are, or None where they get none."""
    root = ["unshare", "--net"]
    # The rights are for setting loopback up and are dropped then.
    user = ["unshare", "--map-current-user", "--keep-caps", "--net"]
    for words in (root,) if os.geteuid() == 0 else (root, user):
        if (
            shutil.which("unshare")
            and not subprocess.run([*words, "true"], capture_output=True, check=False).returncode
        ):
            return words
    return None


def is_closed() -> bool:
    """Whether nothing but loopback is there, asked of the kernel in two ways."""
    if {name for _, name in socket.if_nameindex()} != {"lo"}:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
        try:
            outward.connect(_OUTSIDE)
        except OSError:
            return True
    return False


def inside(command: Sequence[str]) -> None:
    """Set loopback up, see that there is no other way, and become the command."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", _UP))
    if not is_closed():
        raise SystemExit("the namespace has a way out")
    ctypes.CDLL(None).prctl(_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    os.environ[OFFLINE] = "1"
    os.execvp(command[0], list(command))


def main(arguments: Sequence[str]) -> None:
    """Enter the namespace and run the command in it."""
    if arguments[:1] == [_INSIDE]:
        inside(arguments[1:])
    words = way()
    if words is None:
        print(
            "this kernel gives this user no network namespace (`unshare --net`): the tests cannot be run without a "
            "network here; `make test-run` runs them beside it",
            file=sys.stderr,
        )
        raise SystemExit(FORBIDDEN)
    os.execvp(words[0], [*words, sys.executable, "-m", "tests.offline", _INSIDE, *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
