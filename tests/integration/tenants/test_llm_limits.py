"""Limits on the language model and on what waits for it: nothing is lost, it goes on when there is room again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from service import clock
from service.audit.tenant_details import ProjectField
from service.engine import EngineError
from service.errors import QuotaExceeded, TooManyRequests, TooManyWaiting
from service.filters.ast import EVERYTHING
from service.main import create_app
from service.portability.exports import Wanted
from service.records import Event, EventStatus, Message, NewMemories, SubjectNames
from service.retention.ledger import ErasureKind, Target
from service.scope import Caller, Limit
from service.storage.keyring import FileKeyring
from service.wiring import Services, open_changed
from tests.clients.serving import serving
from tests.conftest import MakeServices, Postgres, caller_of, principal_of
from tests.llm.scripted import ScriptedLLM

pytestmark = pytest.mark.integration

Start = Callable[..., tuple[Services, Caller]]
Read = Callable[[Services, Caller], object]

SCHEMA = {"properties": {"drink": {"type": "string"}}}


@pytest.fixture
def llm() -> Iterator[ScriptedLLM]:
    """A scripted LLM over HTTP."""
    with ScriptedLLM() as scripted:
        yield scripted


@pytest.fixture
def start(make_services: MakeServices, llm: ScriptedLLM) -> Start:
    """Open services with the LLM, without a worker unless it is asked for, and a tenant with limits."""

    def started(*, worker: bool = False, timeout: float = 5.0, **limits: int) -> tuple[Services, Caller]:
        flags = {"provider": "openai", "config": llm.config, "timeout": timeout, "retry_wait": 0.05, "attempts": 1}
        services = make_services(worker=worker, llm=flags, queue={"poll_interval": 0.1})
        tenant = services.installation.tenants.create("acme").id
        services.installation.tenants.set_limits("acme", {Limit(name): most for name, most in limits.items()})
        return services, caller_of(services, tenant)

    return started


def ask(services: Services, caller: Caller, text: str, user: str = "alice", *, key: str | None = None) -> Event:
    """Ask for an extraction."""
    new = NewMemories([Message("user", text)], SubjectNames(user_id=user))
    return services.adds.add(caller, caller.scope, new, idempotency_key=key)


def work(services: Services, caller: Caller, event: Event) -> Event:
    """Do what the worker would do with an event, and return how it stands."""
    services.jobs.handlers()["extract"](str(caller.principal.tenant_id), str(event.id))
    return services.events.get(caller, caller.scope, event.id)


def store(services: Services, caller: Caller, text: str) -> None:
    """Add a memory as it is, which asks no LLM."""
    new = NewMemories([Message("user", text)], SubjectNames(user_id="alice"), infer=False)
    services.adds.add(caller, caller.scope, new)


def summarise(services: Services, caller: Caller) -> object:
    """Read a summary."""
    return services.summaries.summarise(caller, caller.scope, EVERYTHING)


def arrange(services: Services, caller: Caller) -> object:
    """Read an export in the shape of a schema."""
    wanted = Wanted(SubjectNames(user_id="alice"), schema=SCHEMA)
    export_id = services.exports.request(caller, caller.scope, wanted)
    return services.projections.read(caller, caller.scope, export_id, Wanted())


def extract(services: Services, caller: Caller) -> object:
    """Ask for an extraction and do the worker's part of it."""
    return work(services, caller, ask(services, caller, f"I like tea {clock.new_id()}"))


def consolidate(services: Services, caller: Caller) -> object:
    """Ask which of what is stored is not true any more, as the worker does."""
    changed = open_changed(services.installation, services.engine)
    return services.installation.consolidations.run(caller, caller.scope, changed=changed)


def used(services: Services, caller: Caller, limit: Limit) -> int:
    """How much of a limit is used."""
    return services.installation.quotas.used(caller.principal.tenant_id).counts[limit]


