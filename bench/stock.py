"""Mem0's own open-source `Memory` with its embedded Qdrant, the same vectors as ours, and no LLM: the thing to beat.

As a program (`python -m bench.stock FOLDER`) it opens a folder that was filled and prints how long that took and what
it takes in memory, so that nothing else of the benchmark is counted.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import md5
from pathlib import Path
from typing import Any, Final

import psutil

from bench.texts import memory_text, query_text
from service.embeddings.minilm import MiniLM
from service.engine.mem0_import import import_mem0
from service.storage.stored import IndexEntry

USER: Final = "memvault-bench"
ADDER: Final = "memvault-bench-adds"
_BATCH: Final = 500


class Stock:
    """Searches and adds with Mem0's `Memory`. One process can have the folder open."""

    name: Final = "mem0ai"

    def __init__(self, folder: Path, embedder: MiniLM, *, tenants: int = 1) -> None:
        self._tenants = tenants
        import_mem0(folder / "home")
        from mem0 import Memory
        from mem0.embeddings.base import EmbeddingBase

        class Adapter(EmbeddingBase):  # type: ignore[misc]  # Mem0 ships no types
            def embed(self, text: str, memory_action: str | None = None) -> list[float]:
                vector: list[float] = embedder.embed_query(text).tolist()
                return vector

        # The key is never used: nothing here asks an LLM, and the embedder is replaced below.
        unused = {"provider": "openai", "config": {"api_key": "unused"}}
        store = {"path": str(folder / "qdrant"), "on_disk": True, "embedding_model_dims": embedder.dimensions}
        self._memory: Any = Memory.from_config(
            {
                "llm": unused,
                "embedder": unused,
                "vector_store": {"provider": "qdrant", "config": store},
                "history_db_path": str(folder / "history.db"),
            }
        )
        self._memory.embedding_model = Adapter()

    def fill(self, tenant: int, entries: Sequence[IndexEntry]) -> None:
        """Put a tenant's memories into the store as `add` would, many at a time and without history rows."""
        moment = datetime.now(UTC).isoformat()
        for start in range(0, len(entries), _BATCH):
            part = entries[start : start + _BATCH]
            self._memory.vector_store.insert(
                vectors=[entry.vector.tolist() for entry in part],
                ids=[str(entry.memory.id) for entry in part],
                payloads=[_payload(tenant, entry.memory.text, moment) for entry in part],
            )

    def search(self, number: int) -> None:
        """Search the filled memories; a tenant is a user here, for Mem0 knows no tenants."""
        user = _user(number % self._tenants)
        found = self._memory.search(query_text(number), filters={"user_id": user}, top_k=10, threshold=0.0)
        if len(found["results"]) != 10:
            raise LookupError("too few results")

    def add(self, number: int) -> None:
        """Add one verbatim memory."""
        self._memory.add([{"role": "user", "content": memory_text(number)}], user_id=ADDER, infer=False)

    def close(self) -> None:
        """Let go of the folder."""
        self._memory.vector_store.client.close()
        self._memory.close()


def _user(tenant: int) -> str:
    return f"{USER}-{tenant}"


def _payload(tenant: int, text: str, moment: str) -> dict[str, Any]:
    return {
        "user_id": _user(tenant),
        "role": "user",
        "data": text,
        "hash": md5(text.encode(), usedforsecurity=False).hexdigest(),
        "created_at": moment,
        "updated_at": moment,
        "text_lemmatized": text.lower(),
    }


def main(folder: Path, model: Path) -> None:
    """Open a filled folder, search once, and print seconds and resident bytes as JSON."""
    began = time.perf_counter()
    stock = Stock(folder, MiniLM(model))
    stock.search(0)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "bytes": psutil.Process().memory_info().rss}))
    stock.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
