"""Facts that changed among what is stored: the language model is asked once, strictly read, and links are proposed."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import yaml
from typer.testing import CliRunner

from service import clock
from service.audit.moves import ImportSource
from service.cli.app import commands
from service.memories.actions import Edit
from service.memories.changed_facts import ChangedFacts
from service.portability.records import IncomingMemory, Placed
from service.records import Change, SubjectNames
from service.retention.holds import NewHold
from service.scope import Caller, Limit
from service.storage.superseding import Link, supersede
from service.wiring import Services, open_changed
from tests.conftest import MakeServices, Postgres, caller_of
from tests.integration.memories.adding import add
from tests.integration.memories.test_latest_only import found, listed
from tests.llm.scripted import Request, ScriptedLLM

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]

HOMES = ("Alice lives in Rome", "Alice lives in Oslo")


@pytest.fixture
def llm() -> Iterator[ScriptedLLM]:
    """A scripted LLM over HTTP, which finds that the last of what it is shown makes all before it untrue."""
    with ScriptedLLM() as scripted:
        yield scripted.by_default(last_holds)


@pytest.fixture
def services(make_services: MakeServices, llm: ScriptedLLM) -> Services:
    """Services with that LLM and no worker."""
    return make_services(llm={"provider": "openai", "config": llm.config, "timeout": 30.0})


def asker(services: Services) -> ChangedFacts:
    """What asks, as the worker has it."""
    asker = open_changed(services.installation, services.engine)
    assert asker is not None
    return asker


def shown(request: Request) -> list[dict[str, Any]]:
    """The memories that a question shows."""
    return [json.loads(line) for line in request.prompt.splitlines()]


def last_holds(request: Request) -> str:
    """The answer that the last one makes all before it untrue."""
    *older, last = [one["number"] for one in shown(request)]
    return told(last, *older)


def told(newer: object, *older: object) -> str:
    """An answer with one entry."""
    return json.dumps({"changed": [{"newer": newer, "older": older}]})


def dated(
    services: Services, caller: Caller, texts: Sequence[str], user: str = "alice", *, days: int = 100, **subjects: str
) -> list[UUID]:
    """Import texts, each said a day after the one before, the first so many days ago; return their ids."""
    names = SubjectNames(user_id=user, **subjects)
    begin = clock.now() - timedelta(days=days)
    memories = []
    for number, text in enumerate(texts):
        moment = begin + timedelta(days=number)
        memories.append(IncomingMemory(clock.new_id(), text, names, moment, moment))
    placed = [Placed(str(number), memory) for number, memory in enumerate(memories)]
    services.imports.run(caller, caller.scope, lambda: placed, origin=ImportSource.EXPORT)
    return [memory.id for memory in memories]


def run(services: Services, caller: Caller) -> Sequence[Link]:
    """Look through a tenant as the job does."""
    return services.installation.consolidations.run(caller, caller.scope, changed=asker(services))


def rows(database: Postgres) -> list[dict[str, int]]:
    """What the trail counts of consolidations, zeros left out."""
    with psycopg.connect(database.admin) as connection:
        query = "SELECT detail FROM audit WHERE event = 'memories:consolidated' ORDER BY seq"
        return [{name: count for name, count in row[0].items() if count} for row in connection.execute(query)]


@pytest.fixture
def caller(services: Services) -> Caller:
    """A caller of one tenant."""
    return caller_of(services, services.installation.tenants.create("acme").id)


def test_a_changed_fact_is_proposed_and_once_accepted_hidden_from_latest_only(
    services: Services, caller: Caller, llm: ScriptedLLM, database: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "memvault")
    rome, oslo = (add(services, caller, text).results[0].memory_id for text in HOMES)
    add(services, caller, "Bob lives in Lima", user="bob")
    link = Link(rome, oslo, "changed")
    everything = listed(services, caller)
    assert run(services, caller) == [link]
    (request,) = llm.requests
    assert [one["memory"] for one in shown(request)] == list(HOMES)
    assert [one["day"] for one in shown(request)] == [clock.today().isoformat()] * 2
    # Proposed only; and what was asked about is not asked about again.
    assert listed(services, caller) == everything
    assert run(services, caller) == [link]
    assert len(llm.requests) == 1
    assert services.installation.consolidations.decide(caller, caller.scope, [rome], accept=True) == [link]
    assert HOMES[0] not in listed(services, caller)
    assert listed(services, caller, latest=False) == everything
    assert set(HOMES) <= found(services, caller, "where does Alice live?", latest=False)
    assert HOMES[0] not in found(services, caller, "where does Alice live?")
    assert [step.new_text for step in services.memories.history(caller, caller.scope, rome)] == [HOMES[0]]
    assert run(services, caller) == []
    assert len(llm.requests) == 1
    assert rows(database) == [
        {"asked": 2}, {"proposed": 1}, {"listed": 1}, {"listed": 1}, {"accepted": 1}, {},
    ]  # fmt: skip
    assert not [one for one in caplog.records if "Rome" in one.getMessage() or "Oslo" in one.getMessage()]


def test_nonsense_proposes_nothing_and_is_given_up_after_three_tries(
    services: Services, caller: Caller, llm: ScriptedLLM
) -> None:
    amiss = ("I think Rome", told(2, 3), told(1, 2))
    for number in range(len(amiss)):
        dated(services, caller, HOMES, f"user {number}")
    for asked in (3, 6, 9, 9):
        for answer in amiss:
            llm.answer(answer)
        # One that is amiss keeps no other from being asked about.
        assert run(services, caller) == []
        assert len(llm.requests) == asked
    # What is new or changed is asked about anew.
    llm._replies.clear()
    (lisbon,) = dated(services, caller, ["Alice lives in Lisbon"], "user 0", days=1)
    llm.answer('{"changed": []}')
    assert run(services, caller) == []
    assert len(llm.requests) == 10
    services.memories.update(caller, caller.scope, lisbon, Edit(text="Alice lives in Lagos"))
    assert {link.newer_id for link in run(services, caller)} == {lisbon}


def test_one_that_only_seems_newer_spoils_the_answer(services: Services, caller: Caller, llm: ScriptedLLM) -> None:
    """Of two that were said in the same moment neither supersedes the other, wherever they stand."""
    moment = clock.now() - timedelta(days=3)
    names = SubjectNames(user_id="alice")
    first = IncomingMemory(clock.new_id(), HOMES[0], names, moment - timedelta(days=1), moment - timedelta(days=1))
    twins = [IncomingMemory(clock.new_id(), f"Alice lives in {city}", names, moment, moment) for city in ("Bo", "Pau")]
    placed = [Placed(one.text, one) for one in (first, *twins)]
    services.imports.run(caller, caller.scope, lambda: placed, origin=ImportSource.EXPORT)
    llm.answer(told(3, 2))
    assert run(services, caller) == []
    assert len(shown(llm.requests[0])) == 3


@pytest.mark.parametrize("status", [500, 429, 401, None])
def test_a_model_that_is_away_is_left_alone_and_asked_again_the_next_time(
    services: Services, caller: Caller, llm: ScriptedLLM, status: int | None
) -> None:
    for user in ("alice", "bob", "carol"):
        dated(services, caller, HOMES, user)
    if status is None:
        # Later than the engine waits.
        for _ in range(2):
            llm.slow(2.0)
        services.engine._wait_until_loaded(60)
        hasty = asker(services)
        hasty._wait = 0.3
        links = services.installation.consolidations.run(caller, caller.scope, changed=hasty)
    else:
        for _ in range(2):
            llm.status(status)
        links = run(services, caller)
    assert links == []
    llm.wait_for_requests(1 if status in (429, 401) else 2)
    # Two questions for what may be a bad moment, one for what each question meets.
    assert len(llm.requests) == (1 if status in (429, 401) else 2)
    assert services.installation.consolidations.proposed(caller.scope) == []
    if status in (429, 401):
        llm.status(status)
        run(services, caller)
    llm._replies.clear()
    assert len(run(services, caller)) == 3
    asked = len(llm.requests)
    run(services, caller)
    assert len(llm.requests) == asked


def test_memories_of_two_users_never_share_a_question(services: Services, caller: Caller, llm: ScriptedLLM) -> None:
    # The same words, so that the nearest of each are another's.
    for user in ("alice", "bob"):
        dated(services, caller, [f"{user}: I live in Rome", f"{user}: I live in Oslo"], user)
    dated(services, caller, ["helper: lives in Rome", "helper: lives in Oslo"], agent_id="helper")
    dated(services, caller, ["alone: lives in Lima"], "carol")
    stranger = caller_of(services, services.installation.tenants.create("other").id)
    dated(services, stranger, ["other: I live in Rome", "other: I live in Oslo"])
    for each in (caller, stranger):
        run(services, each)
    questions = [{one["memory"].split(":")[0] for one in shown(request)} for request in llm.requests]
    assert sorted(map(sorted, questions)) == [["alice"], ["bob"], ["helper"], ["other"]]
    assert len(services.installation.consolidations.proposed(caller.scope)) == 3


def test_nothing_leaves_without_a_model_or_leave(
    services: Services, caller: Caller, llm: ScriptedLLM, database: Postgres
) -> None:
    dated(services, caller, HOMES)
    consolidations = services.installation.consolidations
    assert consolidations.run(caller, caller.scope) == []
    assert consolidations.run(caller, caller.scope, dry=True, changed=asker(services)) == []
    tenants = services.installation.tenants
    tenants.set_limits("acme", {Limit.LLM_CALLS_PER_DAY: 0})
    assert run(services, caller) == []
    with psycopg.connect(database.admin) as connection:
        # The older one has none before it; the newer one waits.
        assert connection.execute("SELECT count(*) FROM comparisons").fetchone() == (1,)
    tenants.set_limits("acme", {Limit.LLM_CALLS_PER_DAY: 1})
    dated(services, caller, HOMES, "bob")
    assert llm.requests == []
    assert len(run(services, caller)) == 1
    assert len(run(services, caller)) == 1
    assert len(llm.requests) == 1
    assert services.installation.quotas.used(caller.principal.tenant_id).counts[Limit.LLM_CALLS_PER_DAY] == 1


def test_what_is_held_is_neither_shown_nor_proposed(services: Services, caller: Caller, llm: ScriptedLLM) -> None:
    dated(services, caller, HOMES)
    (pets,) = [dated(services, caller, ["Bob has a dog", "Bob has a cat now"], "bob")]
    ben = caller_of(services, caller.principal.tenant_id, owner="ben@example.org")
    holds = services.installation.holds
    holds.place(ben, ben.scope, NewHold("case", "why", subjects=SubjectNames(user_id="alice")))
    assert run(services, caller) == [Link(pets[0], pets[1], "changed")]
    (request,) = llm.requests
    assert "Alice" not in request.prompt
    # Held while it is asked about.
    dated(services, caller, ["Carol is in Rome", "Carol is in Oslo"], "carol")

    def hold_meanwhile(request: Request) -> str:
        holds.place(ben, ben.scope, NewHold("case 2", "why", subjects=SubjectNames(user_id="carol")))
        return last_holds(request)

    llm.by_default(hold_meanwhile)
    assert len(run(services, caller)) == 1


def test_what_was_dismissed_or_changed_meanwhile_is_not_proposed(
    services: Services, caller: Caller, llm: ScriptedLLM
) -> None:
    rome, oslo = dated(services, caller, HOMES)
    consolidations = services.installation.consolidations
    assert run(services, caller) == [Link(rome, oslo, "changed")]
    assert consolidations.decide(caller, caller.scope, None, accept=False) == [Link(rome, oslo, "changed")]
    # A newer one asks about both, and the model names the dismissed pair too.
    (lima,) = dated(services, caller, ["Alice lives in Lima"], days=1)
    llm.answer(json.dumps({"changed": [{"newer": 3, "older": [2, 1]}, {"newer": 2, "older": [1]}]}))
    assert set(run(services, caller)) == {Link(rome, lima, "changed"), Link(oslo, lima, "changed")}
    (bonn,) = dated(services, caller, ["Alice lives in Bonn"], days=0)

    def edit_meanwhile(request: Request) -> str:
        services.memories.update(caller, caller.scope, lima, Edit(text="Alice has lived in Lima once"))
        return last_holds(request)

    llm.by_default(edit_meanwhile)
    assert {link.older_id for link in run(services, caller) if link.newer_id == bonn} == {rome, oslo}


def test_what_was_said_again_since_is_not_proposed(services: Services, caller: Caller, llm: ScriptedLLM) -> None:
    """She moved back: the first home is what she said last, whatever the dates of the memories look like."""
    rome, oslo = (add(services, caller, text).results[0].memory_id for text in HOMES)
    (again,) = add(services, caller, "alice lives in Rome.").results
    assert (again.change, again.memory_id) == (Change.NONE, rome)
    assert run(services, caller) == []
    assert len(llm.requests) == 1
    # Changed by hand it is what was said last.
    services.memories.update(caller, caller.scope, oslo, Edit(text="Alice lives in Oslo now"))
    assert run(services, caller) == [Link(rome, oslo, "changed")]
    # Said twice before she moved.
    here, _, there = (add(services, caller, f"Bob lives in {city}", user="bob") for city in ("Rome", "Rome", "Oslo"))
    ids = [event.results[0].memory_id for event in (here, there)]
    assert Link(*ids, "changed") in run(services, caller)


def test_chains_are_accepted_in_any_order_and_no_circle_hides_all(
    services: Services, caller: Caller, llm: ScriptedLLM, database: Postgres
) -> None:
    rome, oslo, _ = dated(services, caller, [*HOMES, "Alice lives in Lima"])
    llm.answer(json.dumps({"changed": [{"newer": 2, "older": [1]}, {"newer": 3, "older": [2]}]}))
    assert len(run(services, caller)) == 2
    consolidations = services.installation.consolidations
    for one in (oslo, rome):
        assert len(consolidations.decide(caller, caller.scope, [one], accept=True)) == 1
    assert listed(services, caller) == ["Alice lives in Lima"]
    # Bob moves back before the proposal is accepted.
    here, there = dated(services, caller, ["Bob lives in Rome", "Bob lives in Oslo"], "bob")
    assert len(run(services, caller)) == 1
    with services.installation.database.transaction(caller.scope) as connection:
        supersede(connection, caller.scope, {here: [there]})
    assert consolidations.decide(caller, caller.scope, None, accept=True) == []
    assert consolidations.proposed(caller.scope) == []
    assert listed(services, caller, {"user_id": "bob"}) == ["Bob lives in Rome"]
    # The trail names what was not linked.
    with psycopg.connect(database.admin) as connection:
        query = "SELECT detail->>'dismissed', target_ids, result_ids FROM audit"
        query += " WHERE event = 'memories:consolidated' ORDER BY seq DESC LIMIT 1"
        assert connection.execute(query).fetchone() == ("1", [there], [here])


def test_each_look_asks_so_many_questions_and_the_next_one_goes_on(
    make_services: MakeServices, llm: ScriptedLLM
) -> None:
    services = make_services(
        llm={"provider": "openai", "config": llm.config, "timeout": 30.0}, duplicates={"questions": 2}
    )
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    for number in range(5):
        dated(services, caller, HOMES, f"user {number}")
    assert [len(run(services, caller)) for _ in range(4)] == [2, 4, 5, 5]
    assert len(llm.requests) == 5
    # Interrupted while the model thinks: what was answered stays, and the next look goes on.
    for number in range(3):
        dated(services, caller, ["Tea is the drink of choice", "Coffee is the drink of choice"], f"drinker {number}")
    engine, calls = services.engine, iter(range(10))

    class Dying:
        def find_changes(self, *arguments: Any, **more: Any) -> Any:
            if next(calls) == 1:
                raise KeyboardInterrupt
            return engine.find_changes(*arguments, **more)

    dying = open_changed(services.installation, Dying())  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        services.installation.consolidations.run(caller, caller.scope, changed=dying)
    assert len(services.installation.consolidations.proposed(caller.scope)) == 6
    assert len(run(services, caller)) == 8
    never = services.settings.duplicates.model_copy(update={"questions": 0})
    off = services.settings.model_copy(update={"duplicates": never})
    assert open_changed(replace(services.installation, settings=off)) is None


def test_what_comes_in_late_is_compared_with_what_was_asked_about_before(
    services: Services, caller: Caller, llm: ScriptedLLM
) -> None:
    (oslo,) = dated(services, caller, ["Alice lives in Oslo", "Alice has a bicycle"], days=10)[:1]
    llm.answer('{"changed": []}')
    run(services, caller)
    (rome,) = dated(services, caller, HOMES[:1], days=50)
    llm.by_default(lambda request: told(*[one["number"] for one in shown(request) if "lives" in one["memory"]][::-1]))
    assert run(services, caller) == [Link(rome, oslo, "changed")]


def test_vectors_of_another_size_are_not_compared(services: Services, caller: Caller, llm: ScriptedLLM) -> None:
    """While a model comes to give another number of numbers the record has vectors of both, under one name."""
    ids = dated(services, caller, [*HOMES, "Alice lives in Lima"])
    record = services.installation.record
    with services.installation.database.transaction(caller.scope) as connection:
        entries = record.index_entries(connection, caller.scope, ids)
        short = [replace(entries[one], vector=entries[one].vector[:24]) for one in ids[:1]]
        record.replace_vectors(connection, caller.scope, short)
    assert run(services, caller) == [Link(ids[1], ids[2], "changed")]


def test_many_of_one_user_go_in_questions_of_a_bounded_size(
    services: Services, caller: Caller, llm: ScriptedLLM, database: Postgres
) -> None:
    dated(services, caller, [f"Alice lives in house {number} of Rome" for number in range(40)])
    dated(services, caller, ["x" * 2_001, "Alice likes tea. " + "y" * 1990], "bob")
    llm.by_default(lambda _: '{"changed": []}')
    run(services, caller)
    assert len(llm.requests) >= 4
    assert max(len(shown(request)) for request in llm.requests) <= 30
    assert "Bob" not in "".join(request.prompt for request in llm.requests)
    with psycopg.connect(database.admin) as connection:
        assert connection.execute("SELECT count(*), bool_and(settled) FROM comparisons").fetchone() == (42, True)


def test_workers_ask_too_and_leave_a_model_that_is_away(services: Services, caller: Caller, llm: ScriptedLLM) -> None:
    other = caller_of(services, services.installation.tenants.create("other").id)
    for each in (caller, other):
        dated(services, each, HOMES)
    consolidations = services.installation.consolidations
    living = services.installation.tenants.living_ids
    ((_, (_, work)),) = consolidations.periodic("30 3 * * *", living, changed=asker(services)).items()
    llm.status(401)
    work(0)
    assert len(llm.requests) == 1
    work(0)
    assert [len(consolidations.proposed(each.scope)) for each in (caller, other)] == [1, 1]


def test_the_command_line_asks_beside_a_running_service_and_accepts(
    services: Services, caller: Caller, llm: ScriptedLLM, database: Postgres, tmp_path: Path
) -> None:
    rome, oslo = (str(one) for one in dated(services, caller, HOMES))
    config = tmp_path / "config.yaml"
    model = {"provider": "openai", "config": llm.config, "timeout": 30.0}
    config.write_text(
        yaml.safe_dump({"data_dir": str(services.settings.data_dir), "database": database.urls, "llm": model})
    )
    link = {"older_id": rome, "newer_id": oslo, "kind": "changed"}
    for arguments, proposed, decided, asked in (
        (["--dry-run"], [], [], 0),
        ([], [link], [], 1),
        (["--accept", rome], [], [link], 1),
    ):
        ran = CliRunner().invoke(commands(), ["consolidate", *arguments, "--config", str(config), "--json"])
        assert ran.exit_code == 0, ran.output
        (told_of,) = [one for one in json.loads(ran.stdout)["tenants"] if one["tenant"] == "acme"]
        assert (told_of["proposed"], told_of["decided"], len(llm.requests)) == (proposed, decided, asked)
    assert listed(services, caller) == [HOMES[1]]
