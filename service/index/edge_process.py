"""Starts the process of a shard and calls it (`service.index.edge_worker` is its other end).

The engine holds the interpreter's lock for the whole of a call, 0.4 to 1.5 s to open 100,000 points and as long to
close them: in this process every request would stand still meanwhile.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, Final

import service

#: A niceness at which work in the background does not slow what is served.
BACKGROUND: Final = 10


#: Meant for the service. Held back until the process that starts ignores whatever it finds held back.
_UNHEARD: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: What ends a process that cannot cope with what is in its files.
_CRASHES: Final = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)


class CallFailed(Exception):
    """The shard could not do what was asked; the message is the kind of failure alone."""


class ShardLost(Exception):
    """The process is gone. `crashed`: by what it did itself, and not because somebody ended it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the process of the shard ended with exit code {code}")
        self.crashed = -code in _CRASHES


class ShardProcess:
    """A running process with one shard or none yet. Calls of several threads take turns.

    `held` are descriptors that stay open for as long as the process lives: the lock on the folder. It ends by itself
    when this process does, once the call that it is at is done.
    """

    def __init__(self, folder: Path, *, held: Sequence[int] = (), niceness: int = 0) -> None:
        packages = os.pathsep.join(filter(None, (str(Path(service.__path__[0]).parent), os.environ.get("PYTHONPATH"))))
        self._turn = threading.Lock()
        self._connection, theirs = Pipe()
        with theirs, _unheard():
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

    def call(self, name: str, *given: Any) -> Any:
        """Call a method of the engine.

        Raises:
            CallFailed: when the engine failed.
            ShardLost: when the process is gone.
        """
        asked = pickle.dumps((name, *given), pickle.HIGHEST_PROTOCOL)
        with self._turn:
            try:
                self._connection.send_bytes(asked)
                answer = self._connection.recv_bytes()
            except (EOFError, OSError) as error:
                self.kill()
                raise ShardLost(self._process.returncode) from error
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


@contextmanager
def _unheard() -> Iterator[None]:
    """Hold back some signals, for this thread and for the processes that it starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _UNHEARD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
