"""Which operating-system user the Postgres processes run as, and whether that user can reach their folders."""

from __future__ import annotations

import grp
import os
import pwd
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from service.storage.embedded.errors import CannotDropRoot, FolderRefused

# As root we take a number that nobody else has. `nobody` is no choice: every daemon that was told to run as nobody
# could read the data, and a system user of our own would be a change to the machine. The first range lies above the
# 16-bit users, systemd's dynamic ones included, and below where useradd hands out sub-ids (100000). The second is for
# user namespaces that map only 65,536 ids (rootless containers): above the people, below the system's reserved ranges.
_FREE_IDS = (range(65_600, 100_000), range(55_000, 60_000))


class ProcessOptions(TypedDict, total=False):
    """The keyword arguments of `subprocess` that change the user."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Identity:
    """The user that owns the cluster and runs it; `dropped` when we are root and become it for that."""

    uid: int
    gid: int
    dropped: bool

    def process_options(self) -> ProcessOptions:
        """Return what `subprocess` needs to start a process as this user."""
        return ProcessOptions(user=self.uid, group=self.gid, extra_groups=[]) if self.dropped else ProcessOptions()

    def may(self, bits: int, path: Path) -> bool:
        """Tell whether the mode of `path` gives this user all of `bits` (those of "others": 4 read, 1 enter or run)."""
        found = path.stat()
        if found.st_uid == self.uid:
            bits <<= 6
        elif found.st_gid == self.gid:
            bits <<= 3
        return found.st_mode & bits == bits

    def take_over(self, path: Path) -> None:
        """Make this user the owner of `path` (never of what a link points to)."""
        if not self.dropped:
            return
        try:
            os.lchown(path, self.uid, self.gid)
        except OSError as error:
            raise CannotDropRoot(
                f"running as root, but {path} cannot be given to user id {self.uid} ({error.strerror}): "
                "run memvault as a normal user, or allow the capabilities CHOWN, SETUID, SETGID, KILL and DAC_OVERRIDE"
            ) from error


def identity_for(folder: Path, data: Path) -> Identity:
    """Choose the user for the cluster `data` inside our `folder`. Both are looked at, neither is changed.

    Not root: ourselves. Root: the owner of the cluster; for a new one the owner of the folder, so that a folder
    prepared for a user stays that user's; in a folder of root's a number of its own.
    """
    if os.geteuid() != 0:
        return Identity(os.geteuid(), os.getegid(), dropped=False)
    for place in (data, folder):
        if place.exists():
            owner = place.stat()
            if owner.st_uid != 0:
                return Identity(owner.st_uid, owner.st_gid, dropped=True)
    if data.exists():
        raise FolderRefused(
            f"{data} belongs to root, and Postgres never runs as root: give it back to the user that ran it "
            f"(chown -R USER {data})"
        )
    number = _unused_id()
    return Identity(number, number, dropped=True)


def closed_above(path: Path, identity: Identity) -> Path | None:
    """Return the top-most folder above `path` that `identity` cannot enter, if there is one."""
    if not identity.dropped:
        return None
    return next((folder for folder in reversed(path.parents) if not identity.may(stat.S_IXOTH, folder)), None)


def unreachable(folder: Path, identity: Identity, *, purpose: str, elsewhere: str) -> FolderRefused:
    """Return the error for a folder that `identity` cannot enter.

    `purpose` ends the sentence "which holds …"; `elsewhere` names the better place.
    """
    return FolderRefused(
        f"Postgres does not run as root but as user id {identity.uid}, which cannot enter {folder} "
        f"(mode {stat.S_IMODE(folder.stat().st_mode):04o}), which holds {purpose}: {elsewhere}, run memvault as a "
        f"normal user, or allow it yourself with: chmod o+x {folder}"
    )


def has_name(uid: int) -> bool:
    """Tell whether the system's user database knows this user (`initdb` insists on it)."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _unused_id() -> int:
    maps = [_mapped(Path("/proc/self/uid_map")), _mapped(Path("/proc/self/gid_map"))]
    groups = {entry.gr_gid for entry in grp.getgrall()}
    for numbers in _FREE_IDS:
        if not all(any(numbers.start in m and numbers[-1] in m for m in ranges) for ranges in maps):
            continue
        for _ in range(100):
            number = secrets.choice(numbers)
            if number not in groups and not has_name(number):
                return number
    raise CannotDropRoot(
        "running as root of a user namespace that maps too few user ids to give Postgres one of its own: "
        "run memvault as a normal user"
    )


def _mapped(table: Path) -> list[range]:
    """Return the ids that exist in our user namespace; all of them where the system has no such table."""
    if not table.exists():
        return [range(2**31)]
    rows = (line.split() for line in table.read_text().splitlines())
    return [range(int(first), int(first) + int(count)) for first, _, count in rows]
