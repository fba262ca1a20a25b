"""A command imports what it needs and no more: an agent that starts `memvault mcp` waits for each import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import service.cli

pytestmark = pytest.mark.unit


def imported_for(command: str | None) -> set[str]:
    """Return what a process has imported that has a command, or all of them, at hand."""
    script = f"import sys; from service.cli.app import commands; commands({command!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        ("health", {"fastapi", "mcp", "mem0", "onnxruntime", "qdrant_client", "service.wiring", "sqlalchemy"}),
        ("mcp", {"fastapi", "onnxruntime", "mem0", "qdrant_client", "service.wiring", "sqlalchemy"}),
        ("key", {"fastapi", "mcp", "mem0", "qdrant_client", "service.api.app"}),
        ("serve", {"mem0", "qdrant_client"}),
    ],
)
def test_a_command_imports_no_more_than_it_needs(command: str, heavy: set[str]) -> None:
    """`health` runs every few seconds in each container; who has the embedded index needs no client of a server."""
    assert not heavy & imported_for(command)


def test_every_module_with_commands_is_among_them() -> None:
    """A module that nobody lists is not imported, and its commands are not there."""
    files = Path(service.cli.__path__[0]).glob("*.py")
    with_commands = {f"service.cli.{file.stem}" for file in files if "@app.command" in file.read_text()}
    assert "service.cli.audit_tail" in with_commands
    assert with_commands <= imported_for(None)
