"""Zero egress, asked of the kernel."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.offline import OFFLINE, is_closed
from tests.process.closed_network import run_closed

pytestmark = pytest.mark.promises


@pytest.fixture(scope="module")
def session(written_model: Path) -> Mapping[str, Any]:
    """A session from the first start to the stop, with extraction and commands, without a way out."""
    return run_closed(written_model)


def test_no_packet_leaves_the_machine(session: Mapping[str, Any]) -> None:
    """Zero egress: everything works in a network namespace that has no way out, and nothing is even tried."""
    assert session["control"] == ["192.0.2.1 port 9"]
    assert session["seen"] == []
    assert session["found"] == ["I live in Rome", "I love Italian food"]
    assert session["code"] == 0


def test_nothing_is_written_outside_of_the_data_folder(session: Mapping[str, Any]) -> None:
    """Home, temporary folder and working folder are as empty after a session as before, and nobody changed folder."""
    assert session["left"] == []
    assert session["cwd"]


def test_the_tests_themselves_run_without_a_network() -> None:
    """`make test-offline`, and `.ci/run` where the kernel allows it: the whole suite has loopback and nothing else."""
    if OFFLINE not in os.environ:
        pytest.skip("the suite runs beside a network: not by `make test-offline`, or the kernel gives no namespace")
    assert is_closed()
