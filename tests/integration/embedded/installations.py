"""Installations to test on, the processes that belong to them, and other processes that use them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from service.storage.embedded.postmaster import find_postmaster

REPOSITORY = Path(__file__).parents[3]
FAST = {"fsync": "off"}
NAMELESS = 12345

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

# Everything is imported first: the user to become may not be allowed to enter Python's own folders.
BECOME_NAMELESS = f"""
import os, service.storage.embedded
os.setgroups([])
os.setgid({NAMELESS})
os.setuid({NAMELESS})
"""

USE_SERVER = """
import sys
from pathlib import Path
from service.storage.embedded import EmbeddedPostgres, EmbeddedPostgresError
server = EmbeddedPostgres(Path(sys.argv[1]), settings={"fsync": sys.argv[2]})
try:
    print("ready", server.start().pid, flush=True)
    sys.stdin.read()
except EmbeddedPostgresError as error:
    print("refused", type(error).__name__, error, flush=True)
    sys.exit(2)
except KeyboardInterrupt:
    print("interrupted", server.attach().pid, flush=True)
server.stop()
print("stopped", flush=True)
"""


class Other:
    """Another process that starts or adopts the server, says so, and stops when its input is closed."""

    def __init__(self, folder: Path, *, fsync: str = "off", code: str = USE_SERVER) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder), fsync],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            start_new_session=True,
        )

    def said(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def ready(self) -> int:
        word, *rest = self.said()
        assert word == "ready", rest
        return int(rest[0])

    def kill(self) -> None:
        self.process.kill()
        self.close()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


def processes_of(folder: Path) -> list[psutil.Process]:
    """Return every living process that stands in the cluster's folder or was told of it."""
    found = []
    for process in psutil.process_iter():
        try:
            named = any(str(folder) in word for word in process.cmdline()) and "postgres" in process.name()
            if named or process.cwd() == str(folder / "data"):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def kill_cluster(folder: Path) -> None:
    """End what a failed test left alive, by its process ids."""
    while processes := processes_of(folder):
        for process in processes:
            process.send_signal(signal.SIGKILL)
        psutil.wait_procs(processes, timeout=5)


def new_place() -> Path:
    place = Path(tempfile.mkdtemp(prefix="mv", dir="/tmp"))
    if os.geteuid() == 0:
        place.chmod(0o711)
    return place


def is_running(folder: Path) -> bool:
    return find_postmaster(folder / "data") is not None
