"""`kill -9` in the middle of long work: the next start finishes it, or it is asked for again; nothing is done twice."""

from __future__ import annotations

import json
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest

from tests.process.memvault import Memvault, command, eventually, listed, search

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

#: More than one batch of any of it has.
MANY = 1200
LONG_AGO = datetime(2024, 1, 1, tzinfo=UTC)


def line(number: int, *, text: str | None = None, user: str = "alice") -> dict[str, Any]:
    """One line of an import."""
    moment = (LONG_AGO + timedelta(minutes=number)).isoformat()
    told = {"type": "memory", "id": str(uuid4()), "text": text or f"note {number}", "user_id": user}
    return told | {"created_at": moment, "updated_at": moment}


def imported(client: httpx.Client, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Import lines and return what is told of it."""
    body = "\n".join(json.dumps(one) for one in lines)
    answer = client.post("/v1/imports/", content=body, headers={"Content-Type": "application/x-ndjson"}, timeout=120)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


@pytest.fixture
def installation(written_model: Path) -> Iterator[Memvault]:
    """An installation whose worker takes over at once what a dead one left."""
    memvault = Memvault(written_model, MEMVAULT_ERASURE__PHYSICAL_DELAY="0", MEMVAULT_QUEUE__STALLED_SECONDS="3")
    try:
        yield memvault.start()
    finally:
        memvault.remove()


def asked(memvault: Memvault, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
    """Ask the record."""
    with psycopg.connect(memvault.superuser_dsn()) as connection:
        return connection.execute(query, values).fetchall()


def waits(memvault: Memvault) -> bool:
    """Whether somebody waits for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'memvault' AND wait_event_type = 'Lock'"
    return bool(asked(memvault, query)[0][0])


@contextmanager
def blocked(memvault: Memvault, statement: LiteralString, *values: object) -> Iterator[None]:
    """Keep others from going on past a statement's locks."""
    with psycopg.connect(memvault.superuser_dsn()) as connection:
        connection.execute(statement, values)
        yield


def killed_waiting(memvault: Memvault) -> None:
    """Kill the service once it waits for a lock; what it had begun there is taken back by Postgres."""
    eventually(lambda: waits(memvault), seconds=60)
    memvault.kill()


def told_of(memvault: Memvault, event: str, column: str) -> Counter[UUID]:
    """How often the trail has each memory in the rows of an event."""
    query = "SELECT target_ids, result_ids FROM audit WHERE event = %s"
    place = ("target_ids", "result_ids").index(column)
    return Counter(one for row in asked(memvault, query, event) for one in row[place])


def test_an_import_is_run_again_and_goes_on(installation: Memvault) -> None:
    memvault = installation
    lines = [line(number) for number in range(MANY)]
    # In no order, which the end of the import mends.
    lines = lines[::2] + lines[1::2]
    ids = {UUID(one["id"]) for one in lines}
    with memvault.client() as client:

        def run() -> None:
            with suppress(httpx.TransportError, AssertionError):
                imported(client, lines)

        thread = threading.Thread(target=run)
        thread.start()
        eventually(lambda: asked(memvault, "SELECT count(*) FROM memories")[0][0] >= 200, seconds=120)
        memvault.kill()
        thread.join(60)
    eventually(lambda: not waits(memvault))
    before = asked(memvault, "SELECT count(*) FROM memories")[0][0]
    assert 200 <= before < MANY
    memvault.start()
    with memvault.client() as client:
        again = imported(client, lines)
        assert (again["known"], again["imported"], again["history"]) == (before, MANY - before, MANY - before)
        assert imported(client, lines)["known"] == MANY
        assert {UUID(one) for one in listed(client)} == ids
        for one in (lines[0], lines[150], lines[-1]):
            eventually(lambda one=one: search(client, one["text"])[0]["id"] == one["id"])  # type: ignore[misc]
    assert asked(memvault, "SELECT count(*), count(DISTINCT memory_id) FROM history") == [(MANY, MANY)]
    assert told_of(memvault, "memories:imported", "result_ids") == Counter(ids)
    by_time = asked(memvault, "SELECT id FROM memories ORDER BY created_at")
    assert by_time == asked(memvault, "SELECT id FROM memories ORDER BY place")


def test_an_erasure_has_one_receipt_that_counts_everything_once(installation: Memvault) -> None:
    memvault = installation
    lines = [line(number) for number in range(MANY)]
    ids = sorted(UUID(one["id"]) for one in lines)
    with memvault.client() as client:
        imported(client, [*lines, line(0, user="bob")])
        with blocked(memvault, "SELECT 1 FROM memories WHERE id = %s FOR UPDATE", ids[-1]):
            asked_for = client.post("/v1/erasures/", json={"user_id": "alice"})
            assert asked_for.status_code == 202, asked_for.text
            # The first batch is gone; in the middle of the second one.
            eventually(lambda: asked(memvault, "SELECT count(*) FROM memories")[0][0] == MANY + 1 - 1000, seconds=60)
            killed_waiting(memvault)
    url = f"/v1/erasures/{asked_for.json()['id']}/"
    with blocked(memvault, "LOCK TABLE exports IN ACCESS SHARE MODE"):
        memvault.start()
        with memvault.client() as client:
            eventually(lambda: client.get(url).json()["rows_removed_at"], seconds=120)
            # In the physical pass, which cannot write that table anew.
            killed_waiting(memvault)
    memvault.start()
    with memvault.client() as client:
        done = eventually(lambda: found if (found := client.get(url).json())["receipt"] else None, seconds=180)
        assert done["status"] == "completed"
        assert (done["removed"]["memories"], done["removed"]["history"]) == (MANY, MANY)
        assert listed(client) == {}
        assert set(listed(client, user="bob").values()) == {"note 0"}
    assert told_of(memvault, "erasure:continued", "target_ids") == Counter(ids)
    assert asked(memvault, "SELECT count(*) FROM audit WHERE event = 'erasure:completed'") == [(1,)]
    receipt = memvault.place / "receipt.json"
    receipt.write_text(json.dumps(done["receipt"]))
    assert memvault.json("verify-receipt", str(receipt))["ok"]


def test_a_run_of_retention_is_finished_by_the_next_start(installation: Memvault) -> None:
    memvault = installation
    lines = [line(number) for number in range(MANY)]
    ids = sorted(UUID(one["id"]) for one in lines)
    kept = [line(number, user="bob") for number in range(3)]
    with memvault.client() as client:
        imported(client, [*lines, *kept])
        rule = {"name": "old", "match": {"user_id": "alice"}, "action": "delete", "age": "P30D"}
        assert client.post("/v1/retention/rules/", json=rule).status_code == 201
        with blocked(memvault, "SELECT 1 FROM memories WHERE id = %s FOR UPDATE", ids[700]):
            begun = client.post("/v1/retention/runs/", json={"dry_run": False}).json()
            killed_waiting(memvault)
    assert 0 < asked(memvault, "SELECT count(*) FROM memories")[0][0] < MANY + 3
    memvault.start()
    with memvault.client() as client:
        url = f"/v1/retention/runs/{begun['id']}/"
        done = eventually(lambda: found if (found := client.get(url).json())["ended_at"] else None, seconds=120)
        assert (done["seen"], done["deleted"], done["hidden"]) == (MANY + 3, MANY, 0)
        assert listed(client) == {}
        assert listed(client, user="bob").keys() == {one["id"] for one in kept}
        assert eventually(lambda: search(client, "note 2", user="bob"))
    assert told_of(memvault, "memories:forgotten", "target_ids") == Counter(ids)


def test_a_download_that_broke_off_says_so_and_goes_on(installation: Memvault) -> None:
    memvault = installation
    # Long, and quickly embedded.
    lines = [line(number) | {"metadata": {"more": "x" * 1500}} for number in range(MANY)]
    with memvault.client() as client:
        imported(client, lines)
        export = client.post("/v1/exports/", json={}).json()["id"]
        whole: list[bytes] = []
        with suppress(httpx.TransportError), client.stream("GET", f"/v1/exports/{export}/download/") as answer:
            rest = b""
            for part in answer.iter_raw(65536):
                *told, rest = (rest + part).split(b"\n")
                whole += told
                if memvault.process is not None and len(whole) > 20:
                    memvault.kill()
    first = [json.loads(one) for one in whole]
    assert first[-1]["type"] in ("memory", "history")
    memories = [one["id"] for one in first if one["type"] == "memory"]
    assert 0 < len(memories) < MANY
    memvault.start()
    with memvault.client() as client:
        answer = client.get(f"/v1/exports/{export}/download/", params={"after": f"memories:{memories[-2]}"})
        then = [json.loads(one) for one in answer.content.splitlines()]
        assert then[-1]["type"] == "end"
        more = [one["id"] for one in then if one["type"] == "memory"]
        assert Counter(memories[:-1] + more) == Counter(one["id"] for one in lines)


def test_what_a_consolidation_proposes_is_proposed_once(installation: Memvault) -> None:
    memvault = installation
    texts = ["I live in Rome and work as a baker", "I live in Rome and work as a baker."]
    lines = [line(number, text=texts[number % 2], user=f"user {number // 2}") for number in range(12)]
    asks = [*command(), "consolidate", "--json", "--data-dir", str(memvault.data_dir)]
    with memvault.client() as client:
        imported(client, lines)
    with blocked(memvault, "LOCK TABLE supersessions IN EXCLUSIVE MODE"):
        looking = subprocess.Popen(
            asks, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=memvault.cwd, env=memvault.environment()
        )
        try:
            eventually(lambda: waits(memvault), seconds=60)
        finally:
            looking.kill()
            looking.wait(60)
    eventually(lambda: not waits(memvault))
    assert asked(memvault, "SELECT count(*) FROM supersessions") == [(0,)]
    for _ in range(2):
        (tenant,) = memvault.json("consolidate", "--tenant", "default")["tenants"]
        pairs = {(one["older_id"], one["newer_id"]) for one in tenant["proposed"]}
        assert pairs == {(lines[number]["id"], lines[number + 1]["id"]) for number in range(0, 12, 2)}
    (tenant,) = memvault.json("consolidate", "--tenant", "default", "--accept-all")["tenants"]
    assert len(tenant["decided"]) == 6
    assert asked(memvault, "SELECT state, count(*) FROM supersessions GROUP BY state") == [("linked", 6)]
