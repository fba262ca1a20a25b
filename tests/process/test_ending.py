"""How a service ends: readiness goes first, what is under way ends or is handed back, and the exit code is 0."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.llm.scripted import ScriptedLLM
from tests.process.memvault import STOP_SECONDS, Memvault, add, eventually, listed

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def llm() -> Iterator[ScriptedLLM]:
    """The scripted LLM of the installation."""
    with ScriptedLLM() as server:
        yield server


@pytest.fixture(scope="module")
def installation(written_model: Path, llm: ScriptedLLM) -> Iterator[Memvault]:
    """An installation that extracts; each test starts and ends it."""
    memvault = Memvault(
        written_model,
        MEMVAULT_LLM__PROVIDER="openai",
        MEMVAULT_LLM__MODEL="scripted",
        MEMVAULT_LLM__API_KEY="sk-scripted",
        MEMVAULT_LLM__BASE_URL=llm.url,
    )
    try:
        yield memvault
    finally:
        memvault.remove()


def extracting(memvault: Memvault, **environ: str) -> Memvault:
    """Start it, and return once it extracts."""
    memvault.start(**environ)
    with memvault.client() as client:
        eventually(lambda: client.get("/readyz").json()["parts"]["extraction"]["status"] == "ok", seconds=90)
    return memvault


def in_background(ask: Callable[[], httpx.Response]) -> Callable[[], httpx.Response]:
    """Begin a call in a thread; what is returned waits for its answer."""
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(ask()), daemon=True)
    thread.start()

    def answer() -> httpx.Response:
        thread.join(STOP_SECONDS)
        return answers[0]

    return answer


def refuses(memvault: Memvault) -> bool:
    """Whether the service takes no new connection any more."""
    try:
        httpx.get(f"{memvault.url}/healthz", trust_env=False, timeout=10)
    except httpx.TransportError:
        return True
    return False


def test_readiness_goes_first_and_requests_are_served_on(installation: Memvault) -> None:
    memvault = installation.start(MEMVAULT_SERVER__DRAIN_SECONDS="600")
    process = memvault.process
    assert process is not None
    with memvault.client() as client:
        (kept,) = add(client, "I play the cello", user="drained")
        assert client.get("/readyz").headers.get("Connection") != "close"
        process.send_signal(signal.SIGTERM)
        drained = eventually(lambda: None if (told := client.get("/readyz")).status_code == 200 else told)
        assert (drained.status_code, drained.json()["status"]) == (503, "draining")
        assert drained.json()["parts"]["record"]["status"] == "ok"
        assert drained.headers["Retry-After"]
        # It lives and serves, and lets go of each connection after its answer.
        alive = client.get("/healthz")
        assert (alive.status_code, alive.headers["Connection"]) == (200, "close")
        (added,) = add(client, "I moved to Porto", user="drained")
        assert listed(client, user="drained").keys() == {kept, added}
    # The second one ends the wait.
    assert memvault.stop(signal.SIGTERM) == 0
    assert memvault.processes() == []


def test_who_is_told_twice_at_once_ends_without_an_error(installation: Memvault) -> None:
    memvault = installation.start()
    assert memvault.process is not None
    before = len(memvault.stderr)
    memvault.process.send_signal(signal.SIGTERM)
    assert memvault.stop(signal.SIGINT) == 0
    assert "error" not in memvault.stderr[before:].lower()


def test_what_is_under_way_ends_before_the_process(installation: Memvault, llm: ScriptedLLM) -> None:
    memvault = extracting(installation, MEMVAULT_SERVER__GRACE_SECONDS="60")
    process = memvault.process
    assert process is not None
    before = len(llm.requests)
    llm.hold()
    with memvault.client(timeout=60) as client:
        body = {"messages": [{"role": "user", "content": "I live in Rome"}], "user_id": "ada"}
        answer = in_background(lambda: client.post("/v1/memories/", json=body))
        llm.wait_for_requests(before + 1)
        process.send_signal(signal.SIGTERM)
        eventually(lambda: refuses(memvault))
        llm.release()
        told = answer()
        assert (told.status_code, told.json()["results"][0]["memory"]) == (200, "I live in Rome")
    assert process.wait(STOP_SECONDS) == 0
    memvault.process = None
    assert len(llm.requests) == before + 1
    assert memvault.processes() == []


def test_a_job_that_does_not_end_is_handed_back_and_done_once(installation: Memvault, llm: ScriptedLLM) -> None:
    """The language model does not answer: the process ends all the same, and the next one takes the job at once."""
    memvault = extracting(installation, MEMVAULT_SERVER__GRACE_SECONDS="0.2", MEMVAULT_QUEUE__STOP_SECONDS="0.2")
    before = len(llm.requests)
    llm.hold()
    body = {"messages": [{"role": "user", "content": "I live in Rome"}], "user_id": "alice"}
    with memvault.client() as client:
        event = client.post("/v3/memories/add/", json=body).json()["event_id"]
        llm.wait_for_requests(before + 1)
        # This one waits for its event, longer than the service waits for it.
        more = {"messages": [{"role": "user", "content": "I play the cello"}], "user_id": "bob"}
        cut_off = in_background(lambda: client.post("/v1/memories/", json=more))
        llm.wait_for_requests(before + 2)
        assert memvault.stop(signal.SIGTERM) == 0
        told = cut_off()
        assert (told.status_code, told.json()["code"]) == (503, "unavailable")
        assert told.headers["Retry-After"]
    assert memvault.processes() == []
    # Nobody has to wait until the first worker is taken for dead.
    assert re.search(r"jobs went back to the queue.*count=2", memvault.stderr)

    llm.release()
    memvault.start()
    with memvault.client() as client:
        eventually(lambda: client.get(f"/v1/event/{event}/").json()["status"] == "SUCCEEDED", seconds=60)
        assert list(listed(client).values()) == ["I live in Rome"]
        assert eventually(lambda: list(listed(client, user="bob").values()), seconds=60) == ["I play the cello"]
    with psycopg.connect(memvault.superuser_dsn()) as record:
        assert record.execute("SELECT count(*) FROM procrastinate_jobs WHERE status = 'doing'").fetchone() == (0,)
    assert memvault.stop() == 0
