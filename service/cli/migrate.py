"""`memvault migrate`: brings the schema to this release, tells what is pending, or goes back to an older revision."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from service import wiring
from service.cli.installation import prepare_keyring
from service.cli.options import Config, DataDir, Json, settings_from, show
from service.errors import ConfigurationError, Conflict
from service.migrations import scripts
from service.migrations.runner import SchemaState, downgrade, look, served_by, upgrade
from service.settings import Settings


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit code 1 when something is pending.")
    ] = False,
    to: Annotated[
        str | None, typer.Option("--to", help="Go to this revision; an older one removes what newer ones keep.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before going back to an older revision.")] = False,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Bring the schema of the database to this release, with the owner's credential."""
    settings = settings_from(config, data_dir)
    with ExitStack() as stack:
        connections = wiring.reach_record(settings, stack, make=not check)
        if check:
            _check(look(connections.owner_dsn or connections.app_dsn), as_json=json)
            return
        if connections.owner_dsn is None:
            raise ConfigurationError("database.owner_url: is needed to migrate the database of database.url")
        revision = _migrated(settings, connections.owner_dsn, to, sure=yes)
    keyring = prepare_keyring(settings)
    text = f"the schema is at {revision}" + ("" if keyring is None else f", the keyring's tables are at {keyring}")
    show({"revision": revision} | ({} if keyring is None else {"keyring": keyring}), as_json=json, text=text)


def _migrated(settings: Settings, owner_dsn: str, to: str | None, *, sure: bool) -> str:
    app_role, limits = settings.database.app_role, settings.migration
    if to is None:
        return upgrade(owner_dsn, app_role=app_role, limits=limits, tell=_tell)
    state = look(owner_dsn)
    known = ["base", *scripts.order()]
    if to not in known:
        raise ConfigurationError(f"--to: this release knows no revision {to}; it knows base to {scripts.head()}")
    if state.newer:
        raise ConfigurationError(f"--to: {state.trouble or state.note}; only that release can take it back")
    if known.index(to) >= known.index(state.found or "base"):
        return upgrade(owner_dsn, app_role=app_role, revision=to, limits=limits, tell=_tell) if to != "base" else "base"
    if sessions := served_by(owner_dsn, app_role):
        raise Conflict(
            f"--to: {sessions} sessions of {app_role} use this database: stop the services and workers first"
        )
    lost = ", ".join(scripts.after(None if to == "base" else to))
    warning = (
        f"Going back from {state.found} to {to} removes the tables and columns of {lost} and all that is in them. "
        "Take a backup first: `memvault backup`."
    )
    if not sure:
        if not sys.stdin.isatty():
            raise ConfigurationError(f"--to: {warning} Then say --yes.")
        typer.confirm(f"{warning}\nGo back?", abort=True, err=True)
    return downgrade(owner_dsn, app_role=app_role, revision=to, limits=limits, tell=_tell)


def _check(state: SchemaState, *, as_json: bool) -> None:
    document = {"revision": state.found, "wanted": state.wanted, "pending": state.pending, "served": not state.trouble}
    lines = [state.trouble or state.note or f"the schema is at {state.found}: nothing is pending"]
    lines += [f"  {revision}  {scripts.title(revision)}" for revision in state.pending]
    show(document, as_json=as_json, text="\n".join(lines))
    if state.trouble is not None:
        raise SystemExit(1)


def _tell(line: str) -> None:
    print(f"memvault migrate: {line}", file=sys.stderr, flush=True)
