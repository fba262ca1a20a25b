"""What supersedes what travels with an export: `latest_only` gives the same where it is imported."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson
import psycopg
import pytest

from service.memories.actions import Edit
from service.portability.lines import read_lines
from service.portability.records import Unreadable
from service.scope import Caller
from service.storage.superseding import Link, restate, supersede
from service.wiring import Services
from tests.conftest import Postgres, caller_of
from tests.integration.memories.test_consolidation import ALIKE, brought
from tests.integration.memories.test_latest_only import link, listed, one
from tests.integration.portability.test_round_trip import comparable, exported, imported

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]


@pytest.fixture
def rival(services: Services) -> Caller:
    """A caller of another tenant."""
    return caller_of(services, services.installation.tenants.create("rival").id)


@pytest.fixture
def homes(services: Services, caller: Caller) -> list[UUID]:
    """Three homes, each superseded by the next, and two that say the same, of which one was accepted as such."""
    rome, oslo, lima = (one(services, caller, f"Alice lives in {city}") for city in ("Rome", "Oslo", "Lima"))
    assert link(services, caller, oslo, [rome]) == link(services, caller, lima, [oslo]) == 1
    brought(services, caller, ALIKE[:2])
    consolidations = services.installation.consolidations
    consolidations.run(caller, caller.scope)
    assert len(consolidations.decide(caller, caller.scope, None, accept=True)) == 1
    assert listed(services, caller) == ["Alice lives in Lima", ALIKE[1]]
    return [rome, oslo, lima]


def links_in(database: Postgres, caller: Caller) -> set[tuple[Any, ...]]:
    """The links of a tenant as they are stored."""
    query = "SELECT older_id, newer_id, kind, state FROM supersessions WHERE tenant_id = %s"
    with psycopg.connect(database.admin) as connection:
        return set(connection.execute(query, [caller.principal.tenant_id]).fetchall())


@pytest.mark.parametrize("backwards", [False, True])
def test_latest_only_gives_the_same_in_whatever_order_and_batches_it_comes(
    services: Services,
    caller: Caller,
    rival: Caller,
    homes: list[UUID],
    database: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    backwards: bool,
) -> None:
    lines = exported(services, caller)
    # One at a time, so that each link is between two batches.
    monkeypatch.setattr("service.portability.imports._BATCH", 1)
    memories = [line for line in lines if line["type"] == "memory"]
    coming = memories[::-1] if backwards else lines
    for _ in range(2):
        imported(services, rival, coming)
        assert listed(services, rival) == listed(services, caller)
        assert listed(services, rival, latest=False) == listed(services, caller, latest=False)
        assert links_in(database, rival) == links_in(database, caller)
    assert {state[2] for state in links_in(database, rival)} == {"changed", "same"}
    if not backwards:
        assert comparable(exported(services, rival)) == comparable(lines)
    # Without the newest the one before it is current, there as here.
    for each in (caller, rival):
        services.memories.delete(each, each.scope, homes[2])
        assert listed(services, each) == ["Alice lives in Oslo", ALIKE[1]]


def test_what_holds_travels_and_not_what_was_once_said(
    services: Services, caller: Caller, rival: Caller, homes: list[UUID]
) -> None:
    lines = exported(services, caller)
    rome = next(line for line in lines if line.get("id") == str(homes[0]))
    oslo = next(line for line in lines if line.get("id") == str(homes[1]))
    # As an extraction tells it, of a link that went since.
    oslo |= {"supersedes": [str(homes[0])], "superseding": []}
    rome |= {"superseded_by": []}
    imported(services, rival, lines)
    assert listed(services, rival) == ["Alice lives in Lima", "Alice lives in Rome", ALIKE[1]]


def test_an_import_that_is_run_again_undoes_no_later_change(
    services: Services, caller: Caller, rival: Caller, homes: list[UUID]
) -> None:
    lines = exported(services, caller)
    imported(services, rival, lines)
    with services.installation.database.transaction(rival.scope) as connection:
        assert restate(connection, [homes[0]]) == 1
    imported(services, rival, lines)
    assert listed(services, rival) == ["Alice lives in Lima", "Alice lives in Rome", ALIKE[1]]


def test_a_file_of_an_earlier_release_and_one_end_alone_come_in(
    services: Services, caller: Caller, rival: Caller, homes: list[UUID], database: Postgres
) -> None:
    lines = exported(services, caller)
    for line in lines:
        for name in ("superseding", "superseded_by"):
            line.pop(name, None)
    told = next(line for line in lines if line.get("id") == str(homes[1]))
    told["supersedes"] = [str(homes[0])]
    imported(services, rival, lines)
    assert links_in(database, rival) == {(homes[0], homes[1], "changed", "linked")}
    another = caller_of(services, services.installation.tenants.create("another").id)
    alone = [line for line in exported(services, caller) if line.get("id") == str(homes[1])]
    imported(services, another, alone)
    assert links_in(database, another) == set()
    assert listed(services, another) == ["Alice lives in Oslo"]


def test_no_file_hides_two_memories_behind_each_other(
    services: Services, caller: Caller, rival: Caller, homes: list[UUID]
) -> None:
    lines = exported(services, caller)
    for line in lines:
        if line.get("id") in (str(homes[0]), str(homes[2])):
            other = homes[2] if line["id"] == str(homes[0]) else homes[0]
            line["superseding"] = [*line["superseding"], {"id": str(other), "kind": "changed"}]
    imported(services, rival, lines)
    assert [text for text in listed(services, rival) if "lives" in text]
    with services.installation.database.transaction(caller.scope) as connection:
        assert supersede(connection, caller.scope, {homes[0]: [homes[2]]}, anew=False) == {}
    assert listed(services, caller) == ["Alice lives in Lima", ALIKE[1]]


def test_a_link_of_a_kind_that_is_none_is_refused(services: Services, caller: Caller, homes: list[UUID]) -> None:
    (line,) = [line for line in exported(services, caller) if line.get("id") == str(homes[1])]
    placed = list(read_lines([("line 1", _bytes(line))]))
    assert set(placed[0].what.holding) == {Link(homes[0], homes[1], "changed"), Link(homes[1], homes[2], "changed")}  # type: ignore[union-attr, arg-type]
    for wrong in ([{"id": str(homes[0]), "kind": "better"}], [{"id": "x", "kind": "same"}], ["x"], [{"kind": "same"}]):
        with pytest.raises(Unreadable, match="line 1"):
            list(read_lines([("line 1", _bytes(line | {"superseding": wrong}))]))
    # An edit keeps the links, and an export tells so.
    services.memories.update(caller, caller.scope, homes[1], Edit(metadata={"checked": True}))
    (again,) = [line for line in exported(services, caller) if line.get("id") == str(homes[1])]
    assert (again["superseding"], again["superseded_by"]) == (line["superseding"], line["superseded_by"])


def _bytes(line: dict[str, Any]) -> bytes:
    return orjson.dumps(line)
