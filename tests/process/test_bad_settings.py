"""A wrong setting: one line on standard error that names it, exit code 2, and nothing else."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.memvault import Memvault

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def memvault(written_model: Path) -> Iterator[Memvault]:
    """An installation that no setting here lets start."""
    memvault = Memvault(written_model)
    try:
        yield memvault
    finally:
        memvault.remove()


def refused(ended: subprocess.CompletedProcess[str], names: str) -> None:
    """Check that a command ended with one line that names the setting."""
    assert ended.returncode == 2, (ended.returncode, ended.stderr)
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("memvault: ")
    assert names in line


def test_in_a_file(memvault: Memvault) -> None:
    config = memvault.place / "settings.yaml"
    config.write_text("server:\n  prot: 1\n")
    refused(memvault.run("serve", "--port", "0", "--config", str(config)), "server.prot")


@pytest.mark.parametrize(
    ("variable", "value", "names"),
    [
        ("MEMVAULT_SERVER__PROT", "1", "MEMVAULT_SERVER__PROT"),
        ("MEMVAULT_LLM__BASE_URL", "not a url", "MEMVAULT_LLM__BASE_URL"),
        ("MEMVAULT_DATABASE__URL", "not a url", "database.url"),
        ("MEMVAULT_BOOTSTRAP_KEY", "short", "MEMVAULT_BOOTSTRAP_KEY"),
        ("OPENROUTER_API_KEY", "sk-or-1", "OPENROUTER_API_KEY"),
    ],
)
def test_in_the_environment(memvault: Memvault, variable: str, value: str, names: str) -> None:
    refused(memvault.run("serve", "--port", "0", **{variable: value}), names)
    assert memvault.processes() == []


def test_a_data_folder_that_is_a_file(memvault: Memvault) -> None:
    file = memvault.place / "file"
    file.write_text("")
    refused(memvault.run("serve", "--port", "0", "--data-dir", str(file), data_dir=False), "data_dir")
    refused(memvault.run("tenant", "list", "--json", "--data-dir", str(file / "x"), data_dir=False), "data_dir")


@pytest.mark.parametrize(
    "command",
    [
        ("backup", "--out", "archive"),
        ("retention", "run"),
        ("audit", "checkpoint"),
        ("tenant", "list"),
        ("key", "create", "--tenant", "default"),
        ("erase", "--tenant", "default", "--user", "alice"),
        ("index", "rebuild"),
        ("migrate", "--check"),
        ("worker",),
    ],
    ids=" ".join,
)
def test_a_data_folder_without_an_installation(memvault: Memvault, command: tuple[str, ...]) -> None:
    wrong = memvault.place / "wrong"
    refused(
        memvault.run(*command, "--data-dir", str(wrong), data_dir=False), f"data_dir {wrong}: holds no installation"
    )
    assert not wrong.exists()
    assert list(memvault.cwd.iterdir()) == []


def test_the_doctor_of_a_data_folder_without_an_installation(memvault: Memvault) -> None:
    wrong = memvault.place / "wrong"
    ended = memvault.run("doctor", "--json", "--data-dir", str(wrong), data_dir=False)
    parts = {part["name"]: part for part in json.loads(ended.stdout)["parts"]}
    assert (ended.returncode, parts["record"]["state"], parts["record"]["where"]) == (1, "failed", "data_dir")
    assert "holds no installation" in parts["record"]["reason"]
    assert not wrong.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_folder_that_cannot_be_written(memvault: Memvault) -> None:
    closed = memvault.place / "closed"
    closed.mkdir(mode=0o500)
    refused(memvault.run("serve", "--port", "0", "--data-dir", str(closed), data_dir=False), "data_dir")


def test_a_port_in_use(memvault: Memvault) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused(memvault.run("serve", "--port", port), f"server.port {port}")
    assert not (memvault.data_dir / "postgres").exists()


def test_a_data_folder_that_another_process_serves(served: Memvault) -> None:
    ended = served.run("serve", "--port", "0")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "in use by process" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
