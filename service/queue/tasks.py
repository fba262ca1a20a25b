"""Defers work by task name, inside the caller's transaction, and runs it in a worker."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from inspect import Parameter, signature
from typing import Any, Final

import procrastinate
from procrastinate import BaseRetryStrategy, JobContext, PsycopgConnector, RetryDecision, SyncPsycopgConnector
from procrastinate.exceptions import ConnectorException, UniqueViolation
from procrastinate.jobs import Job, Status
from sqlalchemy import ColumnElement, Connection, Select, String, column, delete, exists, table, text

from service import clock
from service.errors import RecordUnavailable, Unavailable
from service.observability import logs, tracing
from service.observability.metrics import JOB_SECONDS, JOBS

#: The queue of everything else.
WORK: Final = "memvault"
#: Of what waits for others outside, so that nothing else waits behind it.
NOTIFICATIONS: Final = "memvault_notifications"
#: Signs of life, and looks for those of others, in the time after which one is taken for dead.
_SIGNS: Final = 3
#: Seconds that the queue has to take jobs back.
_HAND_BACK_SECONDS: Final = 5.0
_LONGEST_WAIT_SECONDS: Final = 60
_FOR_GOOD: Final = 86_400.0
#: Threads beside those of the jobs, with which a connection finds the address of its server.
_SPARE_THREADS: Final = 2
#: Seconds between looks at whether the worker has ended.
_LOOK_SECONDS: Final = 0.1


Handler = Callable[..., None]

_jobs: Final = table("procrastinate_jobs", column("task_name"), column("status"), column("args"))
_log: Final = logging.getLogger("memvault.queue")
#: The argument by which a job names the span that it belongs to; no handler gets it.
_ORIGIN: Final = "traceparent"
#: Jobs that are looked at to tell how the queue stands.
_MOST_COUNTED: Final = 10_000
#: When the oldest of each came is known from its event: the job itself only says when it may run.
_STANDING: Final = text(
    "WITH jobs AS (SELECT id, task_name, scheduled_at, CASE WHEN status = 'doing' THEN 'running'"
    "  WHEN scheduled_at > now() THEN 'scheduled' ELSE 'due' END AS state"
    "  FROM procrastinate_jobs WHERE status IN ('todo', 'doing') ORDER BY id LIMIT :most),"
    " sums AS (SELECT task_name, state, count(*) AS count, min(id) AS first, min(scheduled_at) AS scheduled"
    "  FROM jobs GROUP BY task_name, state)"
    " SELECT task_name, state, count, CASE WHEN state = 'due' THEN coalesce((SELECT greatest(max(e.at), j.scheduled_at)"
    "  FROM procrastinate_events e JOIN jobs j ON j.id = e.job_id WHERE e.job_id = first AND e.type = 'deferred'"
    "  GROUP BY j.scheduled_at), scheduled) END FROM sums"
)

# It logs every job with its arguments, and what it raised with its text. The arguments are ids only, yet a log is no
# place for who is waiting for what; what is worth telling is told here by its kind.
logging.getLogger("procrastinate").setLevel(logging.CRITICAL)


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
        queue: str = WORK,
    ) -> None:
        """Note work to be done once this transaction commits; jobs with the same lock run one after the other.

        Raises:
            RecordUnavailable: when Postgres does not take it; the transaction is lost then.
        """
        deferrer = self._app.configure_task(
            task,
            queue=queue,
            lock=lock,
            schedule_at=at,
            connection=connection.connection.driver_connection,
            allow_unknown=True,
        )
        spans = tracing.active()
        origin = None if spans is None else spans.traceparent()
        # The record lets statements wait for the next one, BEGIN among them; the job's goes past it.
        connection.exec_driver_sql("SELECT 1")
        try:
            # The job's spans belong to the trace of the request that asked for it.
            deferrer.defer(**arguments, **({} if origin is None else {_ORIGIN: origin}))
        except ConnectorException as error:
            raise RecordUnavailable("Postgres, the record, did not take the work; nothing was done") from _kind(error)

    @staticmethod
    def has_job(task: str, argument: str, value: ColumnElement[Any]) -> ColumnElement[bool]:
        """Return the condition that a job of this task, with this value as its argument, waits or runs."""
        return exists().where(_unended(task), _jobs.c.args.op("->>")(argument) == value.cast(String))

    @staticmethod
    def has_any_job(task: str) -> ColumnElement[bool]:
        """Return the condition that a job of this task waits or runs."""
        return exists().where(_unended(task))


def _unended(task: str) -> ColumnElement[bool]:
    return (_jobs.c.task_name == task) & _jobs.c.status.cast(String).in_(["todo", "doing"])


@dataclass(frozen=True, slots=True)
class Waiting:
    """Jobs of one task in one state: `due`, `running`, or `scheduled` for later; since when the oldest is due."""

    task: str
    state: str
    count: int
    oldest: datetime | None


def standing(connection: Connection) -> list[Waiting]:
    """Return what waits in the queue and runs, as far as `_MOST_COUNTED` jobs."""
    return [Waiting(*row) for row in connection.execute(_STANDING, {"most": _MOST_COUNTED})]


def forget_jobs(connection: Connection, task: str, argument: str, values: Select[Any]) -> int:
    """Remove the jobs of a task that wait and have one of these values as their argument; return how many."""
    argued = _jobs.c.args.op("->>")(argument).in_(values)
    waiting = (_jobs.c.task_name == task) & (_jobs.c.status.cast(String) == "todo")
    return int(connection.execute(delete(_jobs).where(waiting, argued)).rowcount)


class Worker:
    """Runs the handlers of deferred work in one thread with its own event loop; handlers run in threads of theirs.

    `queues` are those that it takes jobs of.
    A handler that raises Unavailable is run again later as the same job, which keeps its place and its lock. Anything
    else that it raises is logged by its kind and ends the job.
    """

    def __init__(
        self,
        dsn: str,
        handlers: Mapping[str, Handler],
        periodic: Mapping[str, tuple[str, Callable[[int], None]]],
        *,
        concurrency: int,
        poll_interval: float,
        stalled_seconds: float,
        stop_seconds: float,
        queues: Sequence[str] = (WORK,),
    ) -> None:
        connector = PsycopgConnector(conninfo=dsn, min_size=1, max_size=concurrency + 2)
        self._app = procrastinate.App(connector=connector)
        self._concurrency = concurrency
        self._queues = list(queues)
        self._poll_interval = poll_interval
        self._stalled_seconds = stalled_seconds
        self._stop_seconds = stop_seconds
        self._stopping = threading.Event()
        self._hurried = threading.Event()
        self._left = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="memvault-worker", daemon=True)
        self._worker_id: int | None = None
        self._running: set[int | None] = set()
        self._strays: set[int | None] = set()
        for name, handler in handlers.items():
            self._app.task(name=name, queue=WORK, retry=_Backoff())(_quiet(name, handler))
        for name, (cron, work) in periodic.items():
            # Not tried again: its next time comes soon. At most one runs and one waits, however long it takes.
            task = self._app.task(name=name, queue=WORK, queueing_lock=name, lock=name)(_quiet(name, work))
            self._app.periodic(cron=cron)(task)

    def start(self) -> None:
        """Begin to work in the background."""
        self._thread.start()

    @property
    def left(self) -> int:
        """How many jobs still ran here when `stop` returned; the queue has them back."""
        return self._left

    def hurry(self) -> None:
        """Give jobs that run no more time to end; safe within a signal handler."""
        self._hurried.set()

    def stop(self) -> None:
        """Take no more jobs, let those that run end in time, hand the others back to the queue, and return."""
        self._stopping.set()
        loop, task = self._loop, self._task
        if loop is not None and task is not None and loop.is_running():
            loop.call_soon_threadsafe(task.cancel)
        until = clock.monotonic() + self._stop_seconds
        while self._thread.is_alive() and clock.monotonic() < until and not self._hurried.is_set():
            self._thread.join(_LOOK_SECONDS)
        # Its last words to the queue, where no job runs any more.
        if self._thread.is_alive() and not self._running:
            self._thread.join(_HAND_BACK_SECONDS)
        if not self._thread.is_alive() or not self._running:
            return
        self._left = len(self._running)
        if loop is not None:
            try:
                asyncio.run_coroutine_threadsafe(self._hand_back(), loop).result(_HAND_BACK_SECONDS)
            except Exception as error:
                # They come back by themselves, once this worker has given no sign of life for a while.
                _log.warning("jobs could not be handed back", extra={"error": type(error).__name__})

    async def _hand_back(self) -> None:
        """Put the jobs that still run here back into the queue: this process ends, and the next worker takes them."""
        if self._worker_id is None:
            return
        manager, handed_back = self._app.job_manager, 0
        for job in await manager.list_jobs_async(status="doing", worker_id=self._worker_id):
            handed_back += await self._put_back(job)
        _log.info("jobs went back to the queue", extra={"count": handed_back})

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                asyncio.run(self._work())
                _log.warning("the worker lost the queue")
            except asyncio.CancelledError:
                break
            except Exception as error:
                # Postgres is away, most likely: look again soon instead of ending for good.
                _log.warning("the worker lost the queue", extra={"error": type(error).__name__})
            self._stopping.wait(2.0)

    async def _work(self) -> None:
        self._loop = asyncio.get_running_loop()
        # The loop's own pool goes by the processors, and a job without a thread would wait here with its lock.
        threads = ThreadPoolExecutor(self._concurrency + _SPARE_THREADS, thread_name_prefix="memvault-job")
        self._loop.set_default_executor(threads)
        self._task = asyncio.ensure_future(self._until_cancelled())
        if self._stopping.is_set():
            self._task.cancel()
        await self._task

    async def _until_cancelled(self) -> None:
        async with self._app.open_async():
            rescue = asyncio.ensure_future(self._rescue_stalled())
            try:
                await self._app.run_worker_async(
                    queues=self._queues,
                    concurrency=self._concurrency,
                    install_signal_handlers=False,
                    listen_notify=True,
                    fetch_job_polling_interval=self._poll_interval,
                    # `stop` waits for the jobs, and knows when to wait no longer.
                    shutdown_graceful_timeout=_FOR_GOOD,
                    update_heartbeat_interval=self._stalled_seconds / _SIGNS,
                    stalled_worker_timeout=self._stalled_seconds,
                    delete_jobs="always",
                    worker_middleware=[self._watched],
                )
            finally:
                rescue.cancel()

    async def _watched(self, run: Callable[[], Awaitable[Any]], context: JobContext, worker: Any) -> Any:
        """Remember which jobs this worker really runs, and look for what waits for the lock of one once it is done.

        The queue tells of jobs that come, and not that one may begin because another ended.
        """
        self._worker_id = worker.worker_id
        self._running.add(context.job.id)
        job = asyncio.current_task()
        if context.job.lock is not None and job is not None:
            # This task is the job's, and ends when the queue knows that the job did. There is no public way to say so.
            job.add_done_callback(lambda _: worker._new_job_event.set())
        try:
            return await run()
        finally:
            self._running.discard(context.job.id)

    async def _rescue_stalled(self) -> None:
        """Give jobs that nobody runs back to the queue again and again; their locks would stay taken otherwise."""
        while True:
            try:
                await self._rescue()
            except Exception as error:
                _log.warning("lost jobs could not be looked for", extra={"error": type(error).__name__})
            await asyncio.sleep(self._stalled_seconds / _SIGNS)

    async def _rescue(self) -> None:
        manager = self._app.job_manager
        for job in await manager.get_stalled_jobs(seconds_since_heartbeat=self._stalled_seconds):
            await self._put_back(job)
        if self._worker_id is None:
            return
        if self._stopping.is_set():
            # procrastinate gives no sign of life any more once it is stopped, while it waits for the jobs that run.
            await manager.update_heartbeat(self._worker_id)
        # Jobs that ended here while Postgres did not take note of it. A job may end between the question and the
        # look, so that it must be found so twice.
        mine = await manager.list_jobs_async(status="doing", worker_id=self._worker_id)
        strays = {job.id: job for job in mine if job.id not in self._running}
        for job_id in strays.keys() & self._strays:
            await self._put_back(strays[job_id])
        self._strays = set(strays)

    async def _put_back(self, job: Job) -> bool:
        """Let a job be taken up again; return whether it will be. One for which that fails holds up no other."""
        manager = self._app.job_manager
        # One that ends just now, or that another worker has put back, is not there any more.
        with suppress(ConnectorException):
            try:
                await manager.retry_job(job)
                return True
            except UniqueViolation:
                # It comes round by the clock, and the next of its kind waits already.
                await manager.finish_job(job, Status.ABORTED, delete_job=True)
        return False


class _Backoff(BaseRetryStrategy):
    """Tries again, ever more slowly, what failed because a store was away."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """Return when the job is to be tried again, or None for never."""
        if not isinstance(exception, Unavailable):
            return None
        return RetryDecision(retry_in={"seconds": min(2 ** min(job.attempts, 10), _LONGEST_WAIT_SECONDS)})


def _quiet(name: str, handler: Handler) -> Handler:
    """Return the handler without what it raises but Unavailable, and given only what it knows of a job."""

    taken = signature(handler).parameters
    takes_all = any(one.kind is Parameter.VAR_KEYWORD for one in taken.values())

    @wraps(handler)
    def run(*arguments: Any, **named: Any) -> None:
        began, outcome = clock.monotonic(), "done"
        origin = named.pop(_ORIGIN, None)
        # A service of a newer release may say more than this one understands.
        for one in () if takes_all else named.keys() - taken.keys():
            del named[one]
        about = _about(name, named)
        with logs.about(about):
            try:
                with tracing.continued(f"job {name}", "consumer", origin, {}) as opened:
                    handler(*arguments, **named)
                    if opened is not None:
                        known = {f"memvault.{key}": value for key, value in about.items() if value is not None}
                        opened.set_attributes(known)
            except Unavailable as error:
                outcome = "waits"
                _log.warning("a job waits for a store that is away", extra={"task": name, "error": error.code})
                raise
            except Exception as error:
                outcome = "failed"
                _log.error("a job failed", extra={"task": name, "error": type(error).__name__}, exc_info=error)
            finally:
                seconds = clock.monotonic() - began
                JOBS.labels(name, outcome).inc()
                JOB_SECONDS.labels(name).observe(seconds)
                _log.info("job", extra={"task": name, "status": outcome, "seconds": round(seconds, 4)})

    return run


def _about(name: str, named: Mapping[str, Any]) -> dict[str, Any]:
    """Return what each log line of a job carries: whose it is, and the request that it goes back to or its own id."""
    ids = [value for key, value in named.items() if key.endswith("_id") and key != "tenant_id"]
    return {"task": name, "tenant": named.get("tenant_id"), "request_id": ids[0] if ids else None}


def _kind(error: Exception) -> Exception:
    """Return a cause without the text: Postgres puts values into its errors."""
    return RuntimeError(type(error.__cause__ or error).__name__)
