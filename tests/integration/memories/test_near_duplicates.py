"""Near-duplicates: what says the same as a memory that is there is reported as NONE, and no other fact ever is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain, product

import psycopg
import pytest

from service import clock
from service.audit.moves import ImportSource
from service.filters.ast import EVERYTHING
from service.memories.actions import Edit
from service.portability.records import IncomingMemory, Placed
from service.records import Change, Message, NewMemories, SubjectNames
from service.scope import Caller
from service.storage import alike
from service.storage.wording import gist
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of
from tests.integration.memories.adding import add
from tests.integration.memories.extracting import ask, ended
from tests.integration.memories.test_quarantine import review
from tests.llm.scripted import ScriptedLLM
from tests.unit.test_wording import OTHER_FACTS, SAME_BUT_FOR_FORM, SAME_GIST

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]


def texts(services: Services, caller: Caller) -> list[str]:
    """Every text that is stored, sorted."""
    page = services.memories.list(caller, caller.scope, EVERYTHING, page=1, size=500, on=None)
    assert page.total == len(page.items)
    return sorted(memory.text for memory in page.items)


def test_what_says_the_same_is_reported_and_not_stored(services: Services, caller: Caller, database: Postgres) -> None:
    pairs = SAME_BUT_FOR_FORM + SAME_GIST
    for number, (one, other) in enumerate(pairs):
        first = add(services, caller, one, user=f"u{number}").results[0]
        again = add(services, caller, other, user=f"u{number}")
        (second,) = again.results
        assert (second.change, second.memory_id) == (Change.NONE, first.memory_id), (one, other)
        # What is told is what is stored, at once and later.
        assert second.text == one
        assert services.events.get(caller, caller.scope, again.id).results[0].text == one
    assert texts(services, caller) == sorted(one for one, _ in pairs)
    with psycopg.connect(database.admin) as connection:
        rows = connection.execute("SELECT detail FROM audit WHERE event = 'memory:added' ORDER BY seq").fetchall()
    assert [(row[0]["added"], row[0]["known"]) for row in rows] == [(1, 0), (0, 1)] * len(pairs)
    assert services.index.count() == len(pairs)


def test_no_other_fact_is_taken_for_it(services: Services, caller: Caller) -> None:
    added = add(services, caller, *dict.fromkeys(chain.from_iterable(OTHER_FACTS)))
    assert {result.change for result in added.results} == {Change.ADD}
    # Again one by one, as the record has all of them: each is known as itself.
    for result in added.results[:12]:
        (again,) = add(services, caller, str(result.text)).results
        assert (again.change, again.memory_id) == (Change.NONE, result.memory_id)


def test_in_one_add_the_first_stands(services: Services, caller: Caller) -> None:
    event = add(services, caller, "The user likes tea", "Knows Bob", "User likes tea.", "user likes tea", "knows  bob")
    tea, bob = event.results[0].memory_id, event.results[1].memory_id
    assert [(one.memory_id, one.change) for one in event.results] == [
        (tea, Change.ADD),
        (bob, Change.ADD),
        (tea, Change.NONE),
        (tea, Change.NONE),
        (bob, Change.NONE),
    ]
    assert texts(services, caller) == ["Knows Bob", "The user likes tea"]


def test_all_but_the_text_must_be_the_same(services: Services, caller: Caller) -> None:
    """Other subjects, metadata, categories, speakers and days of expiry make another memory; other tenants too."""
    new = NewMemories([Message("user", "I like tea")], SubjectNames(user_id="alice"), {"a": 1}, infer=False)
    others = [
        replace(new, subjects=SubjectNames(user_id="bob")),
        replace(new, subjects=SubjectNames(user_id="alice", agent_id="helper")),
        replace(new, subjects=SubjectNames(agent_id="alice")),
        replace(new, metadata={"a": 2}),
        replace(new, metadata={}),
        replace(new, categories=("drinks",)),
        replace(new, messages=[Message("assistant", "I like tea.")]),
        replace(new, messages=[Message("user", "I like tea.", "Ann")]),
    ]
    for one in [new, *others]:
        assert services.adds.add(caller, caller.scope, one).results[0].change is Change.ADD
    again = replace(new, messages=[Message("user", "i like tea!")])
    assert services.adds.add(caller, caller.scope, again).results[0].change is Change.NONE
    stranger = caller_of(services, services.installation.tenants.create("other").id)
    assert services.adds.add(stranger, stranger.scope, again).results[0].change is Change.ADD


def test_it_follows_changes_and_deletes(services: Services, caller: Caller) -> None:
    memory_id = add(services, caller, "I like tea").results[0].memory_id
    services.memories.update(caller, caller.scope, memory_id, Edit(text="I like milk"))
    assert add(services, caller, "I like milk!").results[0].memory_id == memory_id
    second = add(services, caller, "i like tea").results[0]
    assert second.change is Change.ADD
    services.memories.delete(caller, caller.scope, second.memory_id)
    assert add(services, caller, "I like tea").results[0].change is Change.ADD


def test_a_cosine_that_is_not_reached_keeps_both(make_services: MakeServices) -> None:
    services = make_services(duplicates={"similarity": 0.95})
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    # 0.92: under the bound, while case and a full stop ask no vector (0.92 as well).
    assert [one.change for one in add(services, caller, "I am vegetarian", "I'm vegetarian").results] == [
        Change.ADD
    ] * 2
    assert [one.change for one in add(services, caller, "I like tea", "I like  TEA!").results][1] is Change.NONE


def test_each_text_is_taken_apart_once_however_many_it_is_compared_with(
    services: Services, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hundred long texts that differ in needless words alone, and deny something, were compared for minutes."""
    needless = ("the", "that", "really", "actually", "also")
    texts = [f"I do not {one} know {other} him" for one, other in product(needless, repeat=2)]
    taken: Counter[str] = Counter()

    def counted(text: str) -> tuple[str, ...]:
        taken[text] += 1
        return gist(text)

    monkeypatch.setattr(alike, "gist", counted)
    for half in (texts[:13], texts[13:]):
        assert {one.change for one in add(services, caller, *half).results} == {Change.ADD}
    # The first half twice: when it is added, and when it is what the record has.
    assert max(taken.values()) == 2


