"""`memvault index rebuild`: makes the index anew from the record, through the running service or by itself."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Annotated, Final

import typer
from rich.progress import Progress

from service import clock, wiring
from service.cli.installation import open_migrated
from service.cli.options import Config, DataDir, Json, settings_from, show
from service.cli.progress import bars
from service.errors import MemvaultError
from service.index.interface import IndexLocked
from service.jobs.handlers import CHANGE_MODEL, REBUILD_INDEX
from service.storage.tasks import TaskState

app = typer.Typer(help="The index.", no_args_is_help=True)
_POLL_SECONDS: Final = 0.2
#: Seconds after which a rebuild that no worker has begun is not waited for any longer.
_NOBODY_SECONDS: Final = 30.0


@app.callback()
def _group() -> None:
    """The index."""


@app.command()
def rebuild(
    embedder: Annotated[
        str | None,
        typer.Option(
            "--embedder", help="Bring this embedding model in (`minilm`, or the provider that the settings name)."
        ),
    ] = None,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Make the whole index anew from the record, while the service goes on serving.

    With --embedder the index of another model is filled beside the one that serves, and then takes its place.
    """
    with ExitStack() as stack:
        settings = settings_from(config, data_dir)
        installation = open_migrated(settings, stack)
        model = None if embedder is None else wiring.ask_for(installation, embedder)
        task = REBUILD_INDEX if model is None else CHANGE_MODEL
        total = wiring.count_memories(installation)
        progress = stack.enter_context(bars(quiet=json))
        bar = progress.add_task("rebuilding the index", total=total)
        try:
            services = wiring.open_services(installation, stack, upkeep=False, faces=False)
        except IndexLocked:
            # The folder belongs to the serving process: it does the work, and says how far it is.
            done = _through_the_queue(installation, task, progress, bar)
        else:
            work = services.jobs.rebuild if model is None else services.jobs.change
            done = work(lambda count: progress.update(bar, completed=count))
        progress.update(bar, completed=done)
    if model is None:
        show({"memories": done}, as_json=json, text=f"the index holds {done} memories")
        return
    text = f"{model.name} serves, with {done} memories. Name it in the `embeddings` settings before the next start."
    show({"memories": done, "model": model.name, "dimensions": model.dimensions}, as_json=json, text=text)


def _through_the_queue(installation: wiring.Installation, kind: str, progress: Progress, bar: object) -> int:
    with installation.database.tenant_blind() as connection:
        task_id = installation.tasks.start(connection, kind)
        # A change that was killed holds its lock for a while; the process that has the index does one at a time anyway.
        lock = REBUILD_INDEX if kind == REBUILD_INDEX else None
        installation.queue.defer(connection, kind, {"task_id": str(task_id)}, lock=lock)
    asked = clock.monotonic()
    while True:
        task = installation.tasks.get(task_id)
        progress.update(bar, completed=task.done)  # type: ignore[arg-type]
        if task.state is TaskState.SUCCEEDED:
            return task.done
        if task.state is TaskState.FAILED:
            raise MemvaultError(f"the rebuild failed: {task.error}")
        if task.state is TaskState.PENDING and clock.monotonic() - asked > _NOBODY_SECONDS:
            raise MemvaultError(
                f"no worker has begun the rebuild within {_NOBODY_SECONDS:g} s; it stays queued. The process that "
                "serves must run the queue: set queue.in_process to true and start it again"
            )
        time.sleep(_POLL_SECONDS)
