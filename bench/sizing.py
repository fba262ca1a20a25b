"""`python -m bench.sizing`: what an installation takes, idle and full: seconds to start, memory, disk by folder."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Final

import httpx
import typer

from bench.serving import Served, scratch_folder, serving
from bench.texts import memory_text, query_text

_EACH: Final = 50
_CALLERS: Final = 4
_SEARCHES: Final = 200
_SETTLE_SECONDS: Final = 20.0
_FOLDERS: Final = ("postgres", "index", "keys", "checkpoints", "tombstones", "model")


def main(
    memories: Annotated[int, typer.Option(help="How many memories to add.")] = 10_000,
    users: Annotated[int, typer.Option(help="Over how many users.")] = 100,
) -> None:
    """Start empty, measure, fill by the API, measure, start again, measure; print one JSON document."""
    with scratch_folder() as place:
        data = place / "data"
        with serving(data) as served:
            document: dict[str, object] = {"first_start_seconds": round(served.seconds, 1)}
            document["idle"] = _figures(served)
            began = time.perf_counter()
            _fill(served, memories, users)
            document["adds_per_second"] = round(memories / (time.perf_counter() - began))
            time.sleep(_SETTLE_SECONDS)  # the index writes what it was given, the trail is sealed
            began = time.perf_counter()
            _search(served, users)
            document["searches_per_second"] = round(_SEARCHES / (time.perf_counter() - began))
            document["full"] = _figures(served)
        with serving(data) as served:
            document["next_start_seconds"] = round(served.seconds, 1)
            document["started_full"] = _figures(served)
    print(json.dumps({"memories": memories, "users": users, "cores": os.cpu_count(), **document}, indent=2))


def _figures(served: Served) -> dict[str, dict[str, float]]:
    return {
        "memory_mb": {name: round(size / 2**20) for name, size in served.memory_bytes().items()},
        "disk_mb": {name: round(_size(served.data_dir / name) / 2**20, 1) for name in _FOLDERS},
    }


def _size(folder: Path) -> int:
    """Bytes on the disk below a folder."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if not path.is_symlink())


def _fill(served: Served, memories: int, users: int) -> None:
    def add(call: int) -> None:
        texts = [memory_text(number) for number in range(call * _EACH, (call + 1) * _EACH)]
        body = {
            "messages": [{"role": "user", "content": text} for text in texts],
            "user_id": f"user-{call % users}",
            "infer": False,
        }
        client.post("/v3/memories/add/", json=body).raise_for_status()

    with _client(served) as client, ThreadPoolExecutor(_CALLERS) as pool:
        list(pool.map(add, range(memories // _EACH)))


def _search(served: Served, users: int) -> None:
    def search(number: int) -> None:
        body = {"query": query_text(number), "filters": {"user_id": f"user-{number % users}"}}
        client.post("/v3/memories/search/", json=body).raise_for_status()

    with _client(served) as client, ThreadPoolExecutor(_CALLERS) as pool:
        list(pool.map(search, range(_SEARCHES)))


def _client(served: Served) -> httpx.Client:
    headers = {"Authorization": f"Token {served.api_key}"}
    return httpx.Client(base_url=served.url, headers=headers, timeout=120, trust_env=False)


if __name__ == "__main__":
    typer.run(main)
