"""How long storms blow and from which seed: `--faults-minutes` and `--faults-seed`, or variables of these names."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.faults.storm import Orders
from tests.llm.scripted import ScriptedLLM
from tests.process.fixtures import written_model

__all__ = ["written_model"]

#: What CI runs; any other number is as good.
_SEED = 20261126


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the two options. They are known where this folder is named on the command line."""
    group = parser.getgroup("faults")
    group.addoption("--faults-minutes", type=float, help="minutes that each storm blows; default: a short one")
    group.addoption("--faults-seed", type=int, help="what the load and the faults are drawn from")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give long storms the time they need."""
    minutes = _minutes(config)
    if minutes is not None:
        for item in items:
            if item.path.parent.name == "faults":
                item.add_marker(pytest.mark.timeout(minutes * 60 + 900))


@pytest.fixture
def orders(request: pytest.FixtureRequest) -> Orders:
    """The seed and the length of a storm."""
    seed = request.config.getoption("--faults-seed", None) or os.environ.get("MEMVAULT_FAULTS_SEED") or _SEED
    return Orders(int(seed), _minutes(request.config), request.node.nodeid)


@pytest.fixture
def llm() -> Iterator[ScriptedLLM]:
    """A scripted LLM."""
    with ScriptedLLM() as server:
        yield server


def _minutes(config: pytest.Config) -> float | None:
    given = config.getoption("--faults-minutes", None) or os.environ.get("MEMVAULT_FAULTS_MINUTES")
    return float(given) if given else None
