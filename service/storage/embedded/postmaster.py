"""Finds the running server of a cluster, and tells it from a stranger that has its process id now."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Postmaster:
    """A living server: `status` is empty before it has one, then `starting`, `ready` or `stopping`."""

    process: psutil.Process
    port: int
    socket_folder: Path | None
    status: str


def find_postmaster(data: Path) -> Postmaster | None:
    """Return the server that runs on `data`, or None: no file, a dead process, or another program with its id.

    A server always stands in its data folder; that, and its owner, is how it is known.
    """
    try:
        lines = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        process = psutil.Process(int(lines[0]))
        if process.uids().real != data.stat().st_uid or not os.path.samefile(process.cwd(), data):
            return None
        process.create_time()  # remembered by psutil: later signals go to this process or to none
        port = int(lines[3]) if len(lines) > 3 else 0
    except (OSError, ValueError, IndexError, psutil.Error):
        return None
    return Postmaster(
        process=process,
        port=port,
        socket_folder=Path(lines[4]) if len(lines) > 4 and lines[4] else None,
        status=lines[7].strip() if len(lines) > 7 else "",
    )
