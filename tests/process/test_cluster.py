"""Two services and two workers: restarted in turn under load, and with one thing after the other taken away."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import pytest

from service.auth.keys import Grant, MintedKey
from service.policy.table import ROLES
from service.scope import Limit
from tests.conftest import Postgres, fresh_database
from tests.llm.scripted import ScriptedLLM
from tests.process.cluster import BOOTSTRAP, Cluster
from tests.process.memvault import STOP_SECONDS, add, eventually, listed, search
from tests.process.ready_balancer import Members, balancing
from tests.webhooks.receiver import Receiver, receiving

pytestmark = pytest.mark.integration

CLIENTS: Final = 3
#: Seconds between two rounds of a client: a load, not a race with the processes that start.
_PAUSE: Final = 0.5
STOPS_WITHIN: Final = 5.0
#: A client that is told of no time waits for so long before its one retry.
_WAIT: Final = 1.0


@pytest.fixture(scope="module")
def llm() -> Iterator[ScriptedLLM]:
    """The scripted LLM of the cluster."""
    with ScriptedLLM() as server:
        yield server


@pytest.fixture(scope="module")
def hook() -> Iterator[Receiver]:
    """A receiver of webhooks."""
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def cluster(
    postgres: Postgres,
    migrated: Postgres,
    written_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
    llm: ScriptedLLM,
    hook: Receiver,
) -> Iterator[Cluster]:
    """Two services and two workers."""
    with ExitStack() as stack:
        database = stack.enter_context(fresh_database(postgres))
        more: dict[str, dict[str, Any]] = {
            "llm": {"retry_wait": 0.1, "attempts": 20},
            "server": {"drain_seconds": 3},
            "webhooks": {"allowed_hosts": [hook.host], "allowed_networks": ["127.0.0.0/8"]},
        }
        made = Cluster(tmp_path_factory.mktemp("rolling"), database.urls, llm, written_model, stack, more)
        made.admin_dsn = database.admin
        made.start()
        yield made


@dataclass
class Client:
    """One client: what it was told, and what even its retry did not mend."""

    url: str
    number: int
    stop: threading.Event
    kept: dict[str, str] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    said: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    retries: int = 0
    requests: int = 0

    @property
    def user(self) -> str:
        """Whose memories it writes."""
        return f"user-{self.number}"

    def run(self) -> None:
        """Add, search, read and delete until it is stopped."""
        chance = random.Random(self.number)
        with httpx.Client(base_url=self.url, headers={"Authorization": f"Token {BOOTSTRAP}"}, timeout=60) as http:
            for number in range(100_000):
                if self.stop.wait(_PAUSE):
                    return
                self._step(http, chance, number)

    def _step(self, http: httpx.Client, chance: random.Random, number: int) -> None:
        text = f"{self.user} noted entry {number}"
        body = {"messages": [{"role": "user", "content": text}], "user_id": self.user, "infer": number % 4 == 0}
        told = self._asked(http, "POST", "/v3/memories/add/", body)
        if told is None:
            return
        if body["infer"]:
            self.said.append(text)
        else:
            self.kept[told["results"][0]["id"]] = text
        found = self._asked(
            http, "POST", "/v3/memories/search/", {"query": text, "filters": {"user_id": self.user}, "top_k": 5}
        )
        if found is not None and self.deleted & {hit["id"] for hit in found["results"]}:
            self.wrong.append("a search found what was deleted")
        if not self.kept:
            return
        chosen = chance.choice(sorted(self.kept))
        read = self._asked(http, "GET", f"/v1/memories/{chosen}/", None)
        if read is not None and read["memory"] != self.kept[chosen]:
            self.wrong.append("a memory has another text")
        if number % 3 == 0 and self._asked(http, "DELETE", f"/v1/memories/{chosen}/", None) is not None:
            del self.kept[chosen]
            self.deleted.add(chosen)

    def _asked(self, http: httpx.Client, method: str, path: str, body: Any) -> Any:
        """Ask, and ask once more when that was refused for now, as clients do."""
        self.requests += 1
        for again in (False, True):
            try:
                answer = http.request(method, path, json=body)
            except httpx.TransportError as error:
                told, wait = type(error).__name__, _WAIT
            else:
                if answer.status_code == 200:
                    return answer.json()
                told = f"{method} {path.split('/')[2]} {answer.status_code} {answer.text[:200]}"
                wait = float(answer.headers.get("Retry-After", _WAIT))
            if again:
                self.wrong.append(told)
                return None
            self.retries += 1
            time.sleep(min(wait, 2.0))
        return None


@dataclass
class Hasty:
    """A tenant that asks for more than it may, through the balancer; counts what passed."""

    url: str
    key: str
    stop: threading.Event
    passed: int = 0
    seconds: float = 0.0
    statuses: set[int] = field(default_factory=set)

    def run(self) -> None:
        """Ask ten times a second."""
        began = time.monotonic()
        with httpx.Client(base_url=self.url, headers={"Authorization": f"Token {self.key}"}, timeout=60) as http:
            while not self.stop.wait(0.1):
                status = http.get("/v1/ping/").status_code
                self.passed += status == 200
                self.statuses.add(status)
        self.seconds = time.monotonic() - began


@pytest.mark.timeout(420)
def test_no_request_fails_while_all_are_restarted_in_turn(cluster: Cluster, llm: ScriptedLLM, hook: Receiver) -> None:
    """Requests need one retry at most, each job is done once, limits hold over both, a revoked key stops on both."""
    with cluster.installation() as installation:
        tenants, keys, reader = installation.tenants, installation.keys, Grant(ROLES["reader"])
        hasty_id = tenants.create("hasty").id
        tenants.set_limits("hasty", {Limit.REQUESTS_PER_SECOND: 1}, [])
        hasty_key = keys.mint_for_installation(hasty_id, reader).secret
        doomed = keys.mint_for_installation(tenants.get("default").id, reader)
    with cluster.services[0].client(BOOTSTRAP) as client:
        project = client.get("/v1/ping/").json()["project_id"]
        made = {"name": "all", "url": hook.url, "event_types": ["memory_add"]}
        assert client.post(f"/api/v1/webhooks/projects/{project}/", json=made).status_code == 201

    stop = threading.Event()
    with balancing(cluster.services) as (url, members):
        clients = [Client(url, number, stop) for number in range(CLIENTS)]
        hasty = Hasty(url, hasty_key, stop)
        threads = [threading.Thread(target=one.run) for one in (*clients, hasty)]
        for thread in threads:
            thread.start()
        try:
            _restart_all(cluster, members, doomed)
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)

    requests, retries = sum(one.requests for one in clients), sum(one.retries for one in clients)
    print(f"{requests} requests, {retries} of them once more; {hasty.passed} passed in {hasty.seconds:.0f} s")
    assert [wrong for one in clients for wrong in one.wrong] == []
    assert all(one.kept and one.deleted and one.said for one in clients)
    # One that is there at first and one a second, however many services there were.
    assert 1 <= hasty.passed <= 2 + hasty.seconds
    assert 429 in hasty.statuses
    _all_is_there_once(cluster, clients, llm)
    _all_is_told_once(cluster, clients, hook, project)


def _restart_all(cluster: Cluster, members: Members, doomed: MintedKey) -> None:
    """Restart each as an orchestrator does: the next one only when the one before is taken for ready again."""
    for number, process in enumerate(cluster.processes):
        running = process.process
        assert running is not None
        running.send_signal(signal.SIGTERM)
        if number == 0:
            # One is draining, and both refuse it; the one that is new does too.
            with cluster.services[1].client(BOOTSTRAP) as other:
                assert other.delete(f"/v1/keys/{doomed.id}/").status_code == 200
            for service in cluster.services:
                _stops(service.url, doomed.secret)
        assert running.wait(STOP_SECONDS) == 0
        process.process = None
        cluster.start_one(process)
        if process in cluster.services:
            eventually(partial(members.serves, process.url), seconds=60)
            _stops(process.url, doomed.secret)


def _stops(url: str, key: str) -> None:
    """Wait until a key is not served any more, for no longer than is promised."""
    eventually(partial(_refused, url, {"Authorization": f"Token {key}"}), seconds=STOPS_WITHIN)


def _refused(url: str, headers: dict[str, str]) -> bool:
    try:
        return httpx.get(f"{url}/v1/ping/", headers=headers, trust_env=False, timeout=30).status_code == 401
    except httpx.TransportError:
        # It has drained, and serves nobody.
        return True


def _all_is_there_once(cluster: Cluster, clients: list[Client], llm: ScriptedLLM) -> None:
    """What was acknowledged is there, once; what was extracted cost one call."""
    with cluster.services[0].client(BOOTSTRAP) as one, cluster.services[1].client(BOOTSTRAP) as other:
        for client in clients:
            texts = [*client.kept.values(), *client.said]
            rows = eventually(partial(_when, one, client.user, len(texts)), seconds=60)
            assert Counter(rows.values()) == Counter(texts)
            assert client.kept.items() <= rows.items()
            assert eventually(partial(_found, other, client.user, rows), seconds=60)
    asked = Counter(request.section("New Messages").split("\n")[0] for request in llm.requests)
    assert sorted(asked) == sorted(f"user: {text}" for client in clients for text in client.said)
    assert set(asked.values()) == {1}


def _when(client: httpx.Client, user: str, count: int) -> dict[str, str] | None:
    rows = listed(client, user=user)
    return rows if len(rows) >= count else None


def _found(client: httpx.Client, user: str, rows: dict[str, str]) -> bool:
    return {hit["id"] for hit in search(client, "noted entry", user=user, top_k=1000)} == set(rows)


def _all_is_told_once(cluster: Cluster, clients: list[Client], hook: Receiver, project: str) -> None:
    """Each change was told once, under its own id."""
    added = sum(len(one.kept) + len(one.deleted) + len(one.said) for one in clients)
    eventually(lambda: len(hook.got) >= added, seconds=60)
    told = Counter(json.loads(one.body)["id"] for one in hook.got)
    assert len(told) == added
    assert set(told.values()) == {1}


def test_qdrant_away(cluster: Cluster) -> None:
    """Writes and reads by id go on, searches are refused for now, and everything is found after its return."""
    with cluster.services[0].client(BOOTSTRAP) as one, cluster.services[1].client(BOOTSTRAP) as other:
        kept, changed, removed = add(one, "I play the cello", "I live in Rome", "My locker is XK-4711", user="away")
        assert len(search(other, "cello", user="away")) == 3
        cluster.qdrant("stop")
        try:
            (added,) = add(other, "I moved to Porto", user="away")
            assert one.get(f"/v1/memories/{kept}/").json()["memory"] == "I play the cello"
            assert one.put(f"/v1/memories/{changed}/", json={"text": "I live in Oslo"}).status_code == 200
            assert other.delete(f"/v1/memories/{removed}/").status_code == 200
            assert listed(one, user="away").keys() == {kept, changed, added}
            for client in (one, other):
                asked = {"query": "cello", "filters": {"user_id": "away"}}
                refused = client.post("/v3/memories/search/", json=asked)
                assert (refused.status_code, refused.json()["code"]) == (503, "index_unavailable")
                assert int(refused.headers["Retry-After"]) > 0
        finally:
            cluster.qdrant("go")
        for client in (one, other):
            eventually(partial(_finds, client, {kept, changed, added}), seconds=60)
            assert search(client, "Oslo", user="away", top_k=1)[0]["id"] == changed


def _finds(client: httpx.Client, ids: set[str]) -> bool:
    asked = {"query": "Porto", "filters": {"user_id": "away"}, "threshold": 0.0}
    answer = client.post("/v3/memories/search/", json=asked)
    return answer.status_code == 200 and {hit["id"] for hit in answer.json()["results"]} == ids


def test_a_dead_language_model_keeps_nothing_else_from_going_on(cluster: Cluster, llm: ScriptedLLM) -> None:
    """What waits for it is extracted once, when it lives again."""
    before = len(llm.requests)
    with cluster.services[0].client(BOOTSTRAP) as client:
        llm.hold()
        for status in (500, 503, 429):
            llm.status(status, retry_after=0.1)
        body = {"messages": [{"role": "user", "content": "I live in Rome"}], "user_id": "patient"}
        event = client.post("/v3/memories/add/", json=body).json()["event_id"]
        llm.wait_for_requests(before + 1, timeout=60)
        (added,) = add(client, "I play the cello", user="patient")
        assert [hit["id"] for hit in search(client, "cello", user="patient")] == [added]
        assert client.get(f"/v1/event/{event}/").json()["status"] in ("PENDING", "RUNNING")
        llm.release()
        eventually(lambda: client.get(f"/v1/event/{event}/").json()["status"] == "SUCCEEDED", seconds=60)
        assert sorted(listed(client, user="patient").values()) == ["I live in Rome", "I play the cello"]
    assert len(llm.requests) == before + 4


def test_cut_connections_cost_one_retry(cluster: Cluster) -> None:
    """As when the database fails over to another: a call that meets a dead connection is served at its retry."""
    with cluster.services[0].client(BOOTSTRAP) as client:
        (kept,) = add(client, "I play the cello", user="cut")
        for _ in range(3):
            with psycopg.connect(cluster.admin_dsn, autocommit=True) as superuser:
                cut = superuser.execute(
                    "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                ).fetchone()
            assert cut is not None
            assert cut[0] > 0
            for _ in range(5):
                assert _at_most_twice(client, "GET", f"/v1/memories/{kept}/")["memory"] == "I play the cello"
        # The workers found new connections too.
        body = {"messages": [{"role": "user", "content": "I live in Rome"}], "user_id": "cut"}
        event = _at_most_twice(client, "POST", "/v3/memories/add/", body)["event_id"]
        done = partial(_at_most_twice, client, "GET", f"/v1/event/{event}/")
        eventually(lambda: done()["status"] == "SUCCEEDED", seconds=60)


def _at_most_twice(client: httpx.Client, method: str, path: str, body: Any = None) -> Any:
    """Ask, and once more where the record was away."""
    answer = client.request(method, path, json=body)
    if answer.status_code != 200:
        assert (answer.status_code, answer.json()["code"]) == (503, "record_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        answer = client.request(method, path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()
