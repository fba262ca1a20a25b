"""Adding, finding, listing, reading, changing and deleting memories, on the real stores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import Connection

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
from service.filters.parse import parse_filter
from service.index.interface import SearchAnswer
from service.index.scoped import TenantIndex
from service.memories import searching as searching_module
from service.memories import stores as stores_module
from service.memories.actions import Edit, Query
from service.portability.exports import Wanted
from service.records import Change, Event, EventStatus, Message, NewMemories, SubjectNames
from service.scope import Caller, Scope, SubjectKind, TenantId
from service.storage.encryption import Cipher
from service.storage.record import Record
from service.wiring import Services
from tests.conftest import Postgres, caller_of

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]


def add(
    services: Services, caller: Caller, *texts: str, user: str = "alice", key: str | None = None, **more: object
) -> Event:
    """Add verbatim messages for a user."""
    subjects = more.pop("subjects", SubjectNames(user_id=user))
    messages = [Message("user", text) for text in texts]
    new = NewMemories(messages=messages, subjects=subjects, infer=False, **more)  # type: ignore[arg-type]
    return services.adds.add(caller, caller.scope, new, idempotency_key=key)


def found(services: Services, caller: Caller, text: str, filters: object = None, limit: int = 10) -> list[str]:
    """Search and return the texts, the best first."""
    query = Query(text, parse_filter(filters), limit=limit)
    return [hit.memory.text for hit in services.memories.search(caller, caller.scope, query)]


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


def test_a_page_of_entities_reads_nothing_of_the_others(
    services: Services, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [f"user-{number}" for number in range(6)]
    for number, user in enumerate(users):
        add(services, caller, *(f"Note {one} of {user}" for one in range(number + 1)), user=user)
    asked: list[Sequence[UUID] | None] = []
    opened: list[UUID] = []
    keyring = services.installation.keyring
    counts, key_of = Record.counts, keyring.subject

    def noted(self: Record, *given: Any, subject_ids: Sequence[UUID] | None = None, **more: Any) -> Any:
        asked.append(subject_ids)
        return counts(self, *given, subject_ids=subject_ids, **more)

    def used(tenant_id: TenantId, subject_id: UUID) -> Cipher:
        opened.append(subject_id)
        return key_of(tenant_id, subject_id)

    monkeypatch.setattr(Record, "counts", noted)
    monkeypatch.setattr(keyring, "subject", used)
    page = services.entities.list(caller, caller.scope, page=2, size=2)
    assert [(one.name, one.memories) for one in page.items] == [("user-2", 3), ("user-3", 4)]
    assert (page.total, page.number, page.size) == (6, 2, 2)
    ids = [one.id for one in page.items]
    assert (asked, opened) == ([ids], ids)
    last = services.entities.list(caller, caller.scope, page=4, size=2)
    assert (last.items, last.total) == ([], 6)
    whole = services.entities.list(caller, caller.scope)
    assert [(one.name, one.memories) for one in whole.items] == [(user, users.index(user) + 1) for user in users]
    assert (whole.total, whole.size, asked[-1]) == (6, 6, None)
    bound = caller_of(services, caller.principal.tenant_id, role="agent", users=frozenset(users[1:4]))
    seen = services.entities.list(bound, bound.scope, page=2, size=1)
    assert [(one.name, one.memories) for one in seen.items] == [("user-2", 3)]
    assert seen.total == 3


def test_pages_of_events_and_batches_of_exports_ask_once_for_the_names_of_all(
    services: Services, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [f"user-{number}" for number in range(4)]
    for user in users:
        event = add(services, caller, f"A note of {user}", user=user)
        services.memories.delete(caller, caller.scope, event.results[0].memory_id)
    subjects, asked = services.installation.subjects, list[set[UUID]]()
    names = subjects.names

    def noted(connection: Connection, scope: Scope, ids: Iterable[UUID]) -> Any:
        asked.append(set(ids))
        return names(connection, scope, asked[-1])

    monkeypatch.setattr(subjects, "names", noted)
    page = services.events.list(caller, caller.scope, page=1, size=10)
    assert [event.results[0].subjects.user_id for event in page.items] == users[::-1]
    assert sorted(map(len, asked)) == [0, 4]
    for user in users:
        add(services, caller, f"Another note of {user}", user=user)
    asked.clear()
    (batch,) = services.exports.read(caller, caller.scope, Wanted())
    assert batch.memories == 4
    assert list(map(len, asked)) == [4, 4]


def test_expired_memories_are_neither_found_nor_read(services: Services, caller: Caller) -> None:
    memory_id = add(services, caller, "The offer ends today", expires_on=date(2020, 1, 1)).results[0].memory_id
    assert found(services, caller, "offer") == []
    assert services.memories.list(caller, caller.scope, EVERYTHING, page=1, size=5, on=date(2026, 1, 1)).total == 0
    assert services.memories.list(caller, caller.scope, EVERYTHING, page=1, size=5, on=None).total == 1
    with pytest.raises(NotFound):
        services.memories.get(caller, caller.scope, memory_id)


def test_inexact_filters_fill_up_to_the_asked_number(services: Services, caller: Caller) -> None:
    add(services, caller, *(f"note {number} about gardens" for number in range(200)), metadata={"n": 1})
    add(services, caller, "gardens with a pond", "another pond in gardens", metadata={"n": 2})
    assert sorted(found(services, caller, "note about gardens", {"text": {"contains": "pond"}}, limit=5)) == [
        "another pond in gardens",
        "gardens with a pond",
    ]
    assert len(found(services, caller, "gardens", {"metadata": {"n": {"lt": 2}}}, limit=150)) == 150
    page = services.memories.list(
        caller, caller.scope, parse_filter({"metadata": {"n": {"gte": 2}}}), page=1, size=1, on=None
    )
    assert (page.total, len(page.items)) == (2, 1)


def test_what_a_search_does_not_want_is_read_once(
    services: Services, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the index is asked for more, and in few trips to the record."""
    add(services, caller, *(f"note {number} about gardens" for number in range(200)))
    read: list[list[Any]] = []
    find = Record.find

    def noted(record: Record, connection: Any, scope: Any, ids: Any, **more: Any) -> Any:
        read.append(list(ids))
        return find(record, connection, scope, ids, **more)

    monkeypatch.setattr(Record, "find", noted)
    assert found(services, caller, "note about gardens", {"text": {"contains": "pond"}}) == []
    ids = [id_ for part in read for id_ in part]
    assert len(set(ids)) == len(ids) == 200
    assert len([part for part in read if part]) <= 5


