"""Extraction through the queue: real Mem0, the scripted LLM, and every way an answer can go wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from service.errors import ExtractionUnavailable
from service.filters.ast import EVERYTHING
from service.memories import adds
from service.records import Change, Event, EventStatus, Message, NewMemories, SubjectNames
from service.scope import Caller, Limit, SubjectKind
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of
from tests.llm.scripted import ScriptedLLM

pytestmark = pytest.mark.integration


Start = Callable[..., tuple[Services, Caller]]


@pytest.fixture
def start(make_services: MakeServices, llm: ScriptedLLM) -> Start:
    """Start services with the LLM and a worker; return them with an admin caller."""

    def started(*, worker: bool = True, **more: Any) -> tuple[Services, Caller]:
        flags = {"provider": "openai", "config": llm.config, "timeout": 5.0, "retry_wait": 0.05, "attempts": 3}
        services = make_services(worker=worker, llm=flags | more, queue={"poll_interval": 0.1})
        return services, caller_of(services, services.installation.tenants.create("acme").id)

    return started


def ask(services: Services, caller: Caller, *texts: str, user: str = "alice", key: str | None = None) -> Event:
    """Ask for an extraction."""
    new = NewMemories([Message("user", text) for text in texts], SubjectNames(user_id=user))
    return services.adds.add(caller, caller.scope, new, idempotency_key=key)


def ended(services: Services, caller: Caller, event: Event, within: float = 30.0) -> Event:
    """Wait for an event to be final."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        found = services.events.get(caller, caller.scope, event.id)
        if found.status.is_final:
            return found
        time.sleep(0.05)
    raise AssertionError(f"the event is still {found.status} ({found.code})")


def texts(services: Services, caller: Caller) -> list[str]:
    """All memories of the caller's tenant."""
    page = services.memories.list(caller, caller.scope, EVERYTHING, page=1, size=100, on=None)
    return [memory.text for memory in page.items]


def column(database: Postgres, query: str) -> list[Any]:
    """The first column of a query, as a superuser."""
    with psycopg.connect(database.admin) as connection:
        return [row[0] for row in connection.execute(query)]  # type: ignore[arg-type]


def test_good_answers_become_memories_with_truthful_counts(start: Start, llm: ScriptedLLM, database: Postgres) -> None:
    services, caller = start()
    llm.facts("Alice loves Italian food", "Alice lives in Rome")
    event = ask(services, caller, "I love Italian food", "I live in Rome")
    assert event.status is EventStatus.PENDING
    done = ended(services, caller, event)
    assert done.status is EventStatus.SUCCEEDED
    assert [(result.change, result.text) for result in done.results] == [
        (Change.ADD, "Alice loves Italian food"),
        (Change.ADD, "Alice lives in Rome"),
    ]
    assert done.notes["messages"] == 2
    assert done.notes["offered"] == done.notes["stored"] == 2
    assert done.notes["dropped"] == {}
    assert column(database, "SELECT payload FROM events") == [None]
    assert services.memories.list(caller, caller.scope, EVERYTHING, page=1, size=5, on=None).items[0].inferred


def test_the_next_prompt_holds_the_last_messages_and_like_memories_of_the_same_scope_only(
    start: Start, llm: ScriptedLLM
) -> None:
    services, caller = start()
    other = caller_of(services, services.installation.tenants.create("rival").id)
    ended(services, other, ask(services, other, "The rival's secret recipe"))
    ended(services, caller, ask(services, caller, "Bob's private plan", user="bob"))
    ended(services, caller, ask(services, caller, "I love Italian food"))
    ended(services, caller, ask(services, caller, "What food do I love?"))
    prompt = llm.requests[-1].prompt
    assert prompt.count("I love Italian food") == 2
    assert "rival" not in prompt
    assert "private plan" not in prompt


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (lambda llm: [llm.answer("") for _ in range(3)], "llm_answer_unparsable"),
        (lambda llm: [llm.broken_json() for _ in range(3)], "llm_answer_unparsable"),
        (lambda llm: [llm.status(500) for _ in range(3)], "llm_unavailable"),
        (lambda llm: [llm.status(429) for _ in range(3)], "llm_rate_limited"),
        (lambda llm: [llm.status(401)], "llm_rejected"),
    ],
    ids=["empty", "broken", "500", "429", "401"],
)
def test_what_stays_wrong_ends_failed_with_its_reason(
    script: Callable[[ScriptedLLM], Any], code: str, start: Start, llm: ScriptedLLM
) -> None:
    services, caller = start()
    script(llm)
    tries = 1 if code == "llm_rejected" else 3
    done = ended(services, caller, ask(services, caller, "I love canaries-4711"))
    assert (done.status, done.code, done.attempts) == (EventStatus.FAILED, code, tries)
    assert done.reason
    assert "4711" not in done.reason
    assert len(llm.requests) == tries
    assert texts(services, caller) == []