def jobs_at(database: Postgres, event: Event) -> list[datetime | None]:
    """When the queue takes up an event."""
    with psycopg.connect(database.admin) as connection:
        query = "SELECT scheduled_at FROM procrastinate_jobs WHERE args ->> 'event_id' = %s AND status = 'todo'"
        return [row[0] for row in connection.execute(query, [str(event.id)])]


def test_what_the_llm_is_not_asked_about_is_no_call(start: Start, llm: ScriptedLLM) -> None:
    """What tools answer is no part of an extraction: alone it asks nothing, and uses up nothing of the day."""
    services, caller = start(llm_calls_per_day=1)
    said = NewMemories([Message("tool", "42 rows")], SubjectNames(user_id="alice"))
    for _ in range(2):
        event = services.adds.add(caller, caller.scope, said)
        assert work(services, caller, event).status is EventStatus.SUCCEEDED
    assert (llm.requests, used(services, caller, Limit.LLM_CALLS_PER_DAY)) == ([], 0)
    assert work(services, caller, ask(services, caller, "I like tea")).status is EventStatus.SUCCEEDED
    assert used(services, caller, Limit.LLM_CALLS_PER_DAY) == 1


def test_a_call_over_the_day_s_limit_waits_and_goes_on_the_next_day(
    start: Start, llm: ScriptedLLM, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, caller = start(llm_calls_per_day=1)
    first, second = ask(services, caller, "I like tea"), ask(services, caller, "I like rice")
    assert work(services, caller, first).status is EventStatus.SUCCEEDED
    waiting = work(services, caller, second)
    assert (waiting.status, waiting.code) == (EventStatus.PENDING, "llm_calls_used_up")
    assert waiting.reason is not None
    assert "1 times a day" in waiting.reason
    assert len(llm.requests) == used(services, caller, Limit.LLM_CALLS_PER_DAY) == 1
    later = [moment for moment in jobs_at(database, second) if moment is not None]
    assert later
    assert min(later) <= clock.now() + timedelta(hours=1)
    # The sweep leaves it alone: it has its job.
    services.jobs.sweep_tenant(caller.principal.tenant_id)
    tomorrow = datetime.combine(clock.today() + timedelta(days=1), datetime.min.time(), UTC) + timedelta(seconds=1)
    monkeypatch.setattr(clock, "now", lambda: tomorrow)
    assert work(services, caller, second).status is EventStatus.SUCCEEDED
    assert used(services, caller, Limit.LLM_CALLS_PER_DAY) == 1
    with psycopg.connect(database.admin) as connection:
        query = "SELECT detail FROM audit WHERE event = 'limit:reached'"
        assert [row[0]["limit"] for row in connection.execute(query)] == ["llm_calls_per_day"]


def test_a_limit_that_is_raised_lets_it_go_on_the_same_day(start: Start) -> None:
    services, caller = start(llm_calls_per_day=0)
    event = ask(services, caller, "I like tea")
    assert work(services, caller, event).status is EventStatus.PENDING
    services.installation.tenants.set_limits("acme", {Limit.LLM_CALLS_PER_DAY: 1})
    done = work(services, caller, event)
    assert (done.status, done.code) == (EventStatus.SUCCEEDED, None)


def test_calls_are_counted_exactly_when_many_begin_at_once(start: Start, llm: ScriptedLLM) -> None:
    services, caller = start(llm_calls_per_day=3)
    events = [ask(services, caller, f"I like {number}", user=f"user-{number}") for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        states = list(pool.map(lambda event: work(services, caller, event).status, events))
    assert states.count(EventStatus.SUCCEEDED) == 3
    assert states.count(EventStatus.PENDING) == 5
    assert len(llm.requests) == 3


def test_tokens_are_counted_as_the_provider_says_also_of_answers_that_are_no_use(
    start: Start, llm: ScriptedLLM, database: Postgres
) -> None:
    services, caller = start(llm_tokens_per_day=1)
    llm.broken_json()
    first, second = ask(services, caller, "I like tea"), ask(services, caller, "I like rice")
    assert work(services, caller, first).status is EventStatus.FAILED
    tokens = used(services, caller, Limit.LLM_TOKENS_PER_DAY)
    assert tokens > 1
    waiting = work(services, caller, second)
    assert (waiting.status, waiting.code) == (EventStatus.PENDING, "llm_tokens_used_up")
    services.installation.tenants.set_limits("acme", {Limit.LLM_TOKENS_PER_DAY: 10**6})
    assert work(services, caller, second).status is EventStatus.SUCCEEDED
    assert used(services, caller, Limit.LLM_TOKENS_PER_DAY) > tokens


def test_what_an_extraction_found_too_much_ends_its_event(start: Start, llm: ScriptedLLM, database: Postgres) -> None:
    services, caller = start(memories=1)
    llm.facts("Alice likes tea", "Alice likes rice")
    failed = work(services, caller, ask(services, caller, "I like tea and rice"))
    assert (failed.status, failed.code) == (EventStatus.FAILED, "quota_exceeded")
    assert used(services, caller, Limit.LLM_TOKENS_PER_DAY) > 0
    with psycopg.connect(database.admin) as connection:
        assert connection.execute("SELECT count(*) FROM memories").fetchone() == (0,)


def test_what_an_extraction_found_too_much_does_not_wait_for_a_reviewer_either(
    start: Start, llm: ScriptedLLM, database: Postgres
) -> None:
    services, caller = start(memories=1)
    own = str(caller.principal.tenant_id)
    services.projects.update(caller, caller.scope, own, own, {ProjectField.REVIEW_REQUIRED: True})
    llm.facts("Alice likes tea", "Alice likes rice")
    failed = work(services, caller, ask(services, caller, "I like tea and rice"))
    assert (failed.status, failed.code) == (EventStatus.FAILED, "quota_exceeded")
    with psycopg.connect(database.admin) as connection:
        assert connection.execute("SELECT count(*) FROM quarantine").fetchone() == (0,)


def test_a_full_tenant_asks_for_no_extraction(start: Start, llm: ScriptedLLM) -> None:
    services, caller = start(memories=1)
    first = ask(services, caller, "I like tea", key="k")
    new = NewMemories([Message("user", "one")], SubjectNames(user_id="alice"), infer=False)
    services.adds.add(caller, caller.scope, new)
    for key in (None, "another"):
        with pytest.raises(QuotaExceeded, match="may keep 1 memories"):
            ask(services, caller, "I like rice", user="bob", key=key)
    # What was taken before is answered as it was.
    assert ask(services, caller, "I like tea", key="k").id == first.id
    assert services.events.list(caller, caller.scope, page=1, size=10).total == 2
    assert llm.requests == []


@pytest.mark.parametrize("path", ["/v1/memories/", "/memories"])
def test_older_clients_are_told_that_there_is_no_room(path: str, start: Start, llm: ScriptedLLM) -> None:
    services, caller = start(worker=True, memories=1)
    _, secret = principal_of(services, caller.principal.tenant_id)
    llm.facts("Alice likes tea", "Alice likes rice")
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "I like tea and rice"}], "user_id": "alice"}
    with (
        serving(create_app(services)) as url,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {secret}"}, timeout=60) as client,
    ):
        found_too_much = client.post(path, json=body)
        assert client.post(path, json=body | {"infer": False}).status_code == 200
        full = client.post(path, json=body)
    for answer in (found_too_much, full):
        assert (answer.status_code, answer.json()["code"]) == (413, "quota_exceeded")
        assert "may keep 1 memories" in answer.text
    assert len(llm.requests) == 1


