"""What must be true once a storm is over: it is compared with the ledgers, and nothing is mended from outside."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final

import httpx
import psycopg

from service import wiring
from service.memories.agreement import Agreement, Difference
from service.scope import TenantId
from service.wiring.adapters import open_embedder, open_index
from tests.faults.ledger import Person, Tally
from tests.faults.load import Writer
from tests.faults.setups import Setup
from tests.process.memvault import eventually

_SECONDS: Final = 180.0
#: Of each user, how many memories are read and looked for one by one.
_ONE_BY_ONE: Final = 3
_FINAL: Final = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
#: What no extraction ends with because something was away: it waits.
_NEVER: Final = frozenset({"engine_read_failed", "embedding_failed"})


def judge(setup: Setup, writers: Sequence[Writer], tally: Tally) -> None:
    """Judge the service by the ledgers, while it runs."""
    assert [wrong for writer in writers for wrong in writer.wrong] == []
    began = time.monotonic()
    for kept in setup.kept:
        assert kept.alive.wait(_SECONDS), f"did not come up again: {kept.memvault.stderr[-2000:]}"
    for writer in writers:
        for person in writer.persons:
            if person.doubtful:
                _erase(writer, person)
    persons = [person for writer in writers for person in writer.persons]
    urls = [kept.memvault.url for kept in setup.services]
    clients = [httpx.Client(base_url=url, timeout=60, trust_env=False) for url in urls]
    try:
        rows = {id(person): _settled(clients[0], person, tally) for person in persons}
        for person in persons:
            _compared(person, rows[id(person)])
            for client in clients:
                eventually(lambda c=client, p=person: _agrees(c, p, rows[id(p)]), seconds=_SECONDS)
        tally.agreed_after = time.monotonic() - began
        for number, person in enumerate(persons):
            _one_by_one(clients[number % len(clients)], person, rows[id(person)])
    finally:
        for client in clients:
            client.close()
    eventually(lambda: _quiet(setup), seconds=_SECONDS)
    tally.quiet_after = time.monotonic() - began
    tally.persons, tally.erased = len(persons), sum(person.erased for person in persons)
    tally.memories = sum(map(len, rows.values()))
    setup.command("audit", "checkpoint")
    verdict = setup.command("audit", "verify")
    assert verdict["ok"], verdict
    tally.audit_rows = int(verdict.get("rows", 0))


def judge_stores(setup: Setup) -> None:
    """Compare record and index point by point, once all processes have ended."""
    for kept in setup.kept:
        kept.let_go()
    for kept in setup.kept:
        assert kept.memvault.stop() == 0, kept.memvault.stderr[-2000:]
        assert kept.memvault.processes() == []
    with ExitStack() as stack:
        settings, connections = setup.reach(stack)
        installation = wiring.open_installation(settings, connections, stack)
        index = open_index(settings, open_embedder(settings, stack))
        stack.callback(index.close)
        tenants = [TenantId(one.id) for one in installation.tenants.list()]
        assert Agreement(installation.database, index).mend(tenants) == Difference()


def _get(client: httpx.Client, person: Person, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
    """Ask with a person's key, with the one retry that a connection lost with a process is worth."""
    headers = {"Authorization": f"Token {person.key}"}

    def ask() -> httpx.Response | None:
        answer = client.request(method, path, json=body, params=more, headers=headers)
        return None if answer.status_code in (429, 503) else answer

    return eventually(ask, seconds=_SECONDS)


def _erase(writer: Writer, person: Person) -> None:
    """Repeat an erasure of which nobody knows whether it was done, as its caller would."""

    def erased() -> bool:
        answer = writer.ask(person, "DELETE", f"/v2/entities/user/{person.name}/")
        return answer is not None and answer.status_code in (200, 404)

    eventually(erased, seconds=_SECONDS)
    person.doubtful, person.erased = False, True


