"""A tenant's search costs what the tenant holds and not what all hold: the tenant filter goes through its index."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import qdrant_edge

from service.filters.ast import EVERYTHING
from service.index.edge import EdgeIndex
from service.index.interface import ScopedIndex
from service.index.selection import Key
from tests.integration.index.points import TERMS, KnowsAll, point, scope

pytestmark = pytest.mark.integration

WIDE = 64
TENANTS = 100
EACH = 500


def _best(part: ScopedIndex) -> float:
    """Seconds of the quickest of some searches, so that a busy machine does not count."""
    took = []
    for _ in range(30):
        begun = time.perf_counter()
        assert part.search([1.0] * WIDE, TERMS.query("green tea"), EVERYTHING, KnowsAll(), limit=20).candidates
        took.append(time.perf_counter() - begun)
    return min(took)


def test_a_search_among_fifty_thousand_points(tmp_path: Path) -> None:
    index = EdgeIndex(tmp_path / "index", dimensions=WIDE, model="test")
    small, terms = scope(), TERMS.document("green tea")
    random = np.random.default_rng(0)
    index.of(small).upsert(
        [point(uuid4(), dense=row, text_terms=terms) for row in random.standard_normal((EACH, WIDE))]
    )
    alone = _best(index.of(small))
    for _ in range(TENANTS - 1):
        rows = random.standard_normal((EACH, WIDE))
        index.of(scope()).upsert([point(uuid4(), dense=row, text_terms=terms) for row in rows])
    assert index.count() == TENANTS * EACH
    assert _best(index.of(small)) < max(0.005, 4 * alone)
    index.close()
    (generation,) = (entry for entry in (tmp_path / "index").iterdir() if entry.is_dir())
    engine = qdrant_edge.EdgeShard.load(str(generation))
    # Without an index on the tenant every search would read 50,000 payloads, which takes more than 100 ms.
    assert engine.info().payload_schema.keys() == {key.value for key in Key}
    engine.close()
