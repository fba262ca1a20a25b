"""A full disk: nothing is acknowledged that is not kept, the process lives on, and with room all goes on by itself."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.faults.setups import full, needs_disk, small_disk
from tests.process.memvault import Memvault, add, eventually, listed, search

pytestmark = pytest.mark.integration


def test_a_full_disk_stops_writes_and_loses_nothing(written_model: Path) -> None:
    with ExitStack() as stack:
        memvault = Memvault(written_model)
        stack.callback(memvault.remove)
        needs_disk(stack.enter_context(small_disk(memvault.data_dir, written_model)))
        memvault.start()
        process = memvault.process
        assert process is not None
        with memvault.client(timeout=60) as client:
            kept = dict.fromkeys(add(client, *(f"Note {number} about tea" for number in range(20))))
            with full(memvault.data_dir):
                # What still fits into files that are there already may pass; then nothing does.
                refused = eventually(lambda: _refused(client, kept), seconds=60, pause=0)
                assert refused.json()["code"] == "record_unavailable"
                assert int(refused.headers["Retry-After"]) > 0
                assert client.get("/healthz").status_code == 200
            added = eventually(lambda: _added(client), seconds=60)
            kept |= dict.fromkeys(added)
            assert process.poll() is None
            assert kept.keys() <= listed(client).keys()
            eventually(
                lambda: {hit["id"] for hit in search(client, "tea", top_k=1000)} == listed(client).keys(), seconds=60
            )
            eventually(lambda: client.get("/readyz").json()["parts"]["upkeep"]["status"] == "ok", seconds=60)
        assert memvault.json("audit", "verify")["ok"]
        assert memvault.stop() == 0
        assert memvault.processes() == []


def _agrees(client: httpx.Client) -> bool:
    return {hit["id"] for hit in search(client, "tea", top_k=1000)} == listed(client).keys()


def _refused(client: httpx.Client, kept: dict[str, None]) -> httpx.Response | None:
    """Add until that is refused; what was acknowledged before is to be there afterwards."""
    body = {"messages": [{"role": "user", "content": "Tea " * 2000}], "user_id": "alice", "infer": False}
    answer = client.post("/v3/memories/add/", json=body)
    if answer.status_code == 200:
        kept[answer.json()["results"][0]["id"]] = None
        return None
    assert answer.status_code == 503, answer.text
    return answer


def _added(client: httpx.Client) -> list[str] | None:
    body = {"messages": [{"role": "user", "content": "Room for tea again"}], "user_id": "alice", "infer": False}
    answer = client.post("/v3/memories/add/", json=body)
    assert answer.status_code in (200, 503), answer.text
    return [one["id"] for one in answer.json()["results"]] if answer.status_code == 200 else None
