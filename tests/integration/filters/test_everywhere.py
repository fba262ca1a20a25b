"""Every operator and nesting of the filter language over the wire: one table, rows of our own, and the same answer from
search, from every list, from exports, holds and retention rules.

What is expected is a plain Python condition on the rows as they were written. Neither the parser, the evaluator nor a
compiler has a part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import orjson
import pytest
from fastapi.testclient import TestClient

from service import clock
from service.auth.keys import Grant
from service.filters.ast import EVERYTHING
from service.filters.parse import parse_filter
from service.holds.rules import RuleBody
from service.holds.spans import Span
from service.main import create_app
from service.policy.table import ROLES
from service.portability.exports import Wanted
from service.records import Message, NewMemories, SubjectNames
from service.retention.holds import NewHold
from service.scope import Caller, TenantId
from service.wiring import Services
from tests.conftest import principal_of
from tests.docs.pages import code, table
from tests.integration.filters.everywhere_cases import CASES
from tests.integration.filters.everywhere_rows import ROWS

pytestmark = pytest.mark.integration


@pytest.fixture
def ids(services: Services, caller: Caller) -> dict[str, str]:
    """The rows, written; by name the id of each."""
    found = {}
    for row in ROWS:
        new = NewMemories(
            [Message("user", row.text, row.actor)],
            SubjectNames(row.user, row.agent, row.app, row.run),
            metadata=dict(row.metadata),
            infer=False,
            categories=row.categories,
            occurred_at=row.at,
            expires_on=row.end,
        )
        found[row.name] = str(services.adds.add(caller, caller.scope, new).results[0].memory_id)
    return found


def keyholder(services: Services, tenant: TenantId) -> Caller:
    """A caller with a key behind which a person is known, as holds need it."""
    grant = Grant(ROLES["admin"], owner="carla")
    secret = services.installation.keys.mint_for_installation(tenant, grant).secret
    principal = services.installation.keys.find_principal(secret)
    assert principal is not None
    return Caller(principal, request_id="test")


def surfaces(services: Services, caller: Caller, tenant: TenantId) -> Mapping[str, Callable[[Any], set[str]]]:
    """Everything that takes a filter, by name: from a filter as it comes over the wire to the ids that it finds."""
    client = TestClient(create_app(services), raise_server_exceptions=False)
    client.headers["Authorization"] = f"Token {principal_of(services, tenant)[1]}"

    def asked(path: str, **more: Any) -> Callable[[Any], set[str]]:
        def ask(raw: Any) -> set[str]:
            answer = client.post(path, json={"filters": raw, **more})
            assert answer.status_code == 200, (raw, answer.text)
            found = answer.json()
            return {one["id"] for one in (found["results"] if isinstance(found, dict) else found)}

        return ask

    holder = keyholder(services, tenant)

    def held(raw: Any) -> set[str]:
        where = parse_filter(raw)
        if where == EVERYTHING:
            # A hold on everything is refused.
            return asked("/v3/memories/?page_size=1000")(raw)
        new = NewHold(f"case-{clock.new_random_id()}", "the table", where=where)
        hold = services.installation.holds.place(holder, holder.scope, new)
        with services.installation.database.transaction(caller.scope) as connection:
            found = connection.exec_driver_sql(
                "SELECT memory_id FROM hold_members WHERE hold_id = %s", (hold.stored.id,)
            )
            return {str(one) for one in found.scalars()}

    query = {"query": "what is known?", "top_k": 1000, "threshold": 0}
    return {
        "search": asked("/v3/memories/search/", **query),
        "search of older clients": asked("/v2/memories/search/", **query),
        "list": asked("/v3/memories/?page_size=1000"),
        "list of older clients": asked("/v2/memories/"),
        "hold": held,
        "export": lambda raw: {
            str(memory.id) for memory in services.exports.memories(caller, caller.scope, Wanted(filters=raw))
        },
        "export in batches": lambda raw: {
            found["id"]
            for batch in services.exports.read(caller, caller.scope, Wanted(filters=raw))
            for found in map(orjson.loads, batch.lines)
            if found["type"] == "memory"
        },
    }


def filled(raw: Any, ids: Mapping[str, str]) -> Any:
    """A filter with the ids of the rows in it."""
    if isinstance(raw, dict):
        return {key: filled(value, ids) for key, value in raw.items()}
    if isinstance(raw, list):
        return [filled(value, ids) for value in raw]
    return ids[raw[4:-1]] if isinstance(raw, str) and raw.startswith("{id:") else raw


def test_a_filter_gives_the_same_rows_everywhere(
    services: Services, caller: Caller, tenant: TenantId, ids: dict[str, str]
) -> None:
    names = {memory_id: name for name, memory_id in ids.items()}
    asking = surfaces(services, caller, tenant)
    wrong = []
    for name, raw, meets in CASES:
        expected = {row.name for row in ROWS if meets(row)}
        for surface, ask in asking.items():
            found = {names[one] for one in ask(filled(raw, ids))}
            if found != expected:
                wrong.append(
                    f"{surface} / {name}: {sorted(found - expected)} too many, {sorted(expected - found)} missing"
                )
    assert not wrong, "\n".join(wrong)


def test_retention_rules_find_the_same_rows(services: Services, caller: Caller, ids: dict[str, str]) -> None:
    names = {memory_id: name for name, memory_id in ids.items()}
    rules, runs = services.installation.retention_rules, services.installation.retention_runs
    wrong = []
    for number, (name, raw, meets) in enumerate(CASES):
        # All rows are older than a day: what the rule finds due is what its filter means.
        body = RuleBody(f"case-{number}", parse_filter(filled(raw, ids)), age=Span("P1D"))
        rule = rules.create(caller, caller.scope, body)
        run = runs.start(caller, caller.scope, dry=True)
        runs.go_on(caller.scope, run.id)
        planned = runs.items(caller, caller.scope, run.id, page=1, size=1000).items
        rules.remove(caller, caller.scope, rule.id)
        found = {names[str(one.memory_id)] for one in planned if one.rule_id == rule.id}
        expected = {row.name for row in ROWS if meets(row)}
        if found != expected:
            wrong.append(f"{name}: {sorted(found - expected)} too many, {sorted(expected - found)} missing")
    assert not wrong, "\n".join(wrong)


def test_every_key_with_every_operator_is_in_the_table() -> None:
    documented = {
        (key, operator)
        for row in table("docs/api.md", "key")
        for key in code(row["key"])
        for operator in code(row["operators"])
    }
    assert len(documented) > 50
    assert documented - set(_used()) == set()


def test_the_table_tells_rows_apart() -> None:
    """A case that every row meets, or none, is there on purpose only."""
    assert len({name for name, _, _ in CASES}) == len(CASES) > 150
    telling = [name for name, _, meets in CASES if 0 < sum(meets(row) for row in ROWS) < len(ROWS)]
    assert len(telling) > 0.85 * len(CASES)


def _used() -> Iterator[tuple[str, str]]:
    plain = {"text": "contains", "keywords": "icontains", "keywords_search": "icontains"}

    def walk(raw: Any, key: str | None) -> Iterator[tuple[str, str]]:
        if isinstance(raw, list) and key is None:
            for part in raw:
                yield from walk(part, None)
        elif isinstance(raw, dict):
            for name, value in raw.items():
                if name.upper() in ("AND", "OR", "NOT"):
                    yield from walk(value, None)
                elif key is None:
                    yield from walk(value, name)
                elif isinstance(value, dict) or name not in _OPERATORS:
                    yield from walk(value, key)
                else:
                    yield key, name
        elif key is not None:
            yield key, "in" if isinstance(raw, list) else "exists" if raw in ("*", None) else plain.get(key, "eq")

    for _, raw, _ in CASES:
        yield from walk(raw, None)


_OPERATORS: Final = {"eq", "ne", "in", "exists", "contains", "icontains", "gt", "gte", "lt", "lte"}
