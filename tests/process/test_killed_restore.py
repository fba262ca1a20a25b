"""`kill -9` in the middle of a restore: nothing opens what is there before one has ended, and it can be run again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.fixtures import MakeMemvault
from tests.process.memvault import Memvault, add, listed, search

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

#: Runs the command, and kills it at a call of a function.
_KILLED = """
import importlib, os, signal, sys
module, name, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.argv[1:4] = []
place = importlib.import_module(module)
real, calls = getattr(place, name), 0
def counted(*given, **named):
    global calls
    calls += 1
    if calls == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given, **named)
setattr(place, name, counted)
from service.cli import main
main()
"""


def killed(memvault: Memvault, module: str, name: str, number: int, *arguments: str) -> None:
    """Run a command that is killed at a call of one of its functions."""
    ended = subprocess.run(
        [sys.executable, "-c", _KILLED, module, name, str(number), *arguments, "--data-dir", str(memvault.data_dir)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=memvault.cwd,
        env=memvault.environment(),
        timeout=180,
        check=False,
    )
    assert ended.returncode == -9


@pytest.fixture
def backup(memvault: Memvault) -> Path:
    """A backup of an installation that has stopped."""
    memvault.start()
    with memvault.client() as client:
        add(client, "alice keeps bees")
        add(client, "bob keeps goats", user="bob")
    folder = memvault.place / "backup"
    memvault.json("backup", "--out", str(folder))
    memvault.stop()
    return folder


def refused(memvault: Memvault) -> None:
    """Check that no command opens the installation or makes another there, and says what to do."""
    for command in (("serve", "--port", "0"), ("tenant", "create", "acme"), ("migrate",)):
        ended = memvault.run(*command)
        assert ended.returncode == 2, command
        assert "a restore has begun here and not ended" in ended.stderr.splitlines()[-1]
    assert memvault.run("doctor", "--offline").returncode == 1


def whole(memvault: Memvault, key: str) -> None:
    """Check that what was backed up is served and that nothing else is left."""
    memvault.start()
    with memvault.client(key) as client:
        assert list(listed(client).values()) == ["alice keeps bees"]
        assert [hit["memory"] for hit in search(client, "goats", user="bob")] == ["bob keeps goats"]
    memvault.json("audit", "checkpoint")
    assert memvault.json("audit", "verify")["ok"]
    memvault.stop()
    assert [path.name for path in memvault.data_dir.iterdir() if "restore" in path.name] == []


def test_the_keyring_was_restored_in_part(backup: Path, memvault: Memvault, make_memvault: MakeMemvault) -> None:
    other = make_memvault()
    killed(other, "service.storage.keyring", "_sync_folder", 3, "restore", str(backup))
    assert list(other.data_dir.glob(".restore-*"))
    refused(other)

    # Killed between the two halves of a write, it leaves a copy of a key that no erasure would find.
    left = other.data_dir / "keys" / ".copy.key.01234567"
    left.write_bytes(b"a copy")
    other.json("restore", str(backup))
    assert not left.exists()
    whole(other, memvault.credentials["api_key"])


def test_the_database_was_dropped(backup: Path, memvault: Memvault) -> None:
    killed(memvault, "service.wiring.backups", "restore", 1, "restore", str(backup), "--replace")
    refused(memvault)
    # There is no database that it would replace.
    memvault.json("restore", str(backup))
    whole(memvault, memvault.credentials["api_key"])


def test_the_database_was_restored(backup: Path, memvault: Memvault) -> None:
    killed(memvault, "service.wiring.backups", "index_folders", 1, "restore", str(backup), "--replace")
    refused(memvault)
    asked = memvault.run("restore", str(backup))
    assert (asked.returncode, "--replace" in asked.stderr) == (1, True)
    assert memvault.run("tenant", "list").returncode == 2
    memvault.json("restore", str(backup), "--replace")
    whole(memvault, memvault.credentials["api_key"])


def test_a_restore_that_was_refused_leaves_no_note(backup: Path, memvault: Memvault) -> None:
    assert memvault.run("restore", str(backup)).returncode == 1
    assert not (memvault.data_dir / "restore.unfinished").exists()
    assert memvault.json("tenant", "list")
