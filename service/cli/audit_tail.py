"""`memvault audit tail` and `memvault audit match`: reads the trail of a tenant with the installation's authority."""

from __future__ import annotations

import json as json_
import time
from typing import Annotated, Any, Final
from uuid import UUID

import typer

from service.audit.entries import Entry, document
from service.audit.matching import Matches, Where
from service.cli.audit import app
from service.cli.installation import installation_of
from service.cli.options import Config, DataDir, Json, show
from service.cli.streams import put
from service.errors import ConfigurationError
from service.scope import SYSTEM_TENANT, Permission, SubjectKind, TenantId, installation_caller
from service.wiring import Installation

TenantOption = Annotated[
    str, typer.Option("--tenant", help="Name or id of the tenant; `_system` for what happened before one was known.")
]
_RIGHTS: Final = frozenset({Permission.AUDIT_READ, Permission.AUDIT_MATCH})
_POLL_SECONDS: Final = 0.5


@app.command()
def tail(
    tenant: TenantOption = "default",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written; Ctrl-C ends it.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, max=1000, help="Rows to begin with.")] = 20,
    config: Config = None,
    data_dir: DataDir = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Show the last rows of a tenant's audit trail. Reading it is in the trail too."""
    with installation_of(config, data_dir) as installation:
        caller = installation_caller(_tenant(installation, tenant), _RIGHTS)
        try:
            for entries in installation.reading.tail(caller, caller.scope, last=lines):
                for entry in entries:
                    put(json_.dumps(document(entry)) if json else _line(entry))
                if not follow:
                    return
                if not entries:
                    time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:
            return


@app.command()
def match(
    value: Annotated[str, typer.Argument(help="The exact query or memory text; `-` reads it from standard input.")],
    tenant: TenantOption = "default",
    row: Annotated[UUID | None, typer.Option("--row", help="Id of one row of the trail.")] = None,
    memory: Annotated[UUID | None, typer.Option("--memory", help="Id of a memory.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="A user.")] = None,
    subject: Annotated[UUID | None, typer.Option("--subject", help="Surrogate of a subject.")] = None,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Tell in which rows of the trail exactly this value was asked or said."""
    if sum(one is not None for one in (row, memory, user, subject)) != 1:
        raise ConfigurationError("give one of --row, --memory, --user and --subject")
    if value == "-":
        value = typer.get_text_stream("stdin").read().removesuffix("\n")
    where = Where(
        row_id=row, memory_id=memory, name=None if user is None else (SubjectKind.USER, user), subject_id=subject
    )
    with installation_of(config, data_dir) as installation:
        caller = installation_caller(_tenant(installation, tenant), _RIGHTS)
        found = installation.matching.match(caller, caller.scope, value, where)
    text = "\n".join(f"{one.at.isoformat()}  {one.event:<20}  {one.row_id}" for one in found.matches)
    show(_document(found), as_json=json, text=text or f"none of {found.checked} rows matches")


def _tenant(installation: Installation, name: str) -> TenantId:
    return SYSTEM_TENANT if name == "_system" else installation.tenants.get(name).id


def _line(entry: Entry) -> str:
    who = entry.principal_id or "service"
    about = f" {len(entry.target_ids)} named, {len(entry.result_ids)} shown or made"
    return f"{entry.at.isoformat()}  {entry.event:<22} {entry.outcome:<9} {who}  {about}  request {entry.request_id}"


def _document(found: Matches) -> dict[str, Any]:
    return {
        "matches": [
            {
                "audit_id": str(one.row_id),
                "at": one.at.isoformat(),
                "event": one.event,
                "kind": one.kind.name.lower(),
                "memory_id": None if one.memory_id is None else str(one.memory_id),
            }
            for one in found.matches
        ],
        "checked": found.checked,
        "unmatchable": found.unmatchable,
    }
