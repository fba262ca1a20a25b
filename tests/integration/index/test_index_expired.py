"""The day of expiry is asked of the points only where something has expired, and holds from the next write on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from service.index import edge_engine
from service.index.edge_engine import EdgeEngine
from service.index.edge_shard import removed, stored
from service.index.interface import Point
from service.index.questions import Search
from service.index.scanning import SCAN_KB
from service.index.selection import Between, Every, Key, Selection, point_id, within
from service.scope import TenantId
from tests.integration.index.points import NOON, SIZE, TERMS, point, scope, vector

TODAY = NOON.date()
TENANT = scope().tenant_id


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EdgeEngine]:
    """A new shard, open in this process."""
    (tmp_path / "shard").mkdir()
    made = EdgeEngine.create(tmp_path / "shard", SIZE, SCAN_KB)
    yield made
    made.close()


def store(engine: EdgeEngine, *points: Point, tenant: TenantId = TENANT) -> None:
    engine.write([stored(tenant, points, SIZE)])


def found(engine: EdgeEngine, on: date | None) -> set[str]:
    allowed, corpus = within(TENANT, Every(), on=on), within(TENANT, Every())
    rows = engine.find(TENANT, Search(vector(), TERMS.query("tea"), allowed, corpus, 10, neighbours=True)).rows
    return {row[0] for row in rows}


def asks_for_the_day(selection: Selection) -> bool:
    match selection:
        case Between(Key.EXPIRES):
            return True
        case Every(parts):
            return any(map(asks_for_the_day, parts))
    return False


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each selection that is sent to the engine, whether it has the day among its conditions."""
    seen: list[bool] = []
    make = edge_engine.edge_filter

    def watched(selection: Selection) -> object:
        if selection != Between(Key.EXPIRES, lt=TODAY.toordinal()):
            seen.append(asks_for_the_day(selection))
        return make(selection)

    monkeypatch.setattr(edge_engine, "edge_filter", watched)
    return seen


def test_the_day_is_asked_for_only_where_something_has_expired(engine: EdgeEngine, sent: list[bool]) -> None:
    lasting, today = point(text="tea"), point(text="tea", expires_on=TODAY)
    store(engine, lasting, today)
    both = {str(lasting.memory_id), str(today.memory_id)}
    assert found(engine, TODAY) == both
    assert sent
    assert not any(sent)
    # Another tenant's counts too: what has expired is counted over the whole shard.
    store(engine, point(text="tea", expires_on=TODAY - timedelta(days=1)), tenant=scope().tenant_id)
    sent.clear()
    assert found(engine, TODAY) == both
    assert any(sent)


def test_what_expires_is_hidden_from_the_next_search_on(engine: EdgeEngine) -> None:
    lasting, ends = point(text="tea"), point(text="tea", expires_on=TODAY)
    store(engine, lasting)
    assert found(engine, TODAY) == {str(lasting.memory_id)}
    store(engine, ends)
    assert str(ends.memory_id) in found(engine, TODAY)
    # The days go by without a write.
    assert found(engine, TODAY + timedelta(days=1)) == {str(lasting.memory_id)}
    assert found(engine, None) == {str(lasting.memory_id), str(ends.memory_id)}
    # What had no end gets one, and another loses it.
    store(engine, point(lasting.memory_id, "tea", version=2, expires_on=TODAY - timedelta(days=1)))
    assert found(engine, TODAY) == {str(ends.memory_id)}
    store(engine, point(lasting.memory_id, "tea", version=3))
    assert found(engine, TODAY) == {str(lasting.memory_id), str(ends.memory_id)}
    engine.write([removed(TENANT, [point_id(TENANT, lasting.memory_id)])])
    assert found(engine, TODAY) == {str(ends.memory_id)}