def delete_all(services: Services, caller: Caller) -> None:
    """Cancel the event by deleting what it would add to."""
    services.memories.delete_all(caller, caller.scope, SubjectNames(user_id="alice"))


def suspend(services: Services, caller: Caller) -> None:
    """Cancel the event by taking away what it was asked with."""
    services.installation.tenants.suspend("acme")


@pytest.mark.parametrize("end", [delete_all, suspend])
def test_tokens_are_counted_of_an_extraction_that_ended_meanwhile(
    start: Start, llm: ScriptedLLM, end: Callable[[Services, Caller], None]
) -> None:
    services, caller = start(timeout=60.0)
    event = ask(services, caller, "I like tea")
    llm.hold()
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work, services, caller, event)
        try:
            llm.wait_for_requests(1)
            end(services, caller)
        finally:
            llm.release()
        assert working.result().status is EventStatus.CANCELLED
    assert used(services, caller, Limit.LLM_TOKENS_PER_DAY) > 0


@pytest.mark.parametrize("limit", [Limit.LLM_CALLS_PER_DAY, Limit.LLM_TOKENS_PER_DAY])
@pytest.mark.parametrize("read", [summarise, arrange])
def test_what_cannot_wait_for_the_next_day_is_refused_over_the_limit(
    start: Start, llm: ScriptedLLM, database: Postgres, read: Read, limit: Limit
) -> None:
    services, caller = start(**{limit.value: 1})
    store(services, caller, "I like tea")
    read(services, caller)
    assert used(services, caller, Limit.LLM_CALLS_PER_DAY) == 1
    assert used(services, caller, Limit.LLM_TOKENS_PER_DAY) > 1
    for _ in range(2):
        with pytest.raises(TooManyRequests, match="a day") as caught:
            read(services, caller)
        assert 1 <= int(caught.value.headers["Retry-After"]) <= 3601
    assert len(llm.requests) == used(services, caller, Limit.LLM_CALLS_PER_DAY) == 1
    with psycopg.connect(database.admin) as connection:
        query = "SELECT detail FROM audit WHERE event = 'limit:reached'"
        assert [row[0]["limit"] for row in connection.execute(query)] == [limit.value]
        # What was refused was not read either.
        query = "SELECT count(*) FROM audit WHERE event IN ('memories:summarized', 'export:read')"
        assert connection.execute(query).fetchone() == (1,)


