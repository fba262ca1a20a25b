"""A Qdrant server loses its data while replicas run: searches are refused until the index is whole again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from service.errors import IndexUnavailable
from service.memories import upkeep
from service.wiring import Services
from tests.conftest import Postgres, caller_of
from tests.integration.memories.adding import add, found
from tests.integration.memories.test_index_upkeep import eventually
from tests.integration.memories.test_model_change import opened
from tests.qdrant.serving import Qdrant, lose_data, qdrant

pytestmark = pytest.mark.integration


@pytest.fixture
def server() -> Iterator[Qdrant]:
    """A Qdrant server."""
    with qdrant() as running:
        yield running


def test_replicas_answer_all_or_nothing_and_make_the_index_again(
    server: Qdrant, database: Postgres, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_PASS_EVERY", 1.0)
    with ExitStack() as stack:
        replicas = [opened(database, data_dir, stack, server.url) for _ in range(2)]
        caller = caller_of(replicas[0], replicas[0].installation.tenants.create("acme").id)
        add(replicas[0], caller, *(f"note number {number}" for number in range(5)))
        refused = 0

        def whole(services: Services) -> bool:
            nonlocal refused
            try:
                assert len(found(services, caller, "note")) == 5
            except IndexUnavailable:
                refused += 1
                return False
            return True

        def says_so(services: Services) -> bool:
            return next(part.state for part in services.readiness() if part.name == "index") == "ok"

        assert all(whole(services) for services in replicas)
        lose_data(server)
        assert not any(says_so(services) for services in replicas)
        for services in replicas:
            eventually(lambda services=services: whole(services))  # type: ignore[misc]
        assert refused
        add(replicas[1], caller, "She drinks tea")
        for services in replicas:
            assert found(services, caller, "tea")[0] == "She drinks tea"
            eventually(lambda services=services: says_so(services))  # type: ignore[misc]
