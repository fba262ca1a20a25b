"""What a hold covers is neither deleted nor rewritten, whoever asks; a refusal names the hold and is in the trail."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest

from service.errors import LegalHold, NotFound
from service.memories.actions import Edit
from service.memories.batch import BatchEdit
from service.records import SubjectNames
from service.scope import Caller, SubjectKind, TenantId
from service.wiring import Services
from tests.conftest import Postgres, caller_of
from tests.integration.holds.conftest import Add, Place

pytestmark = pytest.mark.integration

Do = Callable[[Services, Caller, UUID], object]

#: Every action that deletes or rewrites a memory, by the name of the action in the trail.
REFUSED: dict[str, tuple[str, Do]] = {
    "text": ("update", lambda s, c, m: s.memories.update(c, c.scope, m, Edit(text="I hate tea"))),
    "metadata": ("update", lambda s, c, m: s.memories.update(c, c.scope, m, Edit(metadata={}))),
    "expiry": ("update", lambda s, c, m: s.memories.update(c, c.scope, m, Edit(expires_on=date(2020, 1, 1)))),
    "timestamp": (
        "update",
        lambda s, c, m: s.memories.update(c, c.scope, m, Edit(created_at=datetime(2020, 1, 1, tzinfo=UTC))),
    ),
    "delete": ("delete", lambda s, c, m: s.memories.delete(c, c.scope, m)),
    "delete_all": ("delete_all", lambda s, c, m: s.memories.delete_all(c, c.scope, SubjectNames(user_id="alice"))),
    "entity": ("delete_entity", lambda s, c, m: s.entities.delete(c, c.scope, SubjectKind.USER, "alice")),
    "agent": ("delete_entity", lambda s, c, m: s.entities.delete(c, c.scope, SubjectKind.AGENT, "bot")),
}
HOLDS: dict[str, dict[str, Any]] = {
    "user": {"user": "alice"},
    "filter": {"filters": {"metadata": {"channel": "legal"}}},
    "id": {"memory_ids": "it"},
}


def state(database: Postgres) -> list[Any]:
    """Everything that is kept of memories."""
    with psycopg.connect(database.admin) as connection:
        return [
            connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()  # type: ignore[arg-type]
            for table in ("memories", "history", "subjects", "outbox")
        ]


@pytest.mark.parametrize("what", sorted(HOLDS))
def test_a_held_memory_and_its_history_survive_every_action(
    what: str,
    services: Services,
    caller: Caller,
    add: Add,
    place: Place,
    database: Postgres,
    trail: Callable[[], list[dict[str, Any]]],
) -> None:
    held = add(agent="bot", channel="legal")
    free = add("I love coffee", agent="bot")
    services.memories.update(caller, caller.scope, held, Edit(text="I love green tea"))
    services.indexing.drain()
    hold = place("case-7", **{key: [held] if value == "it" else value for key, value in HOLDS[what].items()})
    before = state(database)
    for name, (action, do) in REFUSED.items():
        with pytest.raises(LegalHold, match="case-7") as refused:
            do(services, caller, held)
        assert (refused.value.status, refused.value.code) == (409, "legal_hold")
        assert "tea" not in refused.value.detail
        row = trail()[-1]
        assert (row["event"], row["outcome"]) == ("access:denied", "refused"), name
        detail = {"action": action, "reason": "hold", "holds": [str(hold.stored.id)]}
        assert row["detail"] == detail, name
        if action in ("update", "delete"):
            assert row["target_ids"] == [held], name
    assert state(database) == before
    assert [step.new_text for step in services.memories.history(caller, caller.scope, held)] == [
        "I love tea",
        "I love green tea",
    ]
    if what != "user":
        services.memories.delete(caller, caller.scope, free)


def test_what_the_caller_cannot_reach_is_not_told_to_be_held(
    services: Services, tenant: TenantId, add: Add, place: Place
) -> None:
    held = add()
    place(user="alice")
    rival = caller_of(services, services.installation.tenants.create("rival").id)
    bob = caller_of(services, tenant, users=frozenset({"bob"}))
    for stranger in (rival, bob):
        with pytest.raises(NotFound):
            services.memories.delete(stranger, stranger.scope, held)
        with pytest.raises(NotFound):
            services.memories.update(stranger, stranger.scope, held, Edit(text="x"))


def test_a_batch_does_what_is_not_held_and_says_what_is(
    services: Services, caller: Caller, add: Add, place: Place, trail: Callable[[], list[dict[str, Any]]]
) -> None:
    held, free, other = add(), add("I love coffee"), add("I love water")
    hold = place("case-7", memory_ids=[held])
    report = services.batches.update(
        caller, caller.scope, [BatchEdit(one, Edit(metadata={"seen": True})) for one in (held, free)]
    )
    assert [type(one) for one in report] == [LegalHold, type(None)]
    denied = {"action": "update_batch", "reason": "hold", "holds": [str(hold.stored.id)]}
    assert [row["target_ids"] for row in trail() if row["detail"] == denied] == [[held]]
    report = services.batches.delete(caller, caller.scope, [held, free, other])
    assert [type(one) for one in report] == [LegalHold, type(None), type(None)]
    assert services.memories.get(caller, caller.scope, held).text == "I love tea"


def test_after_the_release_it_can_be_changed_and_deleted(
    services: Services, caller: Caller, ben: Caller, add: Add, place: Place
) -> None:
    held = add()
    first, second = place("one", user="alice"), place("two", filters={"user_id": "alice"})
    services.installation.holds.release(ben, ben.scope, first.stored.id, "settled")
    with pytest.raises(LegalHold, match="two"):
        services.memories.delete(caller, caller.scope, held)
    services.installation.holds.release(ben, ben.scope, second.stored.id, "settled")
    services.memories.update(caller, caller.scope, held, Edit(text="I hate tea"))
    services.memories.delete(caller, caller.scope, held)
    assert services.entities.delete(caller, caller.scope, SubjectKind.USER, "alice") == 0


def test_a_person_who_has_no_memories_yet_can_be_held(
    services: Services, caller: Caller, add: Add, place: Place
) -> None:
    place(user="carol")
    with pytest.raises(LegalHold):
        services.entities.delete(caller, caller.scope, SubjectKind.USER, "carol")
    held = add(user="carol")
    with pytest.raises(LegalHold):
        services.memories.delete(caller, caller.scope, held)


def test_the_index_can_still_be_made_anew(services: Services, caller: Caller, add: Add, place: Place) -> None:
    held = add()
    place(user="alice")
    with services.installation.database.transaction(caller.scope) as connection:
        record = services.installation.record
        entries = list(record.index_entries(connection, caller.scope, [held]).values())
        record.replace_vectors(connection, caller.scope, entries)
    assert services.jobs.rebuild(lambda count: None) == 1