@pytest.mark.parametrize("count", [-1, 2**63])
def test_a_count_of_tokens_that_cannot_be_one_is_passed_over(count: int, start: Start, llm: ScriptedLLM) -> None:
    services, caller = start()
    message = {"role": "assistant", "content": '{"memory": [{"text": "Alice loves tea"}]}'}
    usage = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), count)
    llm.raw(json.dumps({"choices": [{"index": 0, "message": message}], "usage": usage}).encode())
    done = ended(services, caller, ask(services, caller, "I love tea"))
    assert (done.status, done.notes.get("tokens")) == (EventStatus.SUCCEEDED, None)
    used = services.installation.quotas.used(caller.principal.tenant_id).counts
    assert (used[Limit.LLM_CALLS_PER_DAY], used[Limit.LLM_TOKENS_PER_DAY]) == (1, 0)


def test_nothing_to_remember_is_a_success_that_says_so(start: Start, llm: ScriptedLLM) -> None:
    services, caller = start()
    llm.empty()
    done = ended(services, caller, ask(services, caller, "Hello!"))
    assert (done.status, done.notes["offered"], done.notes["stored"]) == (EventStatus.SUCCEEDED, 0, 0)
    assert done.results == ()


@pytest.mark.parametrize("kind", ["root_list", "memory_dict", "items_strings"])
def test_an_odd_shape_ends_failed_after_its_tries(kind: str, start: Start, llm: ScriptedLLM) -> None:
    services, caller = start()
    for _ in range(3):
        llm.odd_shape(kind)
    done = ended(services, caller, ask(services, caller, "I love tea"))
    assert (done.status, done.code) == (EventStatus.FAILED, "llm_answer_malformed")


def test_items_that_are_dropped_are_counted_with_their_reason(start: Start, llm: ScriptedLLM) -> None:
    services, caller = start()
    llm.facts("Alice loves tea", "Alice loves tea", "")
    done = ended(services, caller, ask(services, caller, "I love tea"))
    assert done.notes["offered"] == 3
    assert done.notes["stored"] == 1
    assert sum(done.notes["dropped"].values()) == 2


def test_a_transient_failure_is_tried_again_and_nothing_is_lost(start: Start, llm: ScriptedLLM) -> None:
    services, caller = start()
    llm.status(500).broken_json().facts("Alice loves tea")
    done = ended(services, caller, ask(services, caller, "I love tea"))
    assert (done.status, done.attempts) == (EventStatus.SUCCEEDED, 3)
    assert texts(services, caller) == ["Alice loves tea"]


def test_an_answer_in_time_limit_only(start: Start, llm: ScriptedLLM) -> None:
    services, caller = start(timeout=0.3, attempts=2)
    llm.slow(1.5).slow(1.5)
    done = ended(services, caller, ask(services, caller, "I love tea"))
    assert (done.status, done.code, done.attempts) == (EventStatus.FAILED, "llm_unavailable", 2)


def test_a_key_revoked_while_the_llm_thinks_ends_cancelled(start: Start, llm: ScriptedLLM) -> None:
    services, caller = start()
    watcher = caller_of(services, caller.principal.tenant_id)
    llm.hold()
    event = ask(services, caller, "I love tea")
    llm.wait_for_requests(1)
    services.keys.revoke(watcher, watcher.scope, caller.principal.id)
    llm.release()
    done = ended(services, watcher, event)
    assert (done.status, done.code) == (EventStatus.CANCELLED, "key_revoked")
    assert texts(services, watcher) == []


def test_a_tenant_suspended_while_the_llm_thinks_ends_cancelled(start: Start, llm: ScriptedLLM) -> None:
    services, caller = start()
    llm.hold()
    event = ask(services, caller, "I love tea")
    llm.wait_for_requests(1)
    services.installation.tenants.suspend("acme")
    llm.release()
    done = ended(services, caller, event)
    assert (done.status, done.code) == (EventStatus.CANCELLED, "tenant_suspended")


def test_a_person_erased_while_the_llm_thinks_does_not_come_back(
    start: Start, llm: ScriptedLLM, database: Postgres
) -> None:
    services, caller = start()
    llm.hold()
    ask(services, caller, "I love tea")
    llm.wait_for_requests(1)
    services.entities.delete(caller, caller.scope, SubjectKind.USER, "alice")
    llm.release()
    kept = ended(services, caller, ask(services, caller, "I love coffee", user="bob"))
    assert kept.status is EventStatus.SUCCEEDED
    assert texts(services, caller) == ["I love coffee"]
    for table in ("events", "messages", "subjects"):
        assert len(column(database, f"SELECT 1 FROM {table}")) == 1


def test_delete_all_cancels_what_is_still_being_extracted(start: Start, llm: ScriptedLLM) -> None:
    services, caller = start()
    llm.hold()
    event = ask(services, caller, "I love tea")
    llm.wait_for_requests(1)
    services.memories.delete_all(caller, caller.scope, SubjectNames(user_id="alice"))
    llm.release()
    done = ended(services, caller, event)
    assert (done.status, done.code) == (EventStatus.CANCELLED, "deleted")
    time.sleep(0.5)
    assert texts(services, caller) == []


