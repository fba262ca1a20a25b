"""Runs on real PostgreSQL: a dry one is what the real one does, nothing else is touched, and a crash harms nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import yaml
from sqlalchemy import true

from service import clock
from service.audit.moves import ImportSource
from service.errors import MinimumRetention
from service.memories.actions import Edit, Query
from service.portability.records import IncomingMemory, Placed
from service.records import Message, NewMemories, SubjectNames
from service.retention import runs as runs_module
from service.retention.holds import NewHold
from service.retention.plan import Step
from service.retention.sweeping import RETAIN
from service.scope import Caller, SubjectKind, TenantId
from service.storage.record import Record
from service.wiring import Services
from tests.conftest import Postgres, caller_of
from tests.integration.rules.conftest import AddOld, Run, SetRule

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]

State = Callable[[], dict[UUID, Any]]


@pytest.fixture
def state(database: Postgres) -> State:
    """Every memory as it is stored."""

    def rows() -> dict[UUID, Any]:
        with psycopg.connect(database.admin) as connection:
            return {
                row[0]: row[1:] for row in connection.execute("SELECT id, expires_on, content, version FROM memories")
            }

    return rows


@pytest.mark.parametrize("seed", range(12))
def test_a_dry_run_is_what_the_real_run_does(
    seed: int,
    services: Services,
    caller: Caller,
    add_old: AddOld,
    set_rule: SetRule,
    run: Run,
    state: State,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(runs_module, "STEP", chance.choice((1, 3, 500)))
    labels = ("tea", "tax", "log")
    for number in range(chance.randrange(1, 5)):
        action = chance.choice(("delete", "delete", "hide", "keep"))
        label = chance.choice((None, *labels))
        says: dict[str, Any] = {"action": action, "priority": chance.randrange(3)}
        if action != "keep":
            age = chance.choice(("P1M", f"P{chance.randrange(40)}D", f"P{chance.randrange(40)}D"))
            says |= {"age": age, "counted_from": chance.choice(("created", "updated", "used"))}
        if action == "hide":
            says["grace"] = f"P{chance.randrange(20)}D"
        if chance.random() < 0.3:
            says["minimum"] = f"P{chance.randrange(40)}D"
        match = {"metadata": {"label": label}} if label else chance.choice((None, {"text": {"contains": "1"}}))
        set_rule(f"rule-{number}", match, **says)
    ids = []
    for number in range(14):
        expires_on = (clock.now() + timedelta(days=5)).date() if chance.random() < 0.2 else None
        ids.append(add_old(f"m {number}", chance.randrange(60), expires_on=expires_on, label=chance.choice(labels)))
    held = set(chance.sample(ids, 2))
    installation = services.installation
    hold = NewHold("case", "why", memory_ids=sorted(held))
    installation.holds.place(caller, caller.scope, hold)
    before = state()
    with monkeypatch.context() as patched:
        patched.setattr(runs_module, "may_be_due", lambda *_, **__: true())
        of_all = run(dry=True)
    dry = run(dry=True)
    assert state() == before
    real = run(dry=False)
    after = state()

    def told(items: list[Any]) -> dict[UUID, tuple[Step, UUID | None]]:
        return {one.memory_id: (one.step, one.rule_id) for one in items}

    assert told(of_all) == told(dry) == told(real)
    deleted = {one.memory_id for one in real if one.step is Step.DELETE}
    hidden = {one.memory_id for one in real if one.step is Step.HIDE}
    assert before.keys() - after.keys() == deleted
    assert {one for one in after if after[one] != before[one]} == hidden
    assert not held & (deleted | hidden)
    assert all(after[one][1] == before[one][1] for one in hidden)
    assert run(dry=False) == []


def test_a_run_opens_only_what_may_be_due(
    services: Services, caller: Caller, add_old: AddOld, set_rule: SetRule, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[UUID] = []
    find = Record.find

    def noted(self: Record, connection: Any, scope: Any, ids: Any, **more: Any) -> Any:
        opened.extend(ids)
        return find(self, connection, scope, ids, **more)

    old = [add_old("old tea", 400, label="tea"), add_old("old coffee", 400, label="coffee")]
    young = add_old("young tea", 20, label="tea")
    over = add_old("over", 5, expires_on=date(2020, 1, 1))
    add_old("not over", 5, expires_on=date(2999, 1, 1))
    monkeypatch.setattr(Record, "find", noted)
    assert [one.memory_id for one in run(dry=True)] == opened == [over]
    for number, (says, due) in enumerate(
        (
            ({"action": "keep"}, {over}),
            ({"action": "keep", "minimum": "P10Y", "priority": -1}, {over}),
            ({"match": {"metadata": {"label": "tea"}}, "age": "P1Y", "counted_from": "used"}, {over, old[0]}),
            ({"match": {"text": {"contains": "o"}}, "age": "P1M"}, {over, *old}),
            ({"age": "P19D", "action": "hide", "priority": 9}, {over, young, *old}),
        )
    ):
        opened.clear()
        set_rule(f"rule-{number}", **says)
        report = services.installation.retention_runs.start(caller, caller.scope, dry=True)
        done = services.installation.retention_runs.go_on(caller.scope, report.id)
        assert (set(opened), done.run.seen) == (due, 5)


def test_the_set_for_summaries_knows_those_of_connectors_and_their_labels(
    add_old: AddOld, set_rule: SetRule, run: Run, state: State
) -> None:
    for one in yaml.safe_load((ROOT / "config/retention/temporary-summaries.yaml").read_text())["rules"]:
        del one["description"]
        set_rule(one.pop("name"), **one)
    goes = [
        add_old("told by a tool", 40, labels=["escalation", "interaction_summary"]),
        add_old("b", 40, kind="summary"),
    ]
    goes.append(add_old("labelled", 40, labels=["summary"]))
    stays = [
        add_old("likes tea", 40, labels=["interaction_summary", "preference"]),
        add_old("a fact", 40, labels=["x"]),
    ]
    stays.append(add_old("young", 20, labels=["interaction_summary"]))
    assert {one.memory_id for one in run(dry=False)} == set(goes)
    assert state().keys() == set(stays)


def test_a_memory_of_the_last_day_of_the_calendar_holds_up_no_run(
    services: Services, caller: Caller, add_old: AddOld, run: Run, state: State, database: Postgres
) -> None:
    stays, gone = add_old("stays", 40, expires_on=date.max), add_old("goes", 40, expires_on=date.max)
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("UPDATE memories SET expires_on = '2000-01-01' WHERE id = %s", [gone])
    for dry in (True, False):
        assert [one.memory_id for one in run(dry=dry)] == [gone]
    assert state().keys() == {stays}
    assert services.installation.retention_runs.unfinished(caller.scope) == []


def test_the_deleted_leave_history_index_and_messages(
    services: Services, caller: Caller, add_old: AddOld, set_rule: SetRule, run: Run, database: Postgres
) -> None:
    gone, stays = add_old("I love tea", 40), add_old("I love coffee", 1)
    rule = set_rule("old", age="P30D")
    (planned,) = run(dry=False)
    assert (planned.memory_id, planned.rule_id, planned.rule_version) == (gone, rule.id, 1)
    services.indexing.drain()
    hits = services.memories.search(caller, caller.scope, Query("I love tea"))
    assert [hit.memory.id for hit in hits] == [stays]
    steps = services.memories.history(caller, caller.scope, gone)
    assert [step.new_text for step in steps] == [None, None]
    with psycopg.connect(database.admin) as connection:
        rows = connection.execute("SELECT target_ids, detail FROM audit WHERE event = 'memories:forgotten'").fetchall()
    assert [row[0] for row in rows] == [[gone]]
    assert (rows[0][1]["deleted"], rows[0][1]["hidden"]) == (1, 0)


def test_a_run_that_is_cut_short_goes_on_and_deletes_nothing_else(
    services: Services,
    caller: Caller,
    add_old: AddOld,
    set_rule: SetRule,
    run: Run,
    state: State,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runs_module, "STEP", 2)
    old = {add_old(f"old {number}", 40) for number in range(7)}
    young = {add_old(f"young {number}", 1) for number in range(3)}
    set_rule("old", age="P30D")
    dry = run(dry=True)
    runs, steps = services.installation.retention_runs, []

    def die(seen: int) -> None:
        steps.append(seen)
        if len(steps) == 2:
            raise KeyboardInterrupt

    begun = runs.start(caller, caller.scope, dry=False)
    with pytest.raises(KeyboardInterrupt):
        runs.go_on(caller.scope, begun.id, progress=die)
    assert young < state().keys() < old | young
    assert runs.unfinished(caller.scope) == [begun.id]
    # Whoever asks next takes up the same run; so does the worker.
    assert runs.start(caller, caller.scope, dry=False).id == begun.id
    report = runs.go_on(caller.scope, begun.id)
    assert state().keys() == young
    assert (report.run.deleted, report.run.seen) == (7, 10)
    items = runs.items(caller, caller.scope, begun.id, page=1, size=50).items
    assert {one.memory_id for one in items} == {one.memory_id for one in dry} == old
    services.retention_jobs.run(str(caller.scope.tenant_id))
    assert state().keys() == young


def test_a_dry_run_that_a_stop_cut_short_leaves_after_a_day(
    services: Services, caller: Caller, set_rule: SetRule, add_old: AddOld, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_rule("old", age="P1Y")
    add_old("last week", 7)
    runs = services.installation.retention_runs
    dry, ended, real = (runs.start(caller, caller.scope, dry=dry) for dry in (True, True, False))
    runs.go_on(caller.scope, ended.id)
    now = clock.now
    forgotten = runs.forget_old(caller.scope, before=now() - timedelta(days=90))
    monkeypatch.setattr(clock, "now", lambda: now() + timedelta(hours=25))
    assert (forgotten, runs.forget_old(caller.scope, before=now() - timedelta(days=90))) == (0, 1)
    left = runs.list(caller, caller.scope, page=1, size=10)
    assert {one.id for one in left.items} == {ended.id, real.id}
    assert dry.id not in {one.id for one in left.items}


def test_a_minimum_stands_above_deletes_rules_and_changes(
    services: Services, caller: Caller, add_old: AddOld, set_rule: SetRule, run: Run, state: State
) -> None:
    kept, free = add_old("record", 40, label="record"), add_old("other", 40)
    rule = set_rule("records", {"metadata": {"label": "record"}}, age="P30D", minimum="P6Y")
    memories, scope = services.memories, caller.scope
    refused = (
        lambda: memories.delete(caller, scope, kept),
        lambda: memories.delete_all(caller, scope, SubjectNames(user_id="alice")),
        lambda: memories.update(caller, scope, kept, Edit(metadata={})),
        lambda: services.entities.delete(caller, scope, SubjectKind.USER, "alice"),
    )
    for call in refused:
        with pytest.raises(MinimumRetention, match="minimum retention"):
            call()
    report = services.batches.delete(caller, scope, [kept, free])
    assert [type(one) for one in report] == [MinimumRetention, type(None)]
    assert run(dry=False) == []
    memories.update(caller, scope, kept, Edit(text="record, corrected"))
    assert state().keys() == {kept}
    services.installation.retention_rules.remove(caller, scope, rule.id)
    memories.delete(caller, scope, kept)


def test_a_memory_that_is_shown_lives_on(
    services: Services, caller: Caller, add_old: AddOld, set_rule: SetRule, run: Run, database: Postgres
) -> None:
    read, unread = add_old("I love tea", 40), add_old("I love coffee", 40)
    set_rule("unused", age="P30D", counted_from="used")
    services.memories.get(caller, caller.scope, read)
    assert [one.memory_id for one in run(dry=False)] == [unread]


@pytest.mark.parametrize("versions", [1, 2])
def test_what_was_changed_where_it_came_from_counts_from_that_change(
    services: Services, caller: Caller, set_rule: SetRule, run: Run, state: State, versions: int
) -> None:
    """Whether its source told its history or not."""

    def come_in(text: str, changed: int) -> UUID:
        first, last = (clock.now() - timedelta(days=days) for days in (1100, changed))
        memory = IncomingMemory(clock.new_random_id(), text, SubjectNames(user_id="alice"), first, last)
        memory = replace(memory, version=versions)
        services.imports.run(caller, caller.scope, lambda: [Placed("1", memory)], origin=ImportSource.PLATFORM)
        return memory.id

    stays, never, long_ago = come_in("I love tea", 7), come_in("I love rain", 1100), come_in("I love hail", 900)
    set_rule("two-years", age="P2Y", counted_from="updated")
    for dry in (True, False):
        assert {one.memory_id for one in run(dry=dry)} == {never, long_ago}
    assert state().keys() == {stays}


@pytest.mark.parametrize("counted_from", ["created", "updated", "used"])
@pytest.mark.parametrize("ahead", [10, 3650])
def test_what_was_said_in_the_future_counts_from_its_storing(
    services: Services,
    caller: Caller,
    set_rule: SetRule,
    run: Run,
    state: State,
    database: Postgres,
    counted_from: str,
    ahead: int,
) -> None:
    """Also once it is hidden, which is no change of it."""
    names, later = SubjectNames(user_id="alice"), clock.now() + timedelta(days=ahead)
    new = NewMemories([Message("user", "said in the future")], names, infer=False, occurred_at=later)
    memory_id = services.adds.add(caller, caller.scope, new).results[0].memory_id
    set_rule("hide", action="hide", age="P90D", grace="P30D", counted_from=counted_from)
    for days, step in ((80, None), (100, Step.HIDE), (400, Step.DELETE)):
        with psycopg.connect(database.admin, autocommit=True) as connection:
            connection.execute("UPDATE memories SET ingested_at = now() - make_interval(days => %s)", [days])
        for dry in (True, False):
            planned = {one.memory_id: one.step for one in run(dry=dry)}
            assert planned == ({} if step is None else {memory_id: step})
    assert state() == {}


def test_a_change_here_counts_whatever_time_it_says(
    services: Services, caller: Caller, add_old: AddOld, set_rule: SetRule, run: Run, state: State, database: Postgres
) -> None:
    backwards, forwards, long_ago = (add_old(text, 40) for text in ("I love tea", "I love rain", "I love hail"))
    for memory_id, days in ((backwards, -1100), (forwards, 1100), (long_ago, 1100)):
        edit = Edit(created_at=clock.now() + timedelta(days=days))
        services.memories.update(caller, caller.scope, memory_id, edit)
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("UPDATE memories SET updated_at = now() - interval '35 days' WHERE id = %s", [long_ago])
    set_rule("month", age="P30D", counted_from="updated")
    for dry in (True, False):
        assert [one.memory_id for one in run(dry=dry)] == [long_ago]
    assert state().keys() == {backwards, forwards}


def test_what_has_expired_is_deleted_after_its_days(
    services: Services, caller: Caller, add_old: AddOld, run: Run, database: Postgres
) -> None:
    past, recent = add_old("long past", 100), add_old("recent", 100)
    with psycopg.connect(database.admin, autocommit=True) as connection:
        for memory_id, days in ((past, 40), (recent, 5)):
            connection.execute("UPDATE memories SET expires_on = now()::date - %s WHERE id = %s", [days, memory_id])
    (planned,) = run(dry=False)
    assert (planned.memory_id, planned.rule_id) == (past, None)


def test_the_sweep_reaches_every_tenant_and_only_by_its_own_rules(
    services: Services,
    caller: Caller,
    tenant: TenantId,
    add_old: AddOld,
    set_rule: SetRule,
    state: State,
    database: Postgres,
) -> None:
    mine = add_old("mine", 40)
    rival = caller_of(services, services.installation.tenants.create("rival").id)
    set_rule("old", age="P30D")
    services.retention_jobs.sweep(0)
    with psycopg.connect(database.admin) as connection:
        jobs = connection.execute("SELECT args, lock FROM procrastinate_jobs WHERE task_name = %s", [RETAIN]).fetchall()
    assert {row[0]["tenant_id"] for row in jobs} == {str(tenant), str(rival.principal.tenant_id)}
    assert len({row[1] for row in jobs}) == 2
    for row in jobs:
        services.retention_jobs.run(**row[0])
    assert mine not in state()
