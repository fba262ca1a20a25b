"""Writes the live points of one shard into a new one and indexes it; run in a process of its own.

Usage: python -m service.index.edge_compact SOURCE TARGET DIMENSIONS

The engine's optimiser holds the interpreter's lock from start to end, which would stop the serving process.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Final

import qdrant_edge as edge

from service.index.edge_shard import Operation, Shard

_BATCH: Final = 500


def compact(source: Path, target: Path, dimensions: int) -> None:
    """Make `target`, with the points of `source` and nothing of what was deleted there, neither in segments nor WAL."""
    old, new = Shard.load(source), Shard.create(target, dimensions)
    cursor = None
    with old.use("read") as reader, new.use("write") as writer:
        while True:
            found, cursor = reader.scroll(
                edge.ScrollRequest(offset=cursor, limit=_BATCH, with_payload=True, with_vector=True)
            )
            points = [edge.Point(one.id, one.vector or {}, one.payload) for one in found]
            if points:
                writer.update(Operation.upsert_points(points))
            if cursor is None:
                break
        writer.optimize()
        writer.flush()
    new.close()
    old.close()


def _end_with_parent() -> None:
    """End when the other end of standard input is gone, so that nothing goes on writing after a crash."""
    sys.stdin.buffer.read()
    os._exit(3)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(10)
    compact(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
    os._exit(0)
