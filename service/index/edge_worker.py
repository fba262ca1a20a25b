"""The process of one shard: answers what comes over a connection, one call after the other, until that ends.

Usage: python -m service.index.edge_worker DESCRIPTOR FOLDER NICENESS. For `service.index.edge_process` only.

Answers are pairs: True and the result, or False and the kind of failure without its words, which may quote what was
sent.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from service.index.edge_engine import EdgeEngine


def serve(connection: Connection[Any, Any], folder: Path) -> None:
    """Open a shard, as the first call says, and answer. The other side's end is the end of the connection."""
    engine: EdgeEngine | None = None
    while True:
        try:
            name, *given = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        try:
            result = None
            if name in ("create", "load"):
                engine = getattr(EdgeEngine, name)(folder, *given)
            else:
                result = getattr(engine, name)(*given)
            answer: tuple[bool, Any] = (True, result)
        # A panic of the engine is not an Exception.
        except BaseException as error:
            answer = (False, type(error).__name__)
        connection.send_bytes(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))


if __name__ == "__main__":
    # Whoever stops the service stops it by its own process, which closes the shard in order and then the connection.
    # They are held back since before this began.
    unheard = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for number in unheard:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, unheard)
    os.nice(int(sys.argv[3]))
    with suppress(OSError):
        serve(Connection(int(sys.argv[1])), Path(sys.argv[2]))
    os._exit(0)
