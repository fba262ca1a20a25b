"""Starts, adopts and stops the one server of an installation, however many processes use it.

Four facts make that safe, all of them locks that the kernel releases when a process dies:

* `lifecycle.lock` is held while anyone starts, adopts or stops; so these never overlap.
* `users.lock` is held, shared, by everyone who uses the server. Who leaves and can take it alone was the last user and
  stops the server, whoever started it. So a command beside a running service leaves the server on, a service that ends
  before a command leaves the server to it, and a killed user counts no more.
* `cluster.lock` is inherited by `initdb` and by the server and all its children, so it is free exactly when no process
  of the cluster lives, in this or any other container. Only then is `postmaster.pid` stale.
* A server that outlived its users (all killed) still holds `cluster.lock`; the next start finds and adopts it.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from service.clock import monotonic
from service.storage.embedded.cluster import check_version, initialise
from service.storage.embedded.errors import InUseElsewhere, NotRunning, StartFailed, StartTimeout, StopFailed
from service.storage.embedded.identity import Identity, identity_for
from service.storage.embedded.layout import Layout
from service.storage.embedded.locks import POLL_SECONDS, FileLock
from service.storage.embedded.postmaster import Postmaster, find_postmaster
from service.storage.embedded.programs import find_programs
from service.storage.embedded.server import Server, launch, server_of, start_failure, try_connect
from service.storage.embedded.spawning import check_reach
from service.storage.embedded.template import initialise_from_template

_STOP_SECONDS = 60.0
# Fast shutdown; immediate shutdown (recovery at the next start); no more questions.
_STOP_STEPS = ((signal.SIGINT, _STOP_SECONDS), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))

# Servers that this process started and left to other users: kept, so that they are reaped when they end.
_left_behind: list[subprocess.Popen[bytes]] = []


class EmbeddedPostgres:
    """One use of the server in `folder` (`<data folder>/postgres`). Thread-safe.

    `start_timeout` bounds what `start` and `attach` wait for, crash recovery included, in seconds. `settings` override
    the server's configuration if it is started here. `template` is a cluster from `make_template`, used for `initdb`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        start_timeout: float = 60,
        settings: Mapping[str, str] | None = None,
        template: Path | None = None,
    ) -> None:
        self._layout = Layout(folder.expanduser().resolve())
        self._timeout = start_timeout
        self._settings = dict(settings or {})
        self._template = template.expanduser().resolve() if template else None
        self._mutex = threading.Lock()
        self._users = FileLock(self._layout.users_lock)
        self._using = False
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        """Return the ready server: the one that runs, else one started here, on a new cluster if there is none.

        May be called again, also after the server died. Raises EmbeddedPostgresError.
        """
        with self._mutex:
            self._layout.prepare()
            return self._use(self._running_or_started)

    def attach(self) -> Server:
        """Return the server that already runs, and use it until `stop`. Raises NotRunning or EmbeddedPostgresError."""
        with self._mutex:
            if find_postmaster(self._layout.data) is None:
                raise self._not_running()
            return self._use(self._running)

    def lives(self) -> bool:
        """Tell whether a server is there, ready or not."""
        return find_postmaster(self._layout.data) is not None

    def stop(self) -> None:
        """End this use. If nobody else uses the server, shut it down cleanly and wait until it is gone. Idempotent.

        Raises StopFailed if processes of the cluster outlive every signal, StartTimeout if another process keeps
        starting or stopping the server for a minute.
        """
        with self._mutex:
            if not self._using:
                return
            try:
                with self._lifecycle(monotonic() + _STOP_SECONDS):
                    self._leave()
            finally:
                self._users.release()
                self._using = False
                self._reap()

    def _use(self, find: Callable[[float], Server]) -> Server:
        deadline = monotonic() + self._timeout
        with self._lifecycle(deadline):
            already, self._using = self._using, True
            try:
                if not already:
                    self._count_in()
                return find(deadline)
            except BaseException as error:
                if not already:
                    # Interrupted, or our own server is of no use: nobody will come back to stop what we began.
                    in_vain = self._process is not None and not isinstance(error, StartTimeout)
                    if in_vain or not isinstance(error, Exception):
                        with suppress(StopFailed):
                            self._leave()
                    self._users.release()
                    self._using = False
                    self._reap()
                raise

    def _running(self, deadline: float) -> Server:
        while (postmaster := find_postmaster(self._layout.data)) is not None:
            server = self._ready(postmaster)
            if server is not None:
                return server
            self._pause(deadline, postmaster)
        raise self._not_running()

    def _running_or_started(self, deadline: float) -> Server:
        programs = find_programs()
        identity = identity_for(self._layout.folder, self._layout.data)
        process: subprocess.Popen[bytes] | None = None
        while True:
            postmaster = find_postmaster(self._layout.data)
            if postmaster is not None:
                server = self._ready(postmaster)
                if server is not None:
                    return server
            elif process is not None and process.poll() is not None:
                raise start_failure(self._layout)
            else:
                cluster = FileLock(self._layout.cluster_lock)
                if cluster.try_acquire():
                    with cluster.open_for_child() as descriptor:
                        process = self._process = self._started(identity, programs, deadline, descriptor)
            self._pause(deadline, postmaster)

    def _started(self, identity: Identity, programs: Path, deadline: float, descriptor: int) -> subprocess.Popen[bytes]:
        layout = self._layout
        check_reach(layout.folder, identity, programs)  # before anything is made in there
        durable = self._settings.get("fsync", "on") != "off"
        if not layout.data.exists():
            if self._template is not None:
                initialise_from_template(
                    layout, identity, programs, self._template, deadline=deadline, cluster_lock=descriptor
                )
            else:
                initialise(layout, identity, programs, deadline=deadline, durable=durable, cluster_lock=descriptor)
        check_version(layout)
        self._reap()
        return launch(layout, layout.data, identity, programs, self._settings, cluster_lock=descriptor)

    def _ready(self, postmaster: Postmaster) -> Server | None:
        """Return the server if one can log in; None if it is worth waiting."""
        if postmaster.status != "ready":
            return None
        server = server_of(self._layout, postmaster)
        refusal = try_connect(server)
        if refusal is None:
            return server
        if "password authentication failed" in refusal:
            raise StartFailed(
                f"the server does not accept the password in {self._layout.superuser}: the file and the cluster "
                f"{self._layout.data} are not of the same installation; restore the file that belongs to it"
            )
        if not server.socket_dir.exists():
            self._recycle(server)
        return None

    def _recycle(self, server: Server) -> None:
        """Stop a server whose socket folder was deleted (somebody tidied a temporary place) and that nobody reaches."""
        alone = self._users.try_acquire()
        if alone:
            self._shut_down()
        self._count_in()
        if not alone:
            raise StartFailed(
                f"the socket folder {server.socket_dir} of the running server was deleted while other commands use "
                "the server: end these commands, then start again"
            )

    def _leave(self) -> None:
        if self._users.try_acquire():
            self._shut_down()

    def _shut_down(self) -> None:
        for step, seconds in _STOP_STEPS:
            if self._wait_until_gone(step, monotonic() + seconds):
                if self._layout.data.exists():
                    self._layout.remove_short_socket_folder(identity_for(self._layout.folder, self._layout.data))
                return
        raise StopFailed(
            f"processes of the database in {self._layout.data} do not end: look for 'postgres' in the process list, "
            f"and see {self._layout.logs}"
        )

    def _wait_until_gone(self, step: signal.Signals, deadline: float) -> bool:
        cluster = FileLock(self._layout.cluster_lock)
        told = None
        while True:
            if self._process is not None:
                self._process.poll()
            postmaster = find_postmaster(self._layout.data)
            if postmaster is None and cluster.try_acquire():
                cluster.release()
                return True
            # Asked every time: a server that was only just started is not to be found at once.
            if postmaster is not None and postmaster.process != told:
                told = postmaster.process
                with suppress(psutil.NoSuchProcess):
                    told.send_signal(step)
            if monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)

    def _reap(self) -> None:
        if self._process is not None and self._process.poll() is None:
            _left_behind.append(self._process)
        self._process = None
        _left_behind[:] = [process for process in _left_behind if process.poll() is None]

    def _count_in(self) -> None:
        if not self._users.try_acquire(shared=True):
            raise InUseElsewhere(f"{self._layout.users_lock} is locked by a foreign program: end that program")

    def _pause(self, deadline: float, postmaster: Postmaster | None) -> None:
        if monotonic() <= deadline:
            time.sleep(POLL_SECONDS)
        elif postmaster is None and self._process is None:
            raise InUseElsewhere(
                f"processes that cannot be seen from here hold the database in {self._layout.data}: if it is mounted "
                "into another container, stop that one; else wait for an interrupted start to end"
            )
        else:
            raise StartTimeout(
                f"the database in {self._layout.data} was not ready after {self._timeout:.0f} s and goes on starting "
                f"(crash recovery, perhaps): try again later; its log is in {self._layout.logs}"
            )

    def _not_running(self) -> NotRunning:
        return NotRunning(f"no database is running in {self._layout.folder}: start it with 'memvault serve'")

    @contextmanager
    def _lifecycle(self, deadline: float) -> Iterator[None]:
        lock = FileLock(self._layout.lifecycle_lock)
        if not lock.acquire(deadline=deadline):
            raise StartTimeout(
                f"another memvault process has been starting or stopping the database in {self._layout.folder} for "
                "long: wait for it, or end it, then try again"
            )
        try:
            yield
        finally:
            lock.release()
