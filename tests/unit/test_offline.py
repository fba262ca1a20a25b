"""What runs the tests without a network: it takes the network away, keeps the user and says when it cannot."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.offline import FORBIDDEN, OFFLINE, way
from tests.process.memvault import REPOSITORY

pytestmark = pytest.mark.unit

ASK = (
    "import os, socket\n"
    "from tests.offline import is_closed\n"
    "server = socket.create_server(('127.0.0.1', 0))\n"
    "socket.create_connection(server.getsockname()).close()\n"
    f"print(is_closed(), os.geteuid(), os.environ[{OFFLINE!r}])\n"
)


def offline(*command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.offline", *command],
        cwd=REPOSITORY,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_loopback_is_there_and_nothing_else() -> None:
    if way() is None:
        pytest.skip("this kernel gives this user no network namespace")
    ended = offline(sys.executable, "-c", ASK)
    assert (ended.returncode, ended.stdout) == (0, f"True {os.geteuid()} 1\n"), ended.stderr
    assert offline("sh", "-c", "exit 3").returncode == 3


def test_it_says_when_the_kernel_does_not_allow_it() -> None:
    ended = offline("true", PATH="/nowhere")
    assert ended.returncode == FORBIDDEN
    assert "no network namespace" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