def test_what_few_meet_is_found_behind_all_that_the_index_has_nearest(
    services: Services, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index cannot tell which memories contain a text, however many it is asked for."""
    monkeypatch.setattr(searching_module, "_MOST_CANDIDATES", 60)
    add(services, caller, *(f"note {number} about gardens" for number in range(99)), "A boat lies in the harbour")
    add(services, caller, "The ferry leaves the harbour at ten", "harbour of old", metadata={"n": 2})
    for where, texts in (
        ({"text": {"contains": "harbour"}}, 3),
        ({"AND": [{"text": {"contains": "harbour"}}, {"NOT": {"metadata": {"n": {"gte": 2}}}}]}, 1),
        ({"text": {"contains": "desert"}}, 0),
    ):
        for latest in (False, True):
            query = Query("note about gardens", parse_filter(where), limit=10, threshold=-1.0, latest=latest)
            assert len(services.memories.search(caller, caller.scope, query)) == texts, (where, latest)


def test_what_an_inexact_filter_looks_at_is_read_in_parts(
    services: Services, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores_module, "_BATCH", 2)
    add(services, caller, *(f"note {number}" for number in range(7)), "a letter")
    sizes = []
    presented = type(services.memories._stores).presented

    def counted(stores: Any, connection: Any, scope: Any, memories: Any) -> Any:
        sizes.append(len(memories))
        return presented(stores, connection, scope, memories)

    monkeypatch.setattr(type(services.memories._stores), "presented", counted)
    where = parse_filter({"text": {"icontains": "NOTE"}})
    pages = [services.memories.list(caller, caller.scope, where, page=n, size=3, on=None) for n in (1, 2, 3)]
    assert [memory.text for page in pages for memory in page.items] == [f"note {n}" for n in reversed(range(7))]
    assert {page.total for page in pages} == {7}
    assert sizes == [2, 2, 2, 2] * 3


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


def test_a_question_about_something_else_ends_with_the_first_answer_of_the_index(
    services: Services, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not found has less than the threshold then, however many memories there are."""
    for part in range(4):
        add(services, caller, *(f"Card payment of {n} euro at shop {n}" for n in range(part * 50, part * 50 + 50)))
    asked: list[int] = []
    search = TenantIndex.search

    def watched(self: TenantIndex, *given: Any, limit: int, **more: Any) -> SearchAnswer:
        asked.append(limit)
        return search(self, *given, limit=limit, **more)

    monkeypatch.setattr(TenantIndex, "search", watched)
    query = Query("card payment at shop 8", limit=10, threshold=0.1)
    assert len(services.memories.search(caller, caller.scope, query)) == 10
    far = Query("who plays the guitar?", limit=10, threshold=0.95)
    assert services.memories.search(caller, caller.scope, far) == []
    assert asked == [60, 60]
    # Below it everything is gone through, as often as that takes.
    every = Query("who plays the guitar?", limit=200, threshold=-1.0)
    assert len(services.memories.search(caller, caller.scope, every)) == 200


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