def _settled(client: httpx.Client, person: Person, tally: Tally) -> dict[str, str]:
    """Wait until a person's extractions have ended, see that each ended rightly, and return the person's memories."""
    said: list[str] = []
    for event_id, text in person.events.items():

        def ended(path: str = f"/v1/event/{event_id}/") -> dict[str, Any] | None:
            answer = _get(client, person, "GET", path)
            if answer.status_code == 404 and person.erased:
                return {"status": "CANCELLED"}
            told: dict[str, Any] = answer.json()
            return told if told["status"] in _FINAL else None

        end = eventually(ended, seconds=_SECONDS)
        status = end["status"]
        assert end.get("code") not in _NEVER, f"an extraction was thrown away: {end['code']}"
        assert status != "CANCELLED" or person.erased, "an extraction was cancelled and nobody asked for it"
        if status == "SUCCEEDED":
            said.append(text)
        tally.failed_extractions += status == "FAILED"
    tally.extracted += len(person.events)
    rows = _listed(client, person)
    if not person.erased:
        times = Counter(rows.values())
        wrong = {text: times[text] for text in said if times[text] != 1}
        assert not wrong, f"extractions whose memory is not there exactly once: {sorted(wrong.values())}"
    return rows


def _listed(client: httpx.Client, person: Person) -> dict[str, str]:
    found: dict[str, str] = {}
    page = 1
    while True:
        body = {"filters": {"user_id": person.name}}
        answer = _get(client, person, "POST", "/v3/memories/", body, page=page, page_size=100)
        assert answer.status_code == 200, answer.text
        document = answer.json()
        found |= {item["id"]: item["memory"] for item in document["results"]}
        if document["next"] is None:
            return found
        page += 1


def _compared(person: Person, rows: dict[str, str]) -> None:
    """See that all that was acknowledged is there, and nothing else but what may be."""
    if person.erased:
        assert rows == {}, f"{len(rows)} memories of somebody erased are there"
        return
    missing = person.kept.keys() - person.unsure - rows.keys()
    assert not missing, f"{len(missing)} acknowledged memories are missing"
    back = person.gone & rows.keys()
    assert not back, f"{len(back)} deleted memories are back"
    strange = [one for one, text in rows.items() if not person.may_say(one, text)]
    assert not strange, f"{len(strange)} memories have a text that they were never given"
    twice = [text for text, times in Counter(rows.values()).items() if times > 1]
    assert not twice, f"{len(twice)} texts are there more than once"


def _agrees(client: httpx.Client, person: Person, rows: dict[str, str]) -> bool:
    """Whether a search for everything of a person finds exactly what the record lists."""
    body = {"query": "noted entry", "filters": {"user_id": person.name}, "threshold": 0.0, "top_k": 1000}
    answer = _get(client, person, "POST", "/v3/memories/search/", body)
    assert answer.status_code == 200, answer.text
    return {hit["id"] for hit in answer.json()["results"]} == set(rows)


def _one_by_one(client: httpx.Client, person: Person, rows: dict[str, str]) -> None:
    for memory_id, text in list(rows.items())[-_ONE_BY_ONE:]:
        answer = _get(client, person, "GET", f"/v1/memories/{memory_id}/")
        assert (answer.status_code, answer.json()["memory"]) == (200, text)
        body = {"query": text, "filters": {"user_id": person.name}, "threshold": 0.0, "top_k": 20}
        hits = _get(client, person, "POST", "/v3/memories/search/", body).json()["results"]
        assert memory_id in {hit["id"] for hit in hits}
    for memory_id in sorted(person.gone)[:_ONE_BY_ONE]:
        assert _get(client, person, "GET", f"/v1/memories/{memory_id}/").status_code == 404


def _quiet(setup: Setup) -> bool:
    """Whether no job waits or runs, apart from those that come round by the clock."""
    waiting = "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing') AND queueing_lock IS NULL"
    with psycopg.connect(setup.superuser_dsn()) as superuser:
        return superuser.execute(waiting).fetchone() == (0,)
