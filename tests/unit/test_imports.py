"""A command imports what it needs and no more: an agent that starts `memvault mcp` waits for each import."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit

_SCRIPT = (
    "import sys; from service.cli.app import commands; commands({command!r})\n"
    "print(sorted({heavy!r} & set(sys.modules)))"
)


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        ("mcp", {"fastapi", "onnxruntime", "mem0", "qdrant_client", "service.wiring", "sqlalchemy"}),
        ("key", {"fastapi", "mcp", "mem0", "qdrant_client", "service.api.app"}),
        ("serve", {"mem0", "qdrant_client"}),
    ],
)
def test_a_command_imports_no_more_than_it_needs(command: str, heavy: set[str]) -> None:
    """Also the client of a Qdrant server, which who has the embedded index never needs."""
    script = _SCRIPT.format(command=command, heavy=heavy)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
