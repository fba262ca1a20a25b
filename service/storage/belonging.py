"""Whose the private files are that root makes in the folder of a service that runs as somebody else: that user's."""

from __future__ import annotations

import os
from pathlib import Path


def make_private_folder(folder: Path) -> None:
    """Make a folder that others cannot look into, unless it is there, and what is missing above it."""
    missing = []
    for one in (folder, *folder.parents):
        if one.exists():
            break
        missing.append(one)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() != 0:
        return
    for one in reversed(missing):
        # By its descriptor, and never what a link points to: whoever owns the folder above may put one in its place.
        descriptor = os.open(one, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            hand_over(descriptor, one.parent)
        finally:
            os.close(descriptor)


def hand_over(descriptor: int, folder: Path) -> None:
    """As root, give what was just made to whoever owns the folder that it is in: else the owner could not open it."""
    if os.geteuid() == 0 and (owner := folder.stat()).st_uid != os.stat(descriptor).st_uid:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
