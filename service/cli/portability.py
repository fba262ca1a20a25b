"""`memvault export` and `memvault import`: a person or a tenant as files, and files into a tenant."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from service import wiring
from service.cli.installation import open_migrated
from service.cli.options import Config, DataDir, Json, settings_from, show
from service.cli.progress import bars
from service.errors import InvalidInput
from service.memories.limits import check_names
from service.portability.exports import Wanted
from service.portability.folder import ExportFolder
from service.portability.imports import Imported
from service.portability.records import Unreadable
from service.portability.sources import NAMES, Options, open_source
from service.records import SubjectNames
from service.scope import Permission, installation_caller

TenantOption = Annotated[str, typer.Option("--tenant", help="Name or id of the tenant.")]
UserOption = Annotated[str | None, typer.Option("--user", help="One user. Default: the whole tenant.")]


def export(
    tenant: TenantOption,
    out: Annotated[Path, typer.Option("--out", help="Folder to write; one that was left unfinished is gone on with.")],
    user: UserOption = None,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Write everything of a user or of a tenant to a folder: JSON lines, and a manifest with their checksums."""
    with ExitStack() as stack:
        installation = open_migrated(settings_from(config, data_dir), stack)
        found = installation.tenants.get(tenant)
        subjects = SubjectNames(user_id=user)
        check_names(subjects)
        opened = wiring.open_portability(installation, stack, found.id)
        caller = installation_caller(found.id, frozenset({Permission.MEMORY_EXPORT}))
        folder = ExportFolder(out, about={"tenant_id": str(found.id), "user": user})
        total = None if user is not None else wiring.count_memories_of(installation, found.id)
        with _progress(json, "exporting", total) as told:
            batches = opened.exports.read(caller, caller.scope, Wanted(subjects), after=folder.after)
            written = folder.write(batches, progress=told)
    document = {
        "folder": str(out),
        "files": written.files,
        "lines": written.lines,
        "memories": written.memories,
        "resumed": written.resumed,
    }
    show(document, as_json=json, text=f"{written.memories} memories in {out}")


def import_(
    source: Annotated[str, typer.Argument(help="What to import: a folder, a file or a URL.")],
    tenant: TenantOption,
    user: Annotated[str | None, typer.Option("--user", help="Import everything as this user's.")] = None,
    kind: Annotated[
        str | None, typer.Option("--from", help=f"What the source is: {', '.join(NAMES)}. Default: it is told.")
    ] = None,
    collection: Annotated[str, typer.Option(help="Name of Mem0's collection or table.")] = "mem0",
    history: Annotated[Path | None, typer.Option(help="Mem0's history database, an SQLite file.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be imported.")] = False,
    skip_refused: Annotated[
        bool, typer.Option("--skip-refused", help="Import the rest when something is refused.")
    ] = False,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Import memories under their ids and times; one that is there already is passed over, so that it can go on."""
    with ExitStack() as stack:
        installation = open_migrated(settings_from(config, data_dir), stack)
        found = installation.tenants.get(tenant)
        check_names(SubjectNames(user_id=user))
        origin, opens = open_source(source, kind, Options(collection, history, os.environ.get("QDRANT_API_KEY")))
        opened = wiring.open_portability(installation, stack, found.id)
        caller = installation_caller(found.id, frozenset({Permission.MEMORY_IMPORT}))
        with _stages(json) as told:
            try:
                report = opened.imports.run(
                    caller,
                    caller.scope,
                    opens,
                    origin=origin,
                    user=user,
                    dry_run=dry_run,
                    skip_refused=skip_refused,
                    progress=told,
                )
            except Unreadable as error:
                raise InvalidInput(f"{error}. Nothing was imported") from None
    show(imported(report), as_json=json, text=_told(report))
    if report.refused and not skip_refused:
        raise SystemExit(1)


def imported(report: Imported) -> dict[str, Any]:
    """Return what an import did as it is printed."""
    return {
        "import_id": str(report.import_id),
        "dry_run": report.dry_run,
        "imported": report.memories,
        "known": report.known,
        "history": report.history,
        "subjects": report.subjects,
        "refused": report.refused,
        "refusals": [{"where": one.where, "why": one.why} for one in report.refusals],
    }


def _told(report: Imported) -> str:
    verb = "would be imported" if report.dry_run else "imported"
    lines = [f"{report.memories} memories {verb}, {report.known} were there already, {report.refused} refused"]
    lines += [f"  {one.where}: {one.why}" for one in report.refusals]
    return "\n".join(lines)


@contextmanager
def _progress(quiet: bool, what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    with bars(quiet=quiet) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda done: progress.update(bar, completed=done)


@contextmanager
def _stages(quiet: bool) -> Iterator[Callable[[str, int], None]]:
    """Show the check, then the import, which has as many steps as were checked."""
    with bars(quiet=quiet) as progress:
        check = progress.add_task("checking", total=None)
        stages = {"check": check}
        checked = 0

        def told(stage: str, done: int) -> None:
            nonlocal checked
            if stage == "check":
                checked = done
            elif stage not in stages:
                progress.update(check, total=checked)
                stages[stage] = progress.add_task("importing", total=checked)
            progress.update(stages[stage], completed=done)

        yield told
