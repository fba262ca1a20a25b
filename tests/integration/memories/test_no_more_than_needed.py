"""Searches, lists and pages read, open and ask for what they show, and for no more than they need to find it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection

from service.filters.parse import parse_filter
from service.index.interface import SearchAnswer
from service.index.scoped import TenantIndex
from service.memories import searching as searching_module
from service.memories import stores as stores_module
from service.memories.actions import Query
from service.portability.exports import Wanted
from service.scope import Caller, Scope, TenantId
from service.storage.encryption import Cipher
from service.storage.record import Record
from service.wiring import Services
from tests.conftest import caller_of
from tests.integration.memories.adding import add, found

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]


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
