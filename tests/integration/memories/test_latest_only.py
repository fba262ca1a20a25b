"""`latest_only`: of superseding facts the newest alone is given; nothing is overwritten, and a link can go again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import insert

from service import clock
from service.audit.moves import ImportSource
from service.filters.ast import EVERYTHING
from service.filters.parse import parse_filter
from service.memories.actions import Edit, Query
from service.portability.records import IncomingMemory, Placed
from service.records import Change, SubjectNames
from service.scope import Caller, SubjectKind
from service.storage.erasing import remove_memories
from service.storage.superseding import links_of, supersede
from service.storage.tables import SupersessionRow
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of
from tests.integration.memories.adding import add
from tests.integration.memories.extracting import ask, ended
from tests.integration.memories.test_quarantine import review
from tests.integration.portability.test_round_trip import exported, imported
from tests.llm.scripted import ScriptedLLM

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]


def found(services: Services, caller: Caller, query: str, *, latest: bool = True, limit: int = 10) -> set[str]:
    """The texts that a search finds."""
    hits = services.memories.search(caller, caller.scope, Query(query, limit=limit, latest=latest))
    return {hit.memory.text for hit in hits}


def listed(services: Services, caller: Caller, where: object = None, *, latest: bool = True) -> list[str]:
    """The texts that a list gives, sorted; its total must fit."""
    node = EVERYTHING if where is None else parse_filter(where)
    page = services.memories.list(caller, caller.scope, node, page=1, size=500, on=clock.today(), latest=latest)
    assert page.total == len(page.items)
    return sorted(memory.text for memory in page.items)


def one(services: Services, caller: Caller, text: str, **more: object) -> UUID:
    """Add a memory and return its id."""
    return add(services, caller, text, **more).results[0].memory_id  # type: ignore[arg-type]


def link(services: Services, caller: Caller, newer: UUID, older: Sequence[UUID]) -> int:
    """Link memories as an extraction does; return how many links hold."""
    with services.installation.database.transaction(caller.scope) as connection:
        return len(supersede(connection, caller.scope, {newer: older}).get(newer, []))


def test_the_newest_alone_is_found_and_the_older_ones_stay(services: Services, caller: Caller) -> None:
    rome, oslo, lima = (one(services, caller, f"Alice lives in {city}") for city in ("Rome", "Oslo", "Lima"))
    chess = one(services, caller, "Alice plays chess")
    assert link(services, caller, oslo, [rome]) == link(services, caller, lima, [oslo]) == 1
    everything = {"Alice lives in Rome", "Alice lives in Oslo", "Alice lives in Lima", "Alice plays chess"}
    assert found(services, caller, "where does Alice live?") == {"Alice lives in Lima", "Alice plays chess"}
    assert listed(services, caller) == ["Alice lives in Lima", "Alice plays chess"]
    # A filter that only the opened rows can decide takes the other way through the list.
    assert listed(services, caller, {"text": {"contains": "lives"}}) == ["Alice lives in Lima"]
    assert found(services, caller, "where does Alice live?", latest=False) == everything
    assert set(listed(services, caller, latest=False)) == everything
    assert services.memories.get(caller, caller.scope, rome).text == "Alice lives in Rome"
    assert [step.change for step in services.memories.history(caller, caller.scope, rome)] == [Change.ADD]
    # Without the newest the one before it is the newest, and what was changed by hand stays where it was.
    services.memories.delete(caller, caller.scope, lima)
    assert listed(services, caller) == ["Alice lives in Oslo", "Alice plays chess"]
    services.memories.delete(caller, caller.scope, oslo)
    services.memories.update(caller, caller.scope, chess, Edit(text="Alice plays go"))
    assert listed(services, caller) == ["Alice lives in Rome", "Alice plays go"]


def test_as_many_as_asked_for_whenever_they_exist(services: Services, caller: Caller) -> None:
    """The superseded ones are the nearest to the query and many more than are asked of the index at first."""
    old = [
        r.memory_id for r in add(services, caller, *(f"Alice lives in house {n} of Rome" for n in range(150))).results
    ]
    newer = one(services, caller, "Alice lives in Oslo")
    assert link(services, caller, newer, old) == 150
    far = [f"Note {n}: {word}" for n, word in enumerate(("bread", "rain", "wheels", "salt", "stars", "glass"))]
    add(services, caller, *far)
    hits = services.memories.search(
        caller, caller.scope, Query("Alice lives in a house of Rome", limit=7, threshold=-1.0, latest=True)
    )
    assert {hit.memory.text for hit in hits} == {"Alice lives in Oslo", *far}


def test_what_is_said_again_is_current_and_no_circle_hides_both(services: Services, caller: Caller) -> None:
    rome, oslo = one(services, caller, "Alice lives in Rome"), one(services, caller, "Alice lives in Oslo")
    link(services, caller, oslo, [rome])
    again = add(services, caller, "Alice lives in Rome.").results[0]
    assert (again.change, again.memory_id) == (Change.NONE, rome)
    assert listed(services, caller) == ["Alice lives in Oslo", "Alice lives in Rome"]
    link(services, caller, oslo, [rome])
    assert link(services, caller, rome, [oslo, rome]) == 1
    assert listed(services, caller) == ["Alice lives in Rome"]


def test_two_that_supersede_each_other_in_one_add_do_not_hide_each_other(services: Services, caller: Caller) -> None:
    rome, oslo = one(services, caller, "Alice lives in Rome"), one(services, caller, "Alice lives in Oslo")
    with services.installation.database.transaction(caller.scope) as connection:
        assert supersede(connection, caller.scope, {rome: [oslo], oslo: [rome]}) == {rome: [oslo]}
    assert listed(services, caller) == ["Alice lives in Rome"]


def test_only_memories_of_the_same_subjects_are_linked(services: Services, caller: Caller, database: Postgres) -> None:
    newer = one(services, caller, "lives in Oslo")
    others = [
        one(services, caller, "lives in Rome", user="bob"),
        one(services, caller, "lives in Rome", subjects=SubjectNames(user_id="alice", agent_id="helper")),
        one(services, caller, "lives in Rome", subjects=SubjectNames(agent_id="helper")),
    ]
    stranger = caller_of(services, services.installation.tenants.create("other").id)
    others += [one(services, stranger, "lives in Rome", user="alice"), clock.new_id()]
    assert link(services, caller, newer, others) == 0
    with psycopg.connect(database.admin) as connection:
        assert connection.execute("SELECT count(*) FROM supersessions").fetchone() == (0,)


def test_a_newer_one_that_has_expired_hides_nothing(services: Services, caller: Caller) -> None:
    rome = one(services, caller, "Alice is in Rome")
    oslo = one(services, caller, "Alice is in Oslo", expires_on=clock.today())
    link(services, caller, oslo, [rome])
    assert listed(services, caller) == ["Alice is in Oslo"]
    later = Query("Alice is in", latest=True, on=clock.today() + timedelta(days=1))
    hits = services.memories.search(caller, caller.scope, later)
    assert [hit.memory.text for hit in hits] == ["Alice is in Rome"]


def cities(services: Services, caller: Caller, *names: str, **more: object) -> list[UUID]:
    """Add where Alice lived, each superseded by the next; return their ids."""
    ids = [one(services, caller, f"Alice lives in {name}", **more) for name in names]
    for older, newer in itertools.pairwise(ids):
        assert link(services, caller, newer, [older]) == 1
    return ids


def test_what_is_superseded_stays_so_when_one_between_is_deleted(services: Services, caller: Caller) -> None:
    rome, oslo, lima, _, bonn = cities(services, caller, "Rome", "Oslo", "Lima", "Kiel", "Bonn")
    services.memories.delete(caller, caller.scope, oslo)
    assert listed(services, caller) == ["Alice lives in Bonn"]
    # Several of a chain at once, one of which is at its end.
    for ids in ([lima], [bonn]):
        services.batches.delete(caller, caller.scope, ids)
    assert listed(services, caller) == ["Alice lives in Kiel"]
    assert services.memories.get(caller, caller.scope, rome).text == "Alice lives in Rome"


def test_a_chain_of_which_several_go_at_once(services: Services, caller: Caller) -> None:
    chain = cities(services, caller, "Rome", "Oslo", "Lima", "Kiel", "Bonn", "Faro")
    services.batches.delete(caller, caller.scope, [chain[3], chain[1], chain[2], chain[5]])
    assert listed(services, caller) == ["Alice lives in Bonn"]
    assert listed(services, caller, latest=False) == ["Alice lives in Bonn", "Alice lives in Rome"]


def test_what_one_that_was_erased_superseded_stays_superseded(services: Services, caller: Caller) -> None:
    rome, oslo, _ = cities(services, caller, "Rome", "Oslo", "Lima")
    with services.installation.database.transaction(caller.scope) as connection:
        assert remove_memories(connection, caller.scope, [oslo]).rows["memories"] == 1
    assert listed(services, caller) == ["Alice lives in Lima"]
    with services.installation.database.transaction(caller.scope) as connection:
        assert [one.older_id for one in links_of(connection, [rome])] == [rome]


def test_a_link_that_was_dismissed_is_not_made_by_a_deletion(services: Services, caller: Caller) -> None:
    rome, oslo, lima = cities(services, caller, "Rome", "Oslo", "Lima")
    with services.installation.database.transaction(caller.scope) as connection:
        connection.execute(
            insert(SupersessionRow.__table__),  # type: ignore[attr-defined]
            {
                "tenant_id": caller.scope.tenant_id,
                "older_id": rome,
                "newer_id": lima,
                "kind": "changed",
                "state": "dismissed",
                "created_at": clock.now(),
            },
        )
    services.memories.delete(caller, caller.scope, oslo)
    assert listed(services, caller) == ["Alice lives in Lima", "Alice lives in Rome"]


def test_what_has_expired_passes_on_what_supersedes_it(services: Services, caller: Caller) -> None:
    rome = one(services, caller, "Alice is in Rome")
    oslo = one(services, caller, "Alice is in Oslo", expires_on=clock.today())
    link(services, caller, oslo, [rome])
    lima = one(services, caller, "Alice is in Lima", expires_on=clock.today() + timedelta(days=1))
    link(services, caller, lima, [oslo])

    def current_after(days: int) -> list[str]:
        query = Query("Alice is in", latest=True, on=clock.today() + timedelta(days=days))
        return [hit.memory.text for hit in services.memories.search(caller, caller.scope, query)]

    assert current_after(0) == current_after(1) == ["Alice is in Lima"]
    assert current_after(2) == ["Alice is in Rome"]


def test_an_export_takes_it_along_and_an_erasure_takes_it_away(
    services: Services, caller: Caller, database: Postgres
) -> None:
    moment = clock.now()
    older = IncomingMemory(clock.new_id(), "in Rome", SubjectNames(user_id="alice"), moment, moment)
    newer = IncomingMemory(
        clock.new_id(), "in Oslo", older.subjects, moment, moment, links=(older.id,), supersedes=(older.id,)
    )
    placed = [Placed("1", older), Placed("2", newer)]
    services.imports.run(caller, caller.scope, lambda: placed, origin=ImportSource.EXPORT)
    assert listed(services, caller) == ["in Oslo"]
    lines = exported(services, caller)
    rival = caller_of(services, services.installation.tenants.create("rival").id)
    imported(services, rival, lines)
    assert listed(services, rival) == ["in Oslo"]
    assert len(listed(services, rival, latest=False)) == 2
    for one_of_them in (caller, rival):
        services.entities.delete(one_of_them, one_of_them.scope, SubjectKind.USER, "alice")
    with psycopg.connect(database.admin) as connection:
        assert connection.execute("SELECT count(*) FROM supersessions").fetchone() == (0,)


def test_an_extraction_links_what_the_model_names(
    make_services: MakeServices, llm: ScriptedLLM, database: Postgres
) -> None:
    flags = {"provider": "openai", "config": llm.config, "timeout": 5.0}
    services = make_services(worker=True, llm=flags, queue={"poll_interval": 0.1})
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    llm.facts("Alice lives in Rome", "Alice has a cat called Tom")
    ended(services, caller, ask(services, caller, "I live in Rome with my cat Tom"))
    # Number 0 is the nearest to what was said: the home. The cat is linked, and is as it was.
    llm.facts({"text": "Alice moved to Oslo with Tom", "supersedes": ["0"], "linked_memory_ids": ["1"]})
    ended(services, caller, ask(services, caller, "Alice lives in Rome no more: moved to Oslo"))
    # Only asked where there is something that could be superseded.
    assert ["Superseded Memories" in request.system for request in llm.requests] == [False, True]
    assert listed(services, caller) == ["Alice has a cat called Tom", "Alice moved to Oslo with Tom"]
    assert len(listed(services, caller, latest=False)) == 3
    with psycopg.connect(database.admin) as connection:
        rows = connection.execute("SELECT detail FROM audit WHERE event = 'memory:added' ORDER BY seq").fetchall()
    assert [row[0].get("superseded") for row in rows] == [None, 1]
    # What waits for a reviewer supersedes nothing until it is approved.
    review(services, caller)
    llm.facts({"text": "Alice moved to Lima", "supersedes": ["0"]})
    event = ended(services, caller, ask(services, caller, "Alice moved to Oslo with Tom, and then to Lima"))
    assert listed(services, caller) == ["Alice has a cat called Tom", "Alice moved to Oslo with Tom"]
    services.reviews.approve(caller, caller.scope, [event.results[0].memory_id])
    assert listed(services, caller) == ["Alice has a cat called Tom", "Alice moved to Lima"]


@pytest.mark.parametrize("required", [False, True], ids=["at-once", "reviewed"])
def test_a_fact_that_is_true_again_is_current_again(
    make_services: MakeServices, llm: ScriptedLLM, required: bool
) -> None:
    flags = {"provider": "openai", "config": llm.config, "timeout": 5.0}
    services = make_services(worker=True, llm=flags, queue={"poll_interval": 0.1})
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    llm.facts("Alice lives in Rome")
    (first,) = ended(services, caller, ask(services, caller, "I live in Rome")).results
    llm.facts({"text": "Alice moved to Lisbon", "supersedes": ["0"]})
    current = ended(services, caller, ask(services, caller, "I moved to Lisbon")).results[0].memory_id
    assert listed(services, caller) == ["Alice moved to Lisbon"]
    review(services, caller, required=required)
    # What is past is not among what the model sees, so that what it says again is not left out.
    llm.facts("Alice lives in Rome")
    event = ended(services, caller, ask(services, caller, "I am back, I live in Rome"))
    assert "Alice moved to Lisbon" in llm.requests[-1].prompt
    assert "Alice lives in Rome" not in llm.requests[-1].prompt
    assert [(result.memory_id, result.change) for result in event.results] == [(first.memory_id, Change.NONE)]
    assert listed(services, caller) == ["Alice lives in Rome", "Alice moved to Lisbon"]
    review(services, caller, required=False)
    with services.installation.database.transaction(caller.scope) as connection:
        supersede(connection, caller.scope, {current: [first.memory_id]})
    llm.facts({"text": "Alice lives in Rome", "supersedes": ["0"]})
    ended(services, caller, ask(services, caller, "As I said, Lisbon is over and I live in Rome"))
    assert listed(services, caller) == ["Alice lives in Rome"]
