"""What is nearest is found at the default settings, whatever share of the memories a filter leaves: random data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from numpy.typing import NDArray

from service.filters.parse import parse_filter
from service.index import edge_shard
from service.index.edge import EdgeIndex
from service.index.interface import ScopedIndex
from service.index.questions import SparseTerms
from tests.filters.truth_rows import TOKENIZER
from tests.integration.index.points import KnowsAll, point, scope

pytestmark = pytest.mark.integration

SIZE = 384
COUNT = 20_000
ASKED = 10
#: Names of metadata, and of how many memories one has it.
SHARES = {"half": 2, "tenth": 10, "some": 100, "few": 1_000, "rare": 10_000}

Vectors = NDArray[np.float32]


def spread(random: np.random.Generator, count: int) -> Vectors:
    """Vectors in no direction more than in another: the hardest there are for a graph."""
    return unit(random.standard_normal((count, SIZE), dtype=np.float32))


def clustered(random: np.random.Generator, count: int) -> Vectors:
    """Vectors that differ in 32 directions for the most part, as those of texts do."""
    directions = np.random.default_rng(3).standard_normal((32, SIZE), dtype=np.float32)
    noise = random.standard_normal((count, SIZE), dtype=np.float32)
    return unit(random.standard_normal((count, 32), dtype=np.float32) @ directions + 0.3 * np.sqrt(32) * noise)


def unit(vectors: Vectors) -> Vectors:
    """The vectors with length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def filled(index: EdgeIndex, vectors: Vectors) -> tuple[ScopedIndex, list[UUID]]:
    """A tenant with these vectors, beside another one that has some that are as near."""
    ids = [uuid4() for _ in vectors]
    part, beside = index.of(scope()), index.of(scope())
    for start in range(0, len(ids), 1_000):
        part.upsert(
            [
                point(one, dense=vectors[number], tokens=TOKENIZER.row_tokens(metadata(number), [], None))
                for number, one in enumerate(ids[start : start + 1_000], start)
            ]
        )
    beside.upsert([point(dense=one) for one in vectors[:1_000]])
    return part, ids


def metadata(number: int) -> dict[str, Any]:
    """What the memory of this number has."""
    return {name: "yes" for name, one in SHARES.items() if number % one == 0}


def recall(part: ScopedIndex, ids: list[UUID], vectors: Vectors, questions: Vectors, name: str | None) -> float:
    """The share of the nearest that was found; fewer results than asked for, while there are more, fail at once."""
    where: dict[str, Any] = {"metadata": {name: "yes"}} if name else {}
    members = np.arange(0, len(ids), SHARES[name] if name else 1)
    found = wanted = 0
    for question in questions:
        nearest = members[np.argsort(-(vectors[members] @ question))[:ASKED]]
        answer = part.search(question.tolist(), SparseTerms(), parse_filter(where), KnowsAll(), limit=ASKED)
        best = sorted(answer.candidates, key=lambda one: -one.semantic)[:ASKED]
        assert len(best) == min(ASKED, len(members)), name
        found += len({ids[number] for number in nearest} & {one.memory_id for one in best})
        wanted += len(nearest)
    return found / wanted


@pytest.fixture
def index(tmp_path: Path) -> Iterator[EdgeIndex]:
    """An index with nothing in it."""
    made = EdgeIndex(tmp_path / "index", dimensions=SIZE, model="test")
    yield made
    made.close()


def test_what_is_nearest_is_found_behind_every_filter(index: EdgeIndex) -> None:
    random = np.random.default_rng(7)
    vectors, questions = spread(random, COUNT), spread(random, 40)
    part, ids = filled(index, vectors)
    for compacted in (False, True):
        if compacted:
            assert index.compact()
        for name in (None, *SHARES):
            assert recall(part, ids, vectors, questions, name) >= 0.99, (name, compacted)


def test_a_graph_finds_what_is_nearest_too(index: EdgeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    # The size from which on there is one is lowered, so that it does not take minutes to make.
    monkeypatch.setattr(edge_shard, "SCAN_KB", 15_000)
    random = np.random.default_rng(7)
    vectors, questions = clustered(random, COUNT), clustered(random, 40)
    part, ids = filled(index, vectors)
    assert index.compact()
    for name in (None, *SHARES):
        assert recall(part, ids, vectors, questions, name) >= 0.99, name
