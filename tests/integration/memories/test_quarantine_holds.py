"""Legal holds and what waits for a reviewer: what a hold keeps of it, and what it refuses because of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from service import clock
from service.errors import LegalHold
from service.filters.parse import parse_filter
from service.memories.reviews import Decision
from service.records import Message, NewMemories, SubjectNames
from service.retention.holds import NewHold
from service.retention.ledger import ErasureKind, Target
from service.scope import Caller, SubjectKind
from service.wiring import Services
from tests.conftest import Postgres, caller_of
from tests.integration.memories.test_quarantine import add, review, rows

pytestmark = pytest.mark.integration

HOLDS: dict[str, dict[str, Any]] = {
    "on two subjects together": {"subjects": SubjectNames(user_id="bob", agent_id="bot")},
    "on a filter": {"where": parse_filter({"AND": [{"user_id": "bob"}, {"text": {"icontains": "CONTRACT"}}]})},
}
REMOVALS: dict[str, Callable[[Services, Caller], object]] = {
    "the user": lambda services, caller: services.entities.delete(caller, caller.scope, SubjectKind.USER, "alice"),
    "the user's erasure": lambda services, caller: services.erasures.request(
        caller, caller.scope, Target(ErasureKind.USER, "alice")
    ),
    "the agent's erasure": lambda services, caller: services.erasures.request(
        caller, caller.scope, Target(ErasureKind.AGENT, "bot")
    ),
    "the connector": lambda services, caller: services.erasures.remove_connector(caller, caller.scope, "mail"),
}


def test_a_legal_hold_on_the_person_keeps_what_waits(services: Services, caller: Caller, database: Postgres) -> None:
    review(services, caller)
    today = clock.today()
    held = add(services, caller, "alice's", expires_on=today).results[0].memory_id
    free = add(services, caller, "bob's", user="bob").results[0].memory_id
    hold = NewHold("case-1", "because", subjects=SubjectNames(user_id="alice"))
    services.installation.holds.place(caller, caller.scope, hold)
    with pytest.raises(LegalHold):
        services.reviews.reject(caller, caller.scope, [free, held])
    with pytest.raises(LegalHold):
        services.memories.delete_all(caller, caller.scope, SubjectNames(user_id="alice"))
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("UPDATE quarantine SET expires_on = expires_on - 1 WHERE id = %s", [held])
    assert services.reviews.forget_expired(caller.scope) == 0
    assert {row[0] for row in rows(database, "SELECT id FROM quarantine")} == {held, free}
    refused = rows(database, "SELECT detail ->> 'action', detail ->> 'reason' FROM audit WHERE outcome = 'refused'")
    assert sorted(refused) == [("delete_all", "hold"), ("reject_reviews", "hold")]
    assert services.reviews.reject(caller, caller.scope, [free])[0].decision is Decision.REJECTED


@pytest.mark.parametrize("hold", HOLDS.values(), ids=HOLDS)
def test_a_legal_hold_keeps_of_what_waits_what_it_would_cover_once_approved(
    hold: dict[str, Any], services: Services, caller: Caller, database: Postgres
) -> None:
    with_bot = {user: SubjectNames(user_id=user, agent_id="bot") for user in ("alice", "bob")}
    kept_already = NewMemories([Message("user", "the contract of May")], with_bot["bob"], infer=False)
    services.adds.add(caller, caller.scope, kept_already)
    review(services, caller)
    held = add(services, caller, "the contract of June", subjects=with_bot["bob"]).results[0].memory_id
    # Neither Bob's own other things, nor what others have with the same agent.
    own = add(services, caller, "tea", user="bob").results[0].memory_id
    others = add(services, caller, "a contract too", subjects=with_bot["alice"]).results[0].memory_id
    more = add(services, caller, "a contract of hers", subjects=with_bot["alice"]).results[0].memory_id
    placed = services.installation.holds.place(caller, caller.scope, NewHold("case-1", "because", **hold))
    with pytest.raises(LegalHold) as refused:
        services.reviews.reject(caller, caller.scope, [own, held])
    assert (refused.value.names, refused.value.hold_ids) == (("case-1",), (placed.stored.id,))
    assert [one.decision for one in services.reviews.reject(caller, caller.scope, [own, others])] == [
        Decision.REJECTED,
        Decision.REJECTED,
    ]
    assert services.memories.delete_all(caller, caller.scope, SubjectNames(user_id="alice")) == 0
    assert rows(database, "SELECT id FROM quarantine") == [(held,)], more
    assert services.reviews.approve(caller, caller.scope, [held])[0].decision is Decision.APPROVED
    with pytest.raises(LegalHold):
        services.memories.delete(caller, caller.scope, held)


@pytest.mark.parametrize("remove", REMOVALS.values(), ids=REMOVALS)
@pytest.mark.parametrize("pattern", ["CONTRACT", "lawsuit"])
def test_a_hold_of_which_only_what_waits_would_be_a_member_refuses_what_would_remove_it(
    remove: Callable[[Services, Caller], object],
    pattern: str,
    services: Services,
    caller: Caller,
    database: Postgres,
) -> None:
    review(services, caller)
    names = SubjectNames(user_id="alice", agent_id="bot")
    waits = add(services, caller, "the contract of June", subjects=names, metadata={"connector": "mail"})
    hold = NewHold("case-1", "because", where=parse_filter({"text": {"icontains": pattern}}))
    services.installation.holds.place(caller, caller.scope, hold)
    if pattern == "lawsuit":
        remove(services, caller)
        return
    with pytest.raises(LegalHold, match="case-1"):
        remove(services, caller)
    assert rows(database, "SELECT id FROM quarantine") == [(waits.results[0].memory_id,)]
    assert services.reviews.approve(caller, caller.scope, [waits.results[0].memory_id])[0].decision is Decision.APPROVED


def test_a_hold_that_is_placed_while_a_connector_is_erased_keeps_what_waits(
    services: Services, caller: Caller, database: Postgres
) -> None:
    review(services, caller)
    waits = add(services, caller, "the contract of June", metadata={"connector": "mail"}).results[0].memory_id
    erasure = services.erasures.remove_connector(caller, caller.scope, "mail")
    hold = NewHold("case-1", "because", where=parse_filter({"text": {"icontains": "CONTRACT"}}))
    placed = services.installation.holds.place(caller, caller.scope, hold)
    with pytest.raises(LegalHold, match="case-1"):
        services.erasing.run(str(caller.principal.tenant_id), str(erasure.id))
    assert rows(database, "SELECT id FROM quarantine") == [(waits,)]
    ben = caller_of(services, caller.principal.tenant_id, role="compliance_officer", owner="ben@example.org")
    services.installation.holds.release(ben, ben.scope, placed.stored.id, "settled")
    services.erasing.run(str(caller.principal.tenant_id), str(erasure.id))
    assert rows(database, "SELECT id FROM quarantine") == []


def test_a_legal_hold_on_memories_by_id_keeps_nothing_that_waits(services: Services, caller: Caller) -> None:
    new = NewMemories([Message("user", "the contract of May")], SubjectNames(user_id="alice"), infer=False)
    member = services.adds.add(caller, caller.scope, new).results[0].memory_id
    review(services, caller)
    waits = add(services, caller, "the contract of June").results[0].memory_id
    services.installation.holds.place(caller, caller.scope, NewHold("case-1", "because", memory_ids=[member]))
    assert services.reviews.reject(caller, caller.scope, [waits])[0].decision is Decision.REJECTED


def test_what_expires_is_kept_one_by_one(services: Services, caller: Caller, database: Postgres) -> None:
    review(services, caller)
    today = clock.today()
    held = add(services, caller, "alice's", expires_on=today).results[0].memory_id
    add(services, caller, "bob's", user="bob", expires_on=today)
    hold = NewHold("case-1", "because", subjects=SubjectNames(user_id="alice"))
    services.installation.holds.place(caller, caller.scope, hold)
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("UPDATE quarantine SET expires_on = expires_on - 1")
    assert services.reviews.forget_expired(caller.scope) == 1
    assert rows(database, "SELECT id FROM quarantine") == [(held,)]
