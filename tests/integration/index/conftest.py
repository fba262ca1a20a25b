"""An index on the disk for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.index.edge import EdgeIndex
from tests.integration.index.points import SIZE


@pytest.fixture
def index(tmp_path: Path) -> Iterator[EdgeIndex]:
    """An empty index."""
    opened = EdgeIndex(tmp_path / "index", dimensions=SIZE, model="test")
    yield opened
    opened.close()
