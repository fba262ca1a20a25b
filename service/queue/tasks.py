"""Defers work by task name, inside the caller's transaction, and runs it in a worker."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import procrastinate
from procrastinate import PsycopgConnector, RetryStrategy, SyncPsycopgConnector
from procrastinate.exceptions import ConnectorException
from sqlalchemy import Connection

from service.errors import RecordUnavailable

_QUEUE: Final = "memvault"
_STALLED_AFTER_SECONDS: Final = 30
_STOP_SECONDS: Final = 10.0

#: A job whose work the record could not take (Postgres away, the trail not writable) is done later.
_AGAIN: Final = RetryStrategy(wait=5, retry_exceptions=[RecordUnavailable])

Handler = Callable[..., None]

# It logs the arguments of every job at INFO. They are ids only, yet a log is no place for who is waiting for what.
logging.getLogger("procrastinate").setLevel(logging.ERROR)


class Queue:
    """A queue in Postgres. Arguments are ids only: its tables have no row-level security."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._app = procrastinate.App(connector=SyncPsycopgConnector(conninfo=dsn, min_size=0, max_size=1))

    def defer(
        self,
        connection: Connection,
        task: str,
        arguments: Mapping[str, str],
        *,
        lock: str | None = None,
        at: datetime | None = None,
    ) -> None:
        """Note work to be done once this transaction commits; jobs with the same lock run one after the other."""
        deferrer = self._app.configure_task(
            task,
            queue=_QUEUE,
            lock=lock,
            schedule_at=at,
            connection=connection.connection.driver_connection,
            allow_unknown=True,
        )
        deferrer.defer(**arguments)


class Worker:
    """Runs the handlers of deferred work in one thread with its own event loop; handlers run in threads of theirs."""

    def __init__(
        self,
        dsn: str,
        handlers: Mapping[str, Handler],
        periodic: Mapping[str, tuple[str, Callable[[int], None]]],
        *,
        concurrency: int,
        poll_interval: float,
    ) -> None:
        connector = PsycopgConnector(conninfo=dsn, min_size=1, max_size=concurrency + 2)
        self._app = procrastinate.App(connector=connector)
        self._concurrency = concurrency
        self._poll_interval = poll_interval
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="memvault-worker", daemon=True)
        self._log = logging.getLogger("memvault.queue")
        for name, handler in handlers.items():
            self._app.task(name=name, queue=_QUEUE, retry=_AGAIN)(handler)
        for name, (cron, work) in periodic.items():
            self._app.periodic(cron=cron)(self._app.task(name=name, queue=_QUEUE, queueing_lock=name)(work))

    def start(self) -> None:
        """Begin to work in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more jobs, let those that run end within a few seconds, and return."""
        self._stopping.set()
        loop, task = self._loop, self._task
        if loop is not None and task is not None and loop.is_running():
            loop.call_soon_threadsafe(task.cancel)
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS * 2)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                asyncio.run(self._work())
            except (ConnectorException, OSError) as error:
                # Postgres is away: look again soon instead of ending for good.
                self._log.warning("the worker lost the queue", extra={"error": type(error).__name__})
                self._stopping.wait(2.0)
            except asyncio.CancelledError:
                break

    async def _work(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.ensure_future(self._until_cancelled())
        if self._stopping.is_set():
            self._task.cancel()
        await self._task

    async def _until_cancelled(self) -> None:
        async with self._app.open_async():
            rescue = asyncio.ensure_future(self._rescue_stalled())
            try:
                await self._app.run_worker_async(
                    queues=[_QUEUE],
                    concurrency=self._concurrency,
                    install_signal_handlers=False,
                    listen_notify=True,
                    fetch_job_polling_interval=self._poll_interval,
                    shutdown_graceful_timeout=_STOP_SECONDS,
                    delete_jobs="always",
                )
            finally:
                rescue.cancel()

    async def _rescue_stalled(self) -> None:
        """Give the jobs of workers that died back to the queue; their locks would stay taken otherwise."""
        manager = self._app.job_manager
        while True:
            for job in await manager.get_stalled_jobs(seconds_since_heartbeat=_STALLED_AFTER_SECONDS):
                await manager.retry_job(job)
            await asyncio.sleep(_STALLED_AFTER_SECONDS / 3)
