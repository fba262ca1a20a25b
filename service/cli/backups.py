"""`memvault backup` and `memvault restore`: the data and, apart from it, the keyring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from service import wiring
from service.cli.installation import open_migrated, prepare_keyring
from service.cli.options import Config, DataDir, Json, settings_from, show
from service.cli.progress import spinner
from service.migrations.runner import current
from service.portability.archives import DATA, KEYRING

Keyring = Annotated[
    Path | None,
    typer.Option("--keyring", help="Folder of the keyring's archive, elsewhere. Default: in the first."),
]


def backup(
    out: Annotated[Path, typer.Option("--out", help="New folder for the archives.")],
    keyring: Keyring = None,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Back up the database and, apart from it, the keyring with what is kept outside the database; while all runs."""
    with ExitStack() as stack:
        installation = open_migrated(settings_from(config, data_dir), stack)
        with installation.database.tenant_blind() as connection:
            schema = current(connection) or ""
        with _progress(json) as told:
            made = wiring.make_backup(
                installation, data=out / DATA, keyring=keyring or out / KEYRING, schema=schema, progress=told
            )
    document = {
        "data": str(made.data.folder),
        "data_bytes": made.data.size,
        "keyring": str(made.keyring.folder),
        "keyring_files": made.keyring_files,
        "schema": schema,
    }
    text = f"the data is in {made.data.folder}, the keyring in {made.keyring.folder}: keep them apart"
    show(document, as_json=json, text=text)


def restore(
    folder: Annotated[Path, typer.Argument(help="Folder with the archives.")],
    keyring: Keyring = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Drop the embedded database that is there."),
    ] = False,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Restore a backup while nothing serves: later erasures, revoked keys and holds are applied again."""
    settings = settings_from(config, data_dir)
    prepare_keyring(settings)
    with _progress(json) as told:
        restored = wiring.restore_backup(
            settings,
            partial(wiring.reach_record, make=True, restores=True),
            data=folder / DATA,
            keyring=keyring or folder / KEYRING,
            replace=replace,
            progress=told,
        )
        with ExitStack() as stack:
            installation = open_migrated(settings, stack, restores=True)
            services = wiring.open_services(installation, stack, upkeep=False, faces=False)
            settled = wiring.settle(installation, services.erasing, services.index, restored=True)
            services.index.mark_incomplete()
            memories = wiring.count_memories(installation)
            restored.note.end()
    document = {
        "memories": memories,
        "keys": restored.outside.keys,
        "tombstones": restored.outside.tombstones,
        "applied": settled.applied,
        "epoch": None if settled.epoch is None else settled.epoch.checkpoint.body.number,
    }
    text = f"{memories} memories are back; {settled.applied} later erasures, revocations and holds were applied again"
    show(document, as_json=json, text=text)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int], None]]:
    with spinner(quiet=quiet) as progress:
        bar = progress.add_task("working", total=None)

        def told(archive: str, done: int) -> None:
            progress.update(bar, description=f"{archive}: {done:,}")

        yield told
