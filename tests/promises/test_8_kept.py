"""Acknowledged means kept."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

import httpx
import pytest

from tests.process.fixtures import MakeMemvault
from tests.process.memvault import Memvault, add, eventually, listed, search

pytestmark = pytest.mark.promises

ROUNDS = 5
WRITERS = 4


@dataclass
class Ledger:
    """What one writer was told, by the user that it writes for."""

    user: str
    kept: dict[str, str] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    #: Asked for and not answered: it may have happened or not.
    open_adds: set[str] = field(default_factory=set)
    open_deletes: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)


def write(memvault: Memvault, ledger: Ledger, seed: int) -> None:
    """Add and delete until the service is gone, keeping the ledger."""
    chance = random.Random(seed)
    with memvault.client() as client:
        for number in range(100_000):
            text = f"{ledger.user} noted entry {seed}x{number}"
            try:
                ledger.open_adds.add(text)
                (memory_id,) = add(client, text, user=ledger.user)
                ledger.open_adds.discard(text)
                ledger.kept[memory_id] = text
                if chance.random() < 0.4:
                    doomed = chance.choice(sorted(ledger.kept))
                    ledger.open_deletes.add(doomed)
                    answer = client.delete(f"/v1/memories/{doomed}/")
                    if answer.status_code != 200:
                        ledger.wrong.append(answer.text)
                    ledger.open_deletes.discard(doomed)
                    del ledger.kept[doomed]
                    ledger.deleted.add(doomed)
            except httpx.TransportError:
                return


def agrees(client: httpx.Client, ledger: Ledger) -> bool:
    """Whether a search for everything of a user finds exactly what the record lists; a 503 says "not yet"."""
    rows = listed(client, user=ledger.user)
    body = {"query": "noted entry", "filters": {"user_id": ledger.user}, "threshold": 0.0, "top_k": 1000}
    answer = client.post("/v3/memories/search/", json=body)
    if answer.status_code == 503:
        return False
    assert answer.status_code == 200, answer.text
    return {hit["id"] for hit in answer.json()["results"]} == set(rows)


@pytest.mark.timeout(420)
def test_nothing_acknowledged_is_lost_and_nothing_deleted_is_back(make_memvault: MakeMemvault) -> None:
    """Acknowledged means kept: after `kill -9` at any moment nothing acknowledged is missing, nothing deleted is back,
    and index and record agree again by themselves.
    """
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    memvault = make_memvault().start()
    ledgers = [Ledger(f"user-{number}") for number in range(WRITERS)]
    for turn in range(ROUNDS):
        threads = [
            threading.Thread(target=write, args=(memvault, ledger, seed + turn * WRITERS + number))
            for number, ledger in enumerate(ledgers)
        ]
        for thread in threads:
            thread.start()
        time.sleep(chance.uniform(0.1, 2.0))
        memvault.kill()
        for thread in threads:
            thread.join(60)
        leave_rubbish(memvault, turn)
        memvault.start()
        with memvault.client() as client:
            for ledger in ledgers:
                check(client, ledger)
    assert sum(len(ledger.kept) for ledger in ledgers) > ROUNDS
    assert sum(len(ledger.deleted) for ledger in ledgers) > 0
    assert memvault.stop() == 0
    assert memvault.processes() == []


def check(client: httpx.Client, ledger: Ledger) -> None:
    """Compare the service with the ledger, and settle what was open."""
    assert ledger.wrong == []
    rows = listed(client, user=ledger.user)
    settled = {memory_id for memory_id in ledger.open_deletes if memory_id not in rows}
    missing = set(ledger.kept) - set(rows) - settled
    assert not missing, f"{len(missing)} acknowledged memories are missing"
    back = ledger.deleted & set(rows)
    assert not back, f"{len(back)} deleted memories are back"
    more = {memory_id: text for memory_id, text in rows.items() if memory_id not in ledger.kept}
    assert set(more.values()) <= ledger.open_adds
    assert all(rows[memory_id] == text for memory_id, text in ledger.kept.items() if memory_id in rows)
    assert eventually(lambda: agrees(client, ledger), seconds=30)
    for memory_id, text in list(rows.items())[-2:]:
        assert memory_id in {hit["id"] for hit in search(client, text, user=ledger.user)}
    ledger.kept = dict(rows)
    ledger.deleted |= settled
    ledger.open_adds.clear()
    ledger.open_deletes.clear()


def leave_rubbish(memvault: Memvault, turn: int) -> None:
    """Leave what a crash may leave: half-made folders and files, and locks of processes that are gone."""
    index = memvault.data_dir / "index"
    half = index / f"{turn:032x}"
    half.mkdir()
    (half / "segments").mkdir()
    (index / "current.new").write_text('{"generation"')
    (index / "lock").write_text("999999")
    (memvault.data_dir / "credentials.new").write_text("{")


@pytest.mark.timeout(420)
def test_a_first_start_that_is_killed_does_not_prevent_the_next(make_memvault: MakeMemvault) -> None:
    """A `kill -9` at any moment of the first start leaves nothing that the next start trips over."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    memvault = make_memvault()
    for _ in range(3):
        memvault.spawn()
        time.sleep(chance.uniform(0.5, 6.0))
        memvault.kill()
    memvault.start()
    with memvault.client() as client:
        (memory_id,) = add(client, "I live in Porto")
        assert [hit["id"] for hit in search(client, "home town")] == [memory_id]
    assert memvault.stop() == 0
    assert memvault.processes() == []
