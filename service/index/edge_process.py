"""Starts the process of a shard and calls it (`service.index.edge_worker` is its other end).

The engine holds the interpreter's lock for the whole of a call, 0.4 to 1.5 s to open 100,000 points and as long to
close them: in this process every request would stand still meanwhile.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Sequence
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, Final

import service

#: A niceness at which work in the background does not slow what is served.
BACKGROUND: Final = 10


class CallFailed(Exception):
    """The shard could not do what was asked; the message is the kind of failure alone."""


class ShardProcess:
    """A running process with one shard or none yet. Calls of several threads take turns.

    `held` are descriptors that stay open for as long as the process lives: the lock on the folder. It ends by itself
    when this process does, once the call that it is at is done.
    """

    def __init__(self, folder: Path, *, held: Sequence[int] = (), niceness: int = 0) -> None:
        packages = os.pathsep.join(filter(None, (str(Path(service.__path__[0]).parent), os.environ.get("PYTHONPATH"))))
        self._turn = threading.Lock()
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "service.index.edge_worker"),
                    *(str(theirs.fileno()), str(folder), str(niceness)),
                ],
                env={**os.environ, "PYTHONPATH": packages},
                pass_fds=[theirs.fileno(), *held],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C in a terminal is for the service.
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def call(self, name: str, *given: Any) -> Any:
        """Call a method of the engine.

        Raises:
            CallFailed: when the engine failed.
            EOFError: when the process is gone. So does OSError.
        """
        asked = pickle.dumps((name, *given), pickle.HIGHEST_PROTOCOL)
        with self._turn:
            try:
                self._connection.send_bytes(asked)
                answer = self._connection.recv_bytes()
            except BaseException:
                # An answer that was not waited for would be taken for the one to the next call.
                self.kill()
                raise
        done, result = pickle.loads(answer)
        if not done:
            raise CallFailed(result)
        return result

    def kill(self) -> None:
        """End the process at once, whatever it is at, and wait for that."""
        self._process.kill()
        self._process.wait()
