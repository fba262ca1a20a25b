"""An index for each test: the embedded one, and one on a Qdrant server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.index.edge import EdgeIndex
from service.index.interface import Index
from service.index.server import ServerIndex
from service.index.server_requests import Layout
from tests.integration.index.points import SIZE
from tests.qdrant.serving import Qdrant, has_shard_keys, open_complete, qdrant_for_tests


@pytest.fixture
def edge_index(tmp_path: Path) -> Iterator[EdgeIndex]:
    """An empty embedded index."""
    opened = EdgeIndex(tmp_path / "index", dimensions=SIZE, model="test")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def qdrant() -> Iterator[Qdrant]:
    """A Qdrant server."""
    yield from qdrant_for_tests(grpc=False)


@pytest.fixture(scope="session")
def qdrant_over_grpc() -> Iterator[Qdrant]:
    """A Qdrant server that is spoken to over gRPC."""
    yield from qdrant_for_tests(grpc=True)


@pytest.fixture
def grpc_index(qdrant_over_grpc: Qdrant) -> Iterator[ServerIndex]:
    """An empty index on the server, over gRPC."""
    opened = open_complete(qdrant_over_grpc)
    yield opened
    opened.close()


@pytest.fixture
def server_index(qdrant: Qdrant) -> Iterator[ServerIndex]:
    """An empty index on the server, with collections of its own."""
    opened = open_complete(qdrant)
    yield opened
    opened.close()


@pytest.fixture
def keyed_index(qdrant: Qdrant) -> Iterator[ServerIndex]:
    """An empty index on the server, with shard keys."""
    yield from _keyed(qdrant)


@pytest.fixture
def keyed_grpc_index(qdrant_over_grpc: Qdrant) -> Iterator[ServerIndex]:
    """An empty index on the server, with shard keys, over gRPC."""
    yield from _keyed(qdrant_over_grpc)


def _keyed(served: Qdrant) -> Iterator[ServerIndex]:
    if not has_shard_keys(served):
        pytest.skip("Qdrant cluster absent: the server that is named makes no shard keys")
    opened = open_complete(served, layout=Layout(shard_keys=5))
    yield opened
    opened.close()


@pytest.fixture(params=["edge", "server", "grpc", "keyed", "keyed_grpc"])
def index(request: pytest.FixtureRequest) -> Index:
    """Each adapter in turn: what a test with it shows holds for both."""
    found: Index = request.getfixturevalue(f"{request.param}_index")
    return found