@pytest.mark.parametrize("answer", ["", "[" * 200_000])
@pytest.mark.parametrize("read", [summarise, arrange])
def test_tokens_of_a_read_are_counted_also_where_the_answer_is_no_use(
    start: Start, llm: ScriptedLLM, read: Read, answer: str
) -> None:
    services, caller = start()
    store(services, caller, "I like tea")
    llm.answer(answer)
    with pytest.raises(EngineError):
        read(services, caller)
    assert used(services, caller, Limit.LLM_TOKENS_PER_DAY) > 0


@pytest.mark.parametrize("read", [summarise, arrange, extract, consolidate])
def test_a_call_that_is_never_made_is_given_back(start: Start, llm: ScriptedLLM, read: Read) -> None:
    services, caller = start(timeout=1.0)
    store(services, caller, "I live in Rome")
    store(services, caller, "I live in Oslo")
    provider = services.engine._wait_until_loaded(60).provider
    # As where calls that hang keep every slot.
    with ExitStack() as slots:
        while provider._slots.acquire(blocking=False):
            slots.callback(provider._slots.release)
        with suppress(EngineError):
            read(services, caller)
    assert (llm.requests, used(services, caller, Limit.LLM_CALLS_PER_DAY)) == ([], 0)
    # One that leaves counts, whatever its provider makes of it.
    llm.status(500)
    with suppress(EngineError):
        read(services, caller)
    assert len(llm.requests) == used(services, caller, Limit.LLM_CALLS_PER_DAY) == 1


@pytest.mark.parametrize("read", [summarise, arrange, extract, consolidate])
def test_without_an_engine_no_call_is_counted(make_services: MakeServices, read: Read) -> None:
    services = make_services(llm={"provider": "no-such", "config": {}, "attempts": 1})
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    store(services, caller, "I live in Rome")
    store(services, caller, "I live in Oslo")
    with suppress(EngineError):
        read(services, caller)
    assert used(services, caller, Limit.LLM_CALLS_PER_DAY) == 0


