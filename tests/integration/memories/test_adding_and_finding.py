"""Adding, finding, listing, reading, changing and deleting memories, on the real stores."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from service.errors import (
    Forbidden,
    IdempotencyConflict,
    InvalidInput,
    KeyringUnavailable,
    NotFound,
    RecordUnavailable,
    ReservedMetadata,
    ScopeRequired,
)
from service.filters.ast import EVERYTHING
from service.memories.actions import Edit, Query
from service.records import Change, EventStatus, Message, NewMemories, SubjectNames
from service.scope import Caller, SubjectKind
from service.wiring import Services
from tests.conftest import Postgres, caller_of
from tests.integration.memories.adding import add, found

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]


def test_what_is_added_is_found_by_meaning_and_by_words(services: Services, caller: Caller) -> None:
    event = add(services, caller, "I love Italian food", "My locker number is XK-4711", "The sky is blue")
    assert event.status is EventStatus.SUCCEEDED
    assert [result.change for result in event.results] == [Change.ADD] * 3
    assert [result.text for result in event.results] == [
        "I love Italian food",
        "My locker number is XK-4711",
        "The sky is blue",
    ]
    assert found(services, caller, "which cuisine does she prefer?")[0] == "I love Italian food"
    assert found(services, caller, "XK-4711")[0] == "My locker number is XK-4711"


def test_a_second_identical_add_is_reported_and_not_stored(services: Services, caller: Caller) -> None:
    first = add(services, caller, "I love tea", metadata={"a": 1})
    second = add(services, caller, "I love tea", metadata={"a": 1})
    other = add(services, caller, "I love tea", metadata={"a": 2})
    assert second.results[0].change is Change.NONE
    assert second.results[0].memory_id == first.results[0].memory_id
    assert other.results[0].change is Change.ADD


def test_concurrent_identical_adds_make_one_memory(services: Services, caller: Caller) -> None:
    with ThreadPoolExecutor(8) as pool:
        events = list(pool.map(lambda _: add(services, caller, "I love tea"), range(16)))
    assert len({event.results[0].memory_id for event in events}) == 1
    assert sorted(event.results[0].change.value for event in events) == ["ADD"] + ["NONE"] * 15
    page = services.memories.list(caller, caller.scope, EVERYTHING, page=1, size=10, on=None)
    assert page.total == 1


def test_an_idempotency_key_makes_a_retry_harmless(services: Services, caller: Caller) -> None:
    first = add(services, caller, "I moved to Rome", key="k1")
    again = add(services, caller, "I moved to Rome", key="k1")
    assert again.id == first.id
    assert [result.change for result in again.results] == [Change.ADD]
    with pytest.raises(IdempotencyConflict):
        add(services, caller, "I moved to Paris", key="k1")
    with ThreadPoolExecutor(8) as pool:
        ids = {event.id for event in pool.map(lambda _: add(services, caller, "I moved on", key="k2"), range(8))}
    assert len(ids) == 1


def test_one_key_s_idempotency_key_is_not_another_s(services: Services, caller: Caller) -> None:
    other = caller_of(services, caller.principal.tenant_id)
    assert add(services, caller, "one", key="same").id != add(services, other, "two", key="same").id


def test_two_tenants_with_the_same_user_never_meet(services: Services, caller: Caller) -> None:
    other = caller_of(services, services.installation.tenants.create("rival").id)
    mine = add(services, caller, "I love Italian food")
    theirs = add(services, other, "I love French food")
    assert found(services, caller, "food", {"user_id": "alice"}) == ["I love Italian food"]
    assert found(services, other, "food", {"OR": [{"user_id": "alice"}, {"user_id": "*"}]}) == ["I love French food"]
    for caller_, event in ((caller, theirs), (other, mine)):
        memory_id = event.results[0].memory_id
        with pytest.raises(NotFound):
            services.memories.get(caller_, caller_.scope, memory_id)
        with pytest.raises(NotFound):
            services.memories.update(caller_, caller_.scope, memory_id, Edit(text="x"))
        with pytest.raises(NotFound):
            services.memories.delete(caller_, caller_.scope, memory_id)
        with pytest.raises(NotFound):
            services.memories.history(caller_, caller_.scope, memory_id)
        with pytest.raises(NotFound):
            services.events.get(caller_, caller_.scope, event.id)


def test_a_bound_key_reaches_its_user_only(services: Services, caller: Caller) -> None:
    bound = caller_of(services, caller.principal.tenant_id, role="agent", users=frozenset({"alice"}))
    own = add(services, bound, "Alice likes tea")
    foreign = add(services, caller, "Bob likes coffee", user="bob")
    nobody = add(services, caller, "The agent likes rules", subjects=SubjectNames(agent_id="helper"))
    assert found(services, bound, "who likes what") == ["Alice likes tea"]
    page = services.memories.list(bound, bound.scope, EVERYTHING, page=1, size=10, on=None)
    assert [memory.text for memory in page.items] == ["Alice likes tea"]
    for event in (foreign, nobody):
        with pytest.raises(NotFound):
            services.memories.get(bound, bound.scope, event.results[0].memory_id)
    assert services.memories.get(bound, bound.scope, own.results[0].memory_id).text == "Alice likes tea"
    with pytest.raises(Forbidden):
        add(services, bound, "Bob hates tea", user="bob")
    with pytest.raises(Forbidden):
        add(services, bound, "no user", subjects=SubjectNames(agent_id="helper"))
    with pytest.raises(Forbidden):
        found(services, bound, "coffee", {"user_id": "bob"})
    assert [entity.name for entity in services.entities.list(bound, bound.scope, page=1, size=10).items] == ["alice"]


def test_an_update_is_found_and_its_history_kept(services: Services, caller: Caller) -> None:
    memory_id = add(services, caller, "I live in Rome", metadata={"k": "v"}).results[0].memory_id
    changed = services.memories.update(caller, caller.scope, memory_id, Edit(text="I live in Oslo"))
    assert (changed.text, changed.metadata, changed.version) == ("I live in Oslo", {"k": "v"}, 2)
    assert found(services, caller, "Oslo") == ["I live in Oslo"]
    services.memories.update(caller, caller.scope, memory_id, Edit(metadata={"k": "w"}))
    assert found(services, caller, "Oslo", {"metadata": {"k": "w"}}) == ["I live in Oslo"]
    assert found(services, caller, "Oslo", {"metadata": {"k": "v"}}) == []
    steps = services.memories.history(caller, caller.scope, memory_id)
    assert [(step.change.value, step.old_text, step.new_text) for step in steps] == [
        ("ADD", None, "I live in Rome"),
        ("UPDATE", "I live in Rome", "I live in Oslo"),
        ("UPDATE", "I live in Oslo", "I live in Oslo"),
    ]
    with pytest.raises(InvalidInput):
        services.memories.update(caller, caller.scope, memory_id, Edit())


def test_a_delete_takes_the_text_out_of_the_history_too(services: Services, caller: Caller) -> None:
    memory_id = add(services, caller, "My secret is 42").results[0].memory_id
    services.memories.delete(caller, caller.scope, memory_id)
    assert found(services, caller, "secret 42") == []
    with pytest.raises(NotFound):
        services.memories.get(caller, caller.scope, memory_id)
    steps = services.memories.history(caller, caller.scope, memory_id)
    assert [(step.change.value, step.old_text, step.new_text) for step in steps] == [
        ("ADD", None, None),
        ("DELETE", None, None),
    ]


def test_delete_all_needs_a_scope_and_takes_what_it_names(services: Services, caller: Caller) -> None:
    add(services, caller, "one", "two")
    add(services, caller, "three", user="bob")
    with pytest.raises(ScopeRequired):
        services.memories.delete_all(caller, caller.scope, SubjectNames())
    assert services.memories.delete_all(caller, caller.scope, SubjectNames(user_id="nobody")) == 0
    assert services.memories.delete_all(caller, caller.scope, SubjectNames(user_id="alice")) == 2
    assert found(services, caller, "one two three") == ["three"]


def test_deleting_an_entity_leaves_nothing_and_the_name_can_be_used_again(services: Services, caller: Caller) -> None:
    event = add(services, caller, "Alice was here")
    add(services, caller, "Bob was here", user="bob")
    assert services.entities.delete(caller, caller.scope, SubjectKind.USER, "alice") == 1
    with pytest.raises(NotFound):
        services.entities.delete(caller, caller.scope, SubjectKind.USER, "alice")
    with pytest.raises(NotFound):
        services.memories.history(caller, caller.scope, event.results[0].memory_id)
    assert found(services, caller, "who was here") == ["Bob was here"]
    add(services, caller, "Alice is back")
    names = {
        entity.name: entity.memories for entity in services.entities.list(caller, caller.scope, page=1, size=9).items
    }
    assert names == {"bob": 1, "alice": 1}


def test_expired_memories_are_neither_found_nor_read(services: Services, caller: Caller) -> None:
    memory_id = add(services, caller, "The offer ends today", expires_on=date(2020, 1, 1)).results[0].memory_id
    assert found(services, caller, "offer") == []
    assert services.memories.list(caller, caller.scope, EVERYTHING, page=1, size=5, on=date(2026, 1, 1)).total == 0
    assert services.memories.list(caller, caller.scope, EVERYTHING, page=1, size=5, on=None).total == 1
    with pytest.raises(NotFound):
        services.memories.get(caller, caller.scope, memory_id)


def test_paging_is_complete_and_newest_first(services: Services, caller: Caller) -> None:
    for number in range(7):
        add(services, caller, f"note {number}")
    pages = [services.memories.list(caller, caller.scope, EVERYTHING, page=n, size=3, on=None) for n in (1, 2, 3, 4)]
    assert [memory.text for page in pages for memory in page.items] == [f"note {n}" for n in reversed(range(7))]
    assert {page.total for page in pages} == {7}


def test_reserved_metadata_and_unknown_ids_are_refused(services: Services, caller: Caller) -> None:
    with pytest.raises(ReservedMetadata):
        add(services, caller, "x", metadata={"tenant_id": "other"})
    with pytest.raises(NotFound):
        services.memories.get(caller, caller.scope, uuid4())
    with pytest.raises(InvalidInput):
        add(services, caller, "x", user="*")


def test_an_expired_twin_does_not_swallow_a_new_memory(services: Services, caller: Caller) -> None:
    add(services, caller, "The code is 4711", expires_on=date(2020, 1, 1))
    event = add(services, caller, "The code is 4711")
    assert event.results[0].change is Change.ADD
    assert found(services, caller, "which code?") == ["The code is 4711"]


def test_the_same_words_of_two_speakers_are_two_memories(services: Services, caller: Caller) -> None:
    messages = [Message("user", "I agree", "Ann"), Message("user", "I agree", "Bob"), Message("user", "I agree", "Ann")]
    event = services.adds.add(caller, caller.scope, NewMemories(messages, SubjectNames(run_id="r"), infer=False))
    assert [result.change for result in event.results] == [Change.ADD, Change.ADD, Change.NONE]
    assert event.results[2].memory_id == event.results[0].memory_id


def test_an_add_beside_a_delete_of_its_twin_is_kept(services: Services, caller: Caller) -> None:
    for _ in range(15):
        memory_id = add(services, caller, "I love tea").results[0].memory_id
        with ThreadPoolExecutor(2) as pool:
            deleting = pool.submit(services.memories.delete, caller, caller.scope, memory_id)
            added = pool.submit(add, services, caller, "I love tea").result()
            deleting.result()
        placed = added.results[0]
        if placed.change is Change.ADD:
            assert services.memories.get(caller, caller.scope, placed.memory_id).text == "I love tea"
            services.memories.delete(caller, caller.scope, placed.memory_id)
        else:
            # It was there when the add was answered, and deleted after.
            assert placed.memory_id == memory_id


def test_the_same_texts_in_other_orders_at_once_do_not_fail(services: Services, caller: Caller) -> None:
    texts = [f"note {number}" for number in range(60)]
    with ThreadPoolExecutor(4) as pool:
        orders = [texts, texts[::-1], texts[30:] + texts[:30], texts[::2] + texts[1::2]]
        events = list(pool.map(lambda order: add(services, caller, *order), orders * 3))
    assert sum(result.change is Change.ADD for event in events for result in event.results) == 60


def test_two_memories_may_become_the_same_at_once(services: Services, caller: Caller) -> None:
    for round_ in range(10):
        ids = [result.memory_id for result in add(services, caller, f"a {round_}", f"b {round_}").results]
        with ThreadPoolExecutor(2) as pool:
            changed = pool.map(
                lambda one, text=f"same {round_}": services.memories.update(caller, caller.scope, one, Edit(text=text)),
                ids,
            )
            assert [memory.text for memory in changed] == [f"same {round_}"] * 2


def test_an_erasure_beside_updates_gives_not_found_and_nothing_else(services: Services, caller: Caller) -> None:
    for _ in range(5):
        ids = [result.memory_id for result in add(services, caller, *(f"n {i}" for i in range(20))).results]

        def change(one: UUID) -> None:
            with suppress(NotFound):
                services.memories.update(caller, caller.scope, one, Edit(text="changed"))

        with ThreadPoolExecutor(4) as pool:
            erasing = pool.submit(services.entities.delete, caller, caller.scope, SubjectKind.USER, "alice")
            list(pool.map(change, ids))
            erasing.result()
        assert services.memories.list(caller, caller.scope, EVERYTHING, page=1, size=1, on=None).total == 0


def test_an_expired_memory_is_readable_nowhere_and_can_be_deleted(services: Services, caller: Caller) -> None:
    event = add(services, caller, "The offer ends today", expires_on=date(2020, 1, 1))
    memory_id = event.results[0].memory_id
    with pytest.raises(NotFound):
        services.memories.history(caller, caller.scope, memory_id)
    assert services.events.get(caller, caller.scope, event.id).results[0].text is None
    services.memories.delete(caller, caller.scope, memory_id)
    assert services.memories.list(caller, caller.scope, EVERYTHING, page=1, size=1, on=None).total == 0


def test_a_failed_commit_leaves_no_phantom_subject(services: Services, caller: Caller, database: Postgres) -> None:
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("REVOKE INSERT ON audit FROM memvault_app")
        with pytest.raises(RecordUnavailable):
            add(services, caller, "I love tea")
        connection.execute("GRANT INSERT ON audit TO memvault_app")
    assert add(services, caller, "I love tea").results[0].change is Change.ADD
    assert found(services, caller, "tea", {"user_id": "alice"}) == ["I love tea"]


def test_what_has_no_key_that_lasts_is_not_stored(
    services: Services, caller: Caller, data_dir: Path, database: Postgres
) -> None:
    keys, aside = data_dir / "keys" / "subjects", data_dir / "aside"
    add(services, caller, "I love tea")
    keys.rename(aside)
    keys.touch()
    for number in range(3):
        with pytest.raises(KeyringUnavailable):
            add(services, caller, "I love coffee", user=f"user-{number}")
    keys.unlink()
    aside.rename(keys)
    with psycopg.connect(database.admin) as connection:
        counts = (
            "SELECT (SELECT count(*) FROM memories), (SELECT count(*) FROM subjects), (SELECT count(*) FROM events)"
        )
        assert connection.execute(counts).fetchone() == (1, 1, 1)
    add(services, caller, "I love coffee", user="user-1")
    assert found(services, caller, "coffee", {"user_id": "user-1"}) == ["I love coffee"]


def test_a_word_is_found_though_it_was_asked_for_before_anybody_had_it(services: Services, caller: Caller) -> None:
    for part in range(5):
        add(services, caller, *(f"Note {n} about gardens and rivers" for n in range(part * 50, part * 50 + 50)))
    assert "KX4711" not in str(found(services, caller, "KX4711"))
    # Behind the words that the model reads, so that only its words find it.
    long = "The committee met on the second floor to talk about budgets and the new carpet. " * 30
    add(services, caller, f"{long} Reference KX4711.", user="bob")
    services.indexing.drain()
    hits = services.memories.search(caller, caller.scope, Query("KX4711", limit=300))
    (hit,) = [one for one in hits if "KX4711" in one.memory.text]
    assert hit.signals.bm25 > 0
