"""Small words for tests of retention: rules, memories of any age, dry and real runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from service import clock
from service.filters.parse import parse_filter
from service.holds.rules import CountedFrom, Rule, RuleAction, RuleBody
from service.holds.spans import Span
from service.records import Message, NewMemories, SubjectNames
from service.retention.plan import Planned
from service.scope import Caller
from service.wiring import Services
from tests.conftest import Postgres

AddOld = Callable[..., UUID]
SetRule = Callable[..., Rule]
Run = Callable[..., list[Planned]]


@pytest.fixture
def add_old(services: Services, caller: Caller, database: Postgres) -> AddOld:
    """Add one memory that was stored some days ago, and return its id."""

    def one(text: str, days: float = 0, *, expires_on: Any = None, **metadata: Any) -> UUID:
        names = SubjectNames(user_id=metadata.pop("user", "alice"))
        new = NewMemories([Message("user", text)], names, metadata, infer=False, expires_on=expires_on)
        memory_id = services.adds.add(caller, caller.scope, new).results[0].memory_id
        moment: datetime = clock.now() - timedelta(days=days)
        with psycopg.connect(database.admin, autocommit=True) as connection:
            connection.execute(
                "UPDATE memories SET created_at = %(at)s, updated_at = %(at)s, ingested_at = %(at)s WHERE id = %(id)s",
                {"at": moment, "id": memory_id},
            )
        return memory_id

    return one


@pytest.fixture
def set_rule(services: Services, caller: Caller) -> SetRule:
    """Set a rule."""

    def one(name: str, match: Any = None, **says: Any) -> Rule:
        for span in ("age", "grace", "minimum"):
            if span in says:
                says[span] = Span(says[span])
        says["action"] = RuleAction(says.get("action", "delete"))
        says["counted_from"] = CountedFrom(says.get("counted_from", "created"))
        body = RuleBody(name, where=parse_filter(match), **says)
        return services.installation.retention_rules.create(caller, caller.scope, body)

    return one


@pytest.fixture
def run(services: Services, caller: Caller) -> Run:
    """Run retention, dry or real, and return what it did or would do."""

    def one(*, dry: bool) -> list[Planned]:
        runs = services.installation.retention_runs
        begun = runs.start(caller, caller.scope, dry=dry)
        runs.go_on(caller.scope, begun.id)
        items: list[Planned] = []
        while True:
            page = runs.items(caller, caller.scope, begun.id, page=len(items) // 50 + 1, size=50)
            items += page.items
            if len(page.items) < 50:
                return items

    return one