def test_vectors_of_another_size_are_not_compared(services: Services, caller: Caller) -> None:
    """A provider's model gives as many numbers as it is asked for, under one name: until all is made anew, both."""
    first = add(services, caller, "I am vegetarian").results[0]
    record = services.installation.record
    with services.installation.database.transaction(caller.scope) as connection:
        (entry,) = record.index_entries(connection, caller.scope, [first.memory_id]).values()
        record.replace_vectors(connection, caller.scope, [replace(entry, vector=entry.vector[:24])])
    assert [one.change for one in add(services, caller, "I'm vegetarian", "i am vegetarian").results] == [
        Change.ADD,
        Change.NONE,
    ]


def test_it_can_be_turned_off(make_services: MakeServices) -> None:
    services = make_services(duplicates={"similarity": "off"})
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    results = add(services, caller, "i like tea", "i like tea.", "i like tea").results
    assert [one.change for one in results] == [Change.ADD, Change.ADD, Change.NONE]


def test_an_import_keeps_both(services: Services, caller: Caller) -> None:
    moment = clock.now()
    one = IncomingMemory(clock.new_random_id(), "I like tea", SubjectNames(user_id="alice"), moment, moment)
    alike = ("I like tea.", "I LIKE TEA", "I like tea")
    more = [replace(one, id=clock.new_random_id(), text=text) for text in alike]
    placed = [Placed(str(number), each) for number, each in enumerate([one, *more])]
    done = services.imports.run(caller, caller.scope, lambda: placed, origin=ImportSource.EXPORT)
    assert (done.memories, len(texts(services, caller))) == (4, 4)
    # What came by an import is recognised like what was added.
    new = NewMemories([Message("user", "i like tea")], SubjectNames(user_id="alice"), infer=False)
    assert services.adds.add(caller, caller.scope, new).results[0].change is Change.ADD  # no role: another memory


def test_what_is_extracted_is_recognised_too_also_under_review(make_services: MakeServices, llm: ScriptedLLM) -> None:
    flags = {"provider": "openai", "config": llm.config, "timeout": 5.0}
    services = make_services(worker=True, llm=flags, queue={"poll_interval": 0.1})
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    llm.facts("User likes tea")
    (known,) = ended(services, caller, ask(services, caller, "tea is what I like")).results
    llm.facts("The user likes tea.", "User likes tea, really")
    event = ended(services, caller, ask(services, caller, "as I said: tea"))
    assert [(one.change, one.memory_id, one.text) for one in event.results] == [
        (Change.NONE, known.memory_id, "User likes tea"),
        (Change.NONE, known.memory_id, "User likes tea"),
    ]
    review(services, caller)
    llm.facts("The user likes tea!", "User likes coffee")
    event = ended(services, caller, ask(services, caller, "tea, and coffee"))
    assert [one.change for one in event.results] == [Change.NONE, Change.QUARANTINED]
    assert event.results[0].memory_id == known.memory_id
    assert texts(services, caller) == ["User likes tea"]