def test_nothing_is_counted_for_a_tenant_that_was_deleted_meanwhile(
    start: Start, llm: ScriptedLLM, database: Postgres
) -> None:
    services, caller = start(timeout=60.0)
    store(services, caller, "I like tea")
    tenant_id = caller.principal.tenant_id
    llm.hold()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(summarise, services, caller)
        try:
            llm.wait_for_requests(1)
            erasure = services.erasures.request_for_installation(tenant_id, Target(ErasureKind.TENANT))
            services.erasing.finish(tenant_id, erasure.id)
        finally:
            llm.release()
        reading.result()
    with psycopg.connect(database.admin) as connection:
        assert connection.execute("SELECT count(*) FROM llm_usage").fetchone() == (0,)


@pytest.mark.parametrize("path", ["/v1/summary/", "/v1/exports/get/"])
def test_who_waits_for_the_language_model_keeps_no_thread_from_others(
    make_services: MakeServices, llm: ScriptedLLM, path: str
) -> None:
    flags = {"provider": "openai", "config": llm.config, "timeout": 60.0}
    services = make_services(llm=flags, server={"threads": 2})
    tenants = services.installation.tenants
    keys = [principal_of(services, tenants.create(name).id)[1] for name in ("acme", "other")]
    new = {"messages": [{"role": "user", "content": "I like tea"}], "user_id": "alice", "infer": False}
    with serving(create_app(services)) as url, ExitStack() as stack:
        reader, other = (
            stack.enter_context(httpx.Client(base_url=url, headers={"Authorization": f"Token {key}"}, timeout=timeout))
            for key, timeout in zip(keys, (90, 30), strict=True)
        )
        assert reader.post("/v3/memories/add/", json=new).status_code == 200
        export_id = reader.post("/v1/exports/", json={"schema": SCHEMA, "user_id": "alice"}).json()["id"]
        body = {"memory_export_id": export_id} if "exports" in path else {}
        pool = stack.enter_context(ThreadPoolExecutor(2))
        llm.hold()
        try:
            waiting = [pool.submit(reader.post, path, json=body) for _ in range(2)]
            llm.wait_for_requests(2)
            assert other.post("/v3/memories/add/", json=new).status_code == 200
            assert not any(one.done() for one in waiting)
        finally:
            llm.release()
        assert [one.result().status_code for one in waiting] == [200, 200]


def test_only_so_many_events_may_wait(start: Start) -> None:
    services, caller = start(events_waiting=2)
    first = ask(services, caller, "one")
    ask(services, caller, "two")
    with pytest.raises(TooManyWaiting, match="2 adds of this tenant are waiting") as caught:
        ask(services, caller, "three")
    assert int(caught.value.headers["Retry-After"]) >= 1
    work(services, caller, first)
    ask(services, caller, "three")
    # What is stored at once waits for nothing.
    new = NewMemories([Message("user", "four")], SubjectNames(user_id="alice"), infer=False)
    assert services.adds.add(caller, caller.scope, new).status is EventStatus.SUCCEEDED


def test_an_add_for_which_there_is_no_place_leaves_no_key(start: Start) -> None:
    services, caller = start(events_waiting=1)
    keyring = services.installation.keyring
    assert isinstance(keyring, FileKeyring)
    ask(services, caller, "one")
    before = list(keyring.each())
    for number in range(3):
        for key in (None, f"key-{number}"):
            with pytest.raises(TooManyWaiting):
                ask(services, caller, "two", user=f"user-{number}", key=key)
    assert list(keyring.each()) == before


def test_the_number_of_waiting_events_is_exact(start: Start) -> None:
    services, caller = start(events_waiting=5)

    def queued(number: int) -> bool:
        try:
            ask(services, caller, "x", user=f"user-{number}")
        except TooManyWaiting:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(queued, range(16))) == 5


def test_over_rest_a_full_queue_is_429(start: Start) -> None:
    services, caller = start(events_waiting=0)
    _, secret = principal_of(services, caller.principal.tenant_id)
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}], "user_id": "alice"}
    with (
        serving(create_app(services)) as url,
        httpx.Client(base_url=url, headers={"Authorization": f"Token {secret}"}, timeout=30) as client,
    ):
        answer = client.post("/v3/memories/add/", json=body)
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_waiting")
    assert int(answer.headers["Retry-After"]) >= 1