def test_delete_all_cancels_nothing_beyond_its_scope(start: Start) -> None:
    """Nothing of some of those who are named where another is nobody, and nothing that the caller does not reach."""
    services, caller = start(worker=False)
    bound = caller_of(services, caller.principal.tenant_id, users=frozenset({"alice"}))
    events = {}
    for user in ("alice", "bob"):
        new = NewMemories([Message("user", "I love tea")], SubjectNames(user_id=user, agent_id="helper"))
        events[user] = services.adds.add(caller, caller.scope, new).id

    def states() -> dict[str, EventStatus]:
        return {user: services.events.get(caller, caller.scope, one).status for user, one in events.items()}

    named = SubjectNames(user_id="alice", app_id="nobody")
    assert services.memories.delete_all(caller, caller.scope, named) == 0
    assert states() == {"alice": EventStatus.PENDING, "bob": EventStatus.PENDING}
    services.memories.delete_all(bound, bound.scope, SubjectNames(agent_id="helper"))
    assert states() == {"alice": EventStatus.CANCELLED, "bob": EventStatus.PENDING}


def test_an_idempotency_key_asks_the_llm_once(start: Start, llm: ScriptedLLM) -> None:
    services, caller = start()
    first = ask(services, caller, "I love tea", key="k")
    assert ask(services, caller, "I love tea", key="k").id == first.id
    assert ended(services, caller, first).status is EventStatus.SUCCEEDED
    assert ask(services, caller, "I love tea", key="k").status is EventStatus.SUCCEEDED
    assert len(llm.requests) == 1


def test_an_event_that_failed_gives_its_idempotency_key_up(start: Start, llm: ScriptedLLM, database: Postgres) -> None:
    services, caller = start()
    llm.status(400)
    failed = ask(services, caller, "I love tea", key="k")
    assert ended(services, caller, failed).status is EventStatus.FAILED
    assert column(database, "SELECT event_id FROM idempotency") == []
    llm.facts("Alice loves tea")
    again = ask(services, caller, "I love tea", key="k")
    assert again.id != failed.id
    assert ended(services, caller, again).status is EventStatus.SUCCEEDED
    # One that is done keeps it, and the one that failed can still be asked for.
    assert ask(services, caller, "I love tea", key="k").id == again.id
    assert services.events.get(caller, caller.scope, failed.id).status is EventStatus.FAILED
    assert texts(services, caller) == ["Alice loves tea"]


def test_a_cancelled_event_keeps_its_idempotency_key(start: Start) -> None:
    services, caller = start(worker=False)
    event = ask(services, caller, "I love tea", key="k")
    services.memories.delete_all(caller, caller.scope, SubjectNames(user_id="alice"))
    again = ask(services, caller, "I love tea", key="k")
    assert (again.id, again.status) == (event.id, EventStatus.CANCELLED)


def test_an_idempotency_key_that_is_given_up_while_it_is_asked_for(
    start: Start, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, caller = start(worker=False)
    event = ask(services, caller, "I love tea", key="k")
    select, seen = adds.select, []

    def selected(*columns: Any) -> Any:
        # The event that has the key fails between the claim and the look at who has it.
        if not seen:
            with psycopg.connect(database.admin, autocommit=True) as connection:
                seen.append(connection.execute("DELETE FROM idempotency").rowcount)
        return select(*columns)

    monkeypatch.setattr(adds, "select", selected)
    assert ask(services, caller, "I love tea", key="k").id != event.id
    assert seen == [1]


def test_messages_wait_in_postgres_until_a_worker_comes(start: Start, llm: ScriptedLLM, database: Postgres) -> None:
    services, caller = start(worker=False)
    event = ask(services, caller, "I love tea")
    assert services.events.get(caller, caller.scope, event.id).status is EventStatus.PENDING
    payloads = column(database, "SELECT payload FROM events")
    assert len(payloads) == 1
    assert b"tea" not in payloads[0]
    services.jobs.handlers()["extract"](str(caller.principal.tenant_id), str(event.id))
    assert ended(services, caller, event).status is EventStatus.SUCCEEDED
    services.jobs.handlers()["extract"](str(caller.principal.tenant_id), str(event.id))
    assert len(texts(services, caller)) == 1


def test_deleting_a_memory_takes_its_source_messages_with_it(
    start: Start, llm: ScriptedLLM, database: Postgres
) -> None:
    services, caller = start()
    done = ended(services, caller, ask(services, caller, "I love tea"))
    assert len(column(database, "SELECT content FROM messages")) == 1
    services.memories.delete(caller, caller.scope, done.results[0].memory_id)
    assert column(database, "SELECT content FROM messages") == []
    assert services.events.get(caller, caller.scope, done.id).results[0].text is None


def test_without_an_llm_the_fallback_stores_verbatim_and_says_so(services: Services, caller: Caller) -> None:
    event = ask(services, caller, "I love tea")
    assert event.status is EventStatus.SUCCEEDED
    assert event.notes == {"extraction": "off", "stored": "verbatim"}
    assert texts(services, caller) == ["I love tea"]


def test_without_an_llm_and_a_fallback_extraction_is_refused_naming_the_setting(make_services: MakeServices) -> None:
    services = make_services(extraction={"fallback": "refuse"})
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    with pytest.raises(ExtractionUnavailable, match=r"llm\.provider"):
        ask(services, caller, "I love tea")
