"""Under review what was extracted waits: nobody but a reviewer sees it, by whatever way, until one approves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from service import clock
from service.audit.tenant_details import ProjectField
from service.auth.keys import Grant
from service.errors import Forbidden, MemvaultError, NotFound, TooLarge
from service.filters.ast import EVERYTHING
from service.filters.build import subjects_filter
from service.filters.parse import parse_filter
from service.memories.actions import Query
from service.memories.reviews import MOST_AT_ONCE, Decision
from service.portability.exports import Wanted
from service.records import Change, Event, EventStatus, Message, NewMemories, SubjectNames
from service.scope import Caller, Permission, SubjectKind
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of
from tests.integration.memories.extracting import ask, ended
from tests.llm.scripted import ScriptedLLM

pytestmark = pytest.mark.integration


CANARY = "quollcanary"


def review(services: Services, caller: Caller, *, required: bool = True) -> None:
    """Have the caller's tenant review, or not any more."""
    own = str(caller.principal.tenant_id)
    services.projects.update(caller, caller.scope, own, own, {ProjectField.REVIEW_REQUIRED: required})


def add(services: Services, caller: Caller, text: str, *, user: str = "alice", **more: Any) -> Event:
    """Add with `infer`, which without a language model keeps the text as it is, and waits for a review all the same."""
    new = NewMemories([Message("user", text)], SubjectNames(user_id=user))
    return services.adds.add(caller, caller.scope, replace(new, **more))


def waiting(services: Services, caller: Caller, where: Any = EVERYTHING) -> list[str]:
    """The texts that wait, as a reviewer sees them."""
    page = services.reviews.list(caller, caller.scope, where, page=1, size=100)
    assert page.total == len(page.items)
    return [one.memory.text for one in page.items]


def seen(services: Services, caller: Caller, memory_id: UUID) -> str:
    """Everything that every read but a reviewer's gives, as one text."""
    found: list[object] = [
        services.memories.search(caller, caller.scope, Query(CANARY, limit=50)),
        services.memories.list(caller, caller.scope, EVERYTHING, page=1, size=50, on=None),
        services.memories.list(
            caller, caller.scope, parse_filter({"text": {"contains": CANARY}}), page=1, size=5, on=None
        ),
        services.events.list(caller, caller.scope, page=1, size=50),
        services.entities.list(caller, caller.scope, page=1, size=50),
        list(services.exports.read(caller, caller.scope, Wanted())),
    ]
    for read in (services.memories.get, services.memories.history):
        with pytest.raises(NotFound):
            read(caller, caller.scope, memory_id)
    with pytest.raises(NotFound):
        services.memories.delete(caller, caller.scope, memory_id)
    return repr(found)


def rows(database: Postgres, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query, as a superuser."""
    with psycopg.connect(database.admin) as connection:
        return connection.execute(query).fetchall()  # type: ignore[arg-type]


def test_what_waits_is_seen_by_reviewers_and_by_nobody_else(services: Services, caller: Caller) -> None:
    review(services, caller)
    event = add(services, caller, f"my {CANARY}")
    (result,) = event.results
    assert (event.status, result.change, result.text) == (EventStatus.SUCCEEDED, Change.QUARANTINED, None)
    assert event.notes == {"extraction": "off", "quarantined": 1}
    assert CANARY not in seen(services, caller, result.memory_id)
    assert services.index.count() == 0
    assert waiting(services, caller) == [f"my {CANARY}"]
    assert services.reviews.get(caller, caller.scope, result.memory_id).memory.text == f"my {CANARY}"
    entity = services.entities.list(caller, caller.scope, page=1, size=5).items[0]
    assert (entity.name, entity.memories) == ("alice", 0)


def test_an_approved_memory_is_one_like_any_other(services: Services, caller: Caller, database: Postgres) -> None:
    review(services, caller)
    event = add(services, caller, f"my {CANARY}", metadata={"k": "v"}, categories=("c",))
    (result,) = event.results
    (decided,) = services.reviews.approve(caller, caller.scope, [result.memory_id])
    assert (decided.decision, decided.memory_id) == (Decision.APPROVED, result.memory_id)
    memory = services.memories.get(caller, caller.scope, result.memory_id)
    assert (memory.text, memory.metadata, memory.categories) == (f"my {CANARY}", {"k": "v"}, ("c",))
    assert (memory.provenance.event_id, memory.provenance.principal_id) == (event.id, caller.principal.id)
    (hit,) = services.memories.search(caller, caller.scope, Query(CANARY))
    assert hit.memory.id == memory.id
    (step,) = services.memories.history(caller, caller.scope, memory.id)
    assert (step.change, step.new_text) == (Change.ADD, f"my {CANARY}")
    told = services.events.get(caller, caller.scope, event.id).results
    assert [(one.change, one.memory_id, one.text) for one in told] == [(Change.ADD, memory.id, f"my {CANARY}")]
    assert waiting(services, caller) == []
    assert rows(database, "SELECT count(*) FROM quarantine") == [(0,)]
    # The trail knows it from the approval on, and no reviewer finds it twice.
    assert services.reviews.approve(caller, caller.scope, [memory.id])[0].decision is Decision.NOT_FOUND
    found = rows(database, "SELECT event, outcome, result_ids FROM audit WHERE event LIKE 'review:%' ORDER BY seq")
    assert found == [("review:approved", "done", [memory.id]), ("review:approved", "not_found", [])]


def test_a_rejected_memory_is_gone_with_its_text(services: Services, caller: Caller, database: Postgres) -> None:
    review(services, caller)
    event = add(services, caller, f"my {CANARY}")
    (decided,) = services.reviews.reject(caller, caller.scope, [event.results[0].memory_id])
    assert decided.decision is Decision.REJECTED
    (told,) = services.events.get(caller, caller.scope, event.id).results
    assert (told.change, told.text) == (Change.REJECTED, None)
    assert waiting(services, caller) == []
    assert rows(database, "SELECT count(*) FROM quarantine") == [(0,)]
    assert rows(database, "SELECT count(*) FROM memories") == [(0,)]
    with pytest.raises(NotFound):
        services.reviews.get(caller, caller.scope, event.results[0].memory_id)


def test_what_is_known_or_waits_already_does_not_wait_twice(services: Services, caller: Caller) -> None:
    known = add(services, caller, "likes tea", infer=False).results[0].memory_id
    review(services, caller)
    first = add(services, caller, "likes milk").results[0].memory_id
    again = add(services, caller, "likes milk").results[0]
    assert (again.change, again.memory_id) == (Change.QUARANTINED, first)
    same = add(services, caller, "likes tea").results[0]
    assert (same.change, same.memory_id) == (Change.NONE, known)
    # While it waits, the same is stored by somebody word for word: then there is nothing left to approve.
    stored = add(services, caller, "likes milk", infer=False).results[0].memory_id
    (decided,) = services.reviews.approve(caller, caller.scope, [first])
    assert (decided.decision, decided.memory_id) == (Decision.KNOWN, stored)
    assert waiting(services, caller) == []


def _expire(services: Services, caller: Caller, database: Postgres) -> None:
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("UPDATE quarantine SET expires_on = expires_on - 1")
    assert services.reviews.forget_expired(caller.scope) == 1


def _remove_connector(services: Services, caller: Caller) -> None:
    erasure = services.erasures.remove_connector(caller, caller.scope, "mail")
    services.erasing.run(str(caller.principal.tenant_id), str(erasure.id))


END = Callable[[Services, Caller, Postgres, UUID], object]


ENDS: dict[str, tuple[END, Change]] = {
    "approved": (lambda services, caller, _, one: services.reviews.approve(caller, caller.scope, [one]), Change.ADD),
    "rejected": (
        lambda services, caller, _, one: services.reviews.reject(caller, caller.scope, [one]),
        Change.REJECTED,
    ),
    "deleted": (
        lambda services, caller, *_: services.memories.delete_all(caller, caller.scope, SubjectNames(user_id="alice")),
        Change.REJECTED,
    ),
    "expired": (lambda services, caller, database, _: _expire(services, caller, database), Change.REJECTED),
    "connector removed": (lambda services, caller, *_: _remove_connector(services, caller), Change.REJECTED),
}


@pytest.mark.parametrize(("end", "change"), ENDS.values(), ids=ENDS)
def test_every_event_of_what_waited_tells_what_became_of_it(
    end: END, change: Change, services: Services, caller: Caller, database: Postgres
) -> None:
    review(services, caller)
    more: dict[str, Any] = {"metadata": {"connector": "mail"}, "expires_on": clock.today()}
    twice = [add(services, caller, "likes milk", **more) for _ in range(2)]
    (held,) = {event.results[0].memory_id for event in twice}
    others = [add(services, caller, "likes milk", user="bob"), add(services, caller, "likes milk", user="bob")]
    end(services, caller, database, held)
    for event in twice:
        (told,) = services.events.get(caller, caller.scope, event.id).results
        assert (told.memory_id, told.change) == (held, change)
    for event in others:
        assert services.events.get(caller, caller.scope, event.id).results[0].change is Change.QUARANTINED


def test_every_event_of_what_was_known_by_its_approval_names_the_memory_that_there_is(
    services: Services, caller: Caller
) -> None:
    review(services, caller)
    twice = [add(services, caller, "likes milk") for _ in range(2)]
    stored = add(services, caller, "likes milk", infer=False).results[0].memory_id
    services.reviews.approve(caller, caller.scope, [twice[0].results[0].memory_id])
    for event in twice:
        (told,) = services.events.get(caller, caller.scope, event.id).results
        assert (told.memory_id, told.change, told.text) == (stored, Change.NONE, "likes milk")


def test_verbatim_adds_do_not_wait_and_neither_does_anything_once_review_is_off(
    services: Services, caller: Caller
) -> None:
    review(services, caller)
    assert add(services, caller, "as I say it", infer=False).results[0].change is Change.ADD
    held = add(services, caller, "waits").results[0]
    review(services, caller, required=False)
    assert add(services, caller, "goes through").results[0].change is Change.ADD
    assert waiting(services, caller) == ["waits"]
    assert services.reviews.approve(caller, caller.scope, [held.memory_id])[0].decision is Decision.APPROVED


def test_bound_reviewers_and_other_tenants_reach_nothing_of_others(services: Services, caller: Caller) -> None:
    review(services, caller)
    alice = add(services, caller, "alice's", user="alice").results[0].memory_id
    bob = add(services, caller, "bob's", user="bob").results[0].memory_id
    keys = services.installation.keys
    permissions = frozenset({Permission.MEMORY_REVIEW})
    minted = keys.mint_for_installation(caller.principal.tenant_id, Grant(permissions, users=frozenset({"alice"})))
    principal = keys.find_principal(minted.secret)
    assert principal is not None
    bound = Caller(principal, request_id="r")
    stranger = caller_of(services, services.installation.tenants.create("rival").id)
    assert waiting(services, bound) == ["alice's"]
    assert waiting(services, stranger) == []
    with pytest.raises(Forbidden):
        services.reviews.list(bound, bound.scope, subjects_filter(SubjectNames(user_id="bob")), page=1, size=5)
    for who, ids in ((bound, [bob]), (stranger, [alice, bob])):
        for one in ids:
            with pytest.raises(NotFound):
                services.reviews.get(who, who.scope, one)
        for decide in (services.reviews.approve, services.reviews.reject):
            assert {one.decision for one in decide(who, who.scope, ids)} == {Decision.NOT_FOUND}
    agent = caller_of(services, caller.principal.tenant_id, role="agent")
    for act in (
        lambda: services.reviews.list(agent, agent.scope, EVERYTHING, page=1, size=5),
        lambda: services.reviews.search(agent, agent.scope, "x", EVERYTHING, limit=5),
        lambda: services.reviews.get(agent, agent.scope, alice),
        lambda: services.reviews.approve(agent, agent.scope, [alice]),
        lambda: services.reviews.reject(agent, agent.scope, [alice]),
    ):
        with pytest.raises(Forbidden, match="memory:review"):
            act()
    assert sorted(waiting(services, caller)) == ["alice's", "bob's"]


def test_reviewers_filter_page_and_search(services: Services, caller: Caller) -> None:
    review(services, caller)
    for number, text in enumerate(["She is allergic to nuts", "Her bank is in Oslo", "She plays chess"]):
        add(services, caller, text, metadata={"n": number, "connector": "slack" if number else "mail"})
    page = services.reviews.list(caller, caller.scope, EVERYTHING, page=2, size=2)
    assert ([one.memory.text for one in page.items], page.total) == (["She plays chess"], 3)
    assert waiting(services, caller, parse_filter({"metadata": {"connector": "mail"}})) == ["She is allergic to nuts"]
    assert waiting(services, caller, parse_filter({"text": {"contains": "Oslo"}})) == ["Her bank is in Oslo"]
    found = services.reviews.search(caller, caller.scope, "what must she not eat?", EVERYTHING, limit=2)
    assert found[0].memory.text == "She is allergic to nuts"
    assert len(found) == 2
    assert found[0].score is not None
    assert found[1].score is not None
    assert found[0].score > found[1].score


def test_many_are_decided_at_once_each_with_a_report(services: Services, caller: Caller, database: Postgres) -> None:
    review(services, caller)
    ids = [add(services, caller, f"fact {n}", user=f"user{n % 2}").results[0].memory_id for n in range(4)]
    missing = uuid4()
    decided = services.reviews.approve(caller, caller.scope, [ids[0], missing, ids[1], ids[0]])
    assert [(one.review_id, one.decision) for one in decided] == [
        (ids[0], Decision.APPROVED),
        (missing, Decision.NOT_FOUND),
        (ids[1], Decision.APPROVED),
    ]
    rejected = services.reviews.reject(caller, caller.scope, [ids[2], missing])
    assert [one.decision for one in rejected] == [Decision.REJECTED, Decision.NOT_FOUND]
    assert waiting(services, caller) == ["fact 3"]
    # What is not there is in the trail as well.
    query = "SELECT event, target_ids FROM audit WHERE event LIKE 'review:%' AND outcome = 'not_found' ORDER BY seq"
    assert rows(database, query) == [("review:approved", [missing]), ("review:rejected", [missing])]
    with pytest.raises(TooLarge):
        services.reviews.approve(caller, caller.scope, [uuid4() for _ in range(MOST_AT_ONCE + 1)])


def test_delete_all_reaches_quarantine_and_only_its_own(services: Services, caller: Caller, database: Postgres) -> None:
    review(services, caller)
    gone = add(services, caller, "alice's", user="alice").results[0].memory_id
    add(services, caller, "bob's", user="bob")
    services.memories.delete_all(caller, caller.scope, SubjectNames(user_id="alice"))
    assert waiting(services, caller) == ["bob's"]
    (row,) = rows(database, "SELECT target_ids, detail FROM audit WHERE event = 'memories:deleted'")
    assert row == ([gone], {"count": 0, "quarantined": 1})
    assert services.reviews.approve(caller, caller.scope, [gone])[0].decision is Decision.NOT_FOUND


@pytest.mark.parametrize("kind", list(SubjectKind))
def test_erasing_a_user_agent_app_or_run_reaches_quarantine(
    kind: SubjectKind, services: Services, caller: Caller, database: Postgres
) -> None:
    review(services, caller)
    names = {"user_id": "ann", f"{kind.value}_id": "target"}
    new = NewMemories([Message("user", CANARY)], SubjectNames(**names))
    held = services.adds.add(caller, caller.scope, new).results[0].memory_id
    other = add(services, caller, "bob's", user="bob").results[0].memory_id
    services.entities.delete(caller, caller.scope, kind, "target")
    assert rows(database, "SELECT id FROM quarantine") == [(other,)]
    assert services.reviews.approve(caller, caller.scope, [held])[0].decision is Decision.NOT_FOUND
    assert rows(database, "SELECT count(*) FROM memories") == [(0,)]


def test_what_expires_while_it_waits_is_neither_shown_nor_approved_and_the_sweep_removes_it(
    services: Services, caller: Caller, database: Postgres
) -> None:
    review(services, caller)
    today = clock.today()
    old = add(services, caller, "old", expires_on=today).results[0].memory_id
    add(services, caller, "new", expires_on=today + timedelta(days=1))
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("UPDATE quarantine SET expires_on = expires_on - 1 WHERE id = %s", [old])
    assert waiting(services, caller) == ["new"]
    assert services.reviews.approve(caller, caller.scope, [old])[0].decision is Decision.NOT_FOUND
    services.jobs.sweep_tenant(caller.principal.tenant_id)
    assert rows(database, "SELECT count(*) FROM quarantine") == [(1,)]
    (row,) = rows(database, "SELECT target_ids, detail FROM audit WHERE event = 'reviews:expired'")
    assert row == ([old], {"count": 1})


def test_no_text_name_or_metadata_is_readable_in_quarantine(
    services: Services, caller: Caller, database: Postgres
) -> None:
    review(services, caller)
    add(services, caller, CANARY, user=CANARY, metadata={CANARY: CANARY}, categories=(CANARY,))
    (row,) = rows(database, "SELECT q::text FROM quarantine q")
    assert len(row[0]) > 1000
    assert CANARY not in row[0]
    assert CANARY.encode().hex() not in row[0]


def test_without_an_audit_row_nothing_is_decided(services: Services, caller: Caller, database: Postgres) -> None:
    review(services, caller)
    held = add(services, caller, "waits").results[0].memory_id
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("REVOKE INSERT ON audit FROM memvault_app")
    for decide in (services.reviews.approve, services.reviews.reject):
        with pytest.raises(MemvaultError):
            decide(caller, caller.scope, [held])
    assert rows(database, "SELECT id FROM quarantine") == [(held,)]
    assert rows(database, "SELECT count(*) FROM memories") == [(0,)]


def test_extracted_memories_wait_and_never_reach_the_next_prompt(
    make_services: MakeServices, llm: ScriptedLLM, database: Postgres
) -> None:
    services = make_services(
        worker=True, llm={"provider": "openai", "config": llm.config}, queue={"poll_interval": 0.1}
    )
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    review(services, caller)
    llm.facts(f"The {CANARY} is hers", "She likes tea")
    event = ended(services, caller, ask(services, caller, f"Remember the {CANARY}"))
    assert [one.change for one in event.results] == [Change.QUARANTINED] * 2
    assert (event.status, event.notes["stored"], event.notes["quarantined"]) == (EventStatus.SUCCEEDED, 0, 2)
    assert CANARY not in seen(services, caller, event.results[0].memory_id)
    # Neither as a memory that exists nor among the last messages.
    assert rows(database, "SELECT count(*) FROM messages") == [(0,)]
    ended(services, caller, ask(services, caller, "What is hers?"))
    assert CANARY not in llm.requests[-1].prompt
    texts = {
        one.memory.text: one for one in services.reviews.list(caller, caller.scope, EVERYTHING, page=1, size=9).items
    }
    held = texts[f"The {CANARY} is hers"]
    assert held.memory.provenance.extracted
    services.reviews.approve(caller, caller.scope, [held.memory.id])
    ended(services, caller, ask(services, caller, "And what is hers now?"))
    assert f"The {CANARY} is hers" in llm.requests[-1].section("Existing Memories")


def test_a_review_that_is_switched_on_while_the_llm_thinks_counts(
    make_services: MakeServices, llm: ScriptedLLM
) -> None:
    services = make_services(
        worker=True, llm={"provider": "openai", "config": llm.config}, queue={"poll_interval": 0.1}
    )
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    llm.hold()
    event = ask(services, caller, "I love tea")
    llm.wait_for_requests(1, timeout=60)
    review(services, caller)
    llm.release()
    assert [one.change for one in ended(services, caller, event).results] == [Change.QUARANTINED]
