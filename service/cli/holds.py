"""`memvault hold …`: place, list, show and release legal holds, as the person whose key is in a file."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

import orjson
import typer

from service import clock
from service.cli.installation import installation_of
from service.cli.keys import TenantOption
from service.cli.options import Config, DataDir, Json, show
from service.errors import ConfigurationError, InvalidInput, NotFound
from service.filters.ast import Node
from service.filters.parse import parse_filter
from service.filters.render import as_wire
from service.records import SubjectNames
from service.retention.holds import Hold, NewHold
from service.scope import Caller, Permission, TenantId, installation_caller
from service.wiring import Installation

app = typer.Typer(help="Legal holds: what is held is neither deleted nor changed.", no_args_is_help=True)

KeyFile = Annotated[
    Path, typer.Option("--key-file", help="File with your own API key; - reads it from standard input.")
]
HoldArgument = Annotated[str, typer.Argument(help="Name or id of the hold.")]
_PAGE: Final = 1000


@app.command()
def place(
    name: Annotated[str, typer.Argument(help="Name of the hold: a-z, 0-9, '.', '_' and '-'.")],
    tenant: TenantOption,
    reason: Annotated[str, typer.Option(help="Why; kept encrypted.")],
    key_file: KeyFile,
    user: Annotated[str | None, typer.Option(help="Hold what belongs to this user.")] = None,
    agent: Annotated[str | None, typer.Option(help="Hold what belongs to this agent.")] = None,
    app_id: Annotated[str | None, typer.Option("--app", help="Hold what belongs to this app.")] = None,
    run: Annotated[str | None, typer.Option(help="Hold what belongs to this run.")] = None,
    memory: Annotated[list[UUID] | None, typer.Option(help="Hold this memory; may be given many times.")] = None,
    filters: Annotated[str | None, typer.Option("--filter", help="Hold what this filter matches, as JSON.")] = None,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Place a hold, as the person whose key is given."""
    new = NewHold(
        name=name,
        reason=reason,
        subjects=SubjectNames(user, agent, app_id, run),
        where=_where(filters),
        memory_ids=memory or (),
    )
    with installation_of(config, data_dir) as installation:
        caller = _person(installation, installation.tenants.get(tenant).id, key_file)
        hold = installation.holds.place(caller, caller.scope, new)
    text = f"hold {hold.stored.name} ({hold.stored.id}) covers {hold.stored.members} memories"
    show(_document(hold), as_json=json, text=text)


@app.command("list")
def list_(tenant: TenantOption, config: Config = None, data_dir: DataDir = None, json: Json = False) -> None:
    """List the holds of a tenant, the newest first."""
    with installation_of(config, data_dir) as installation:
        holds = _all(installation, installation.tenants.get(tenant).id)
    lines = [f"{one.stored.id}  {one.stored.state.value:8}  {one.stored.members:8}  {one.stored.name}" for one in holds]
    show([_document(one) for one in holds], as_json=json, text="\n".join(lines))


@app.command("show")
def show_(
    hold: HoldArgument, tenant: TenantOption, config: Config = None, data_dir: DataDir = None, json: Json = False
) -> None:
    """Show one hold."""
    with installation_of(config, data_dir) as installation:
        document = _document(_find(installation, installation.tenants.get(tenant).id, hold))
    show(document, as_json=json, text="\n".join(f"{key}: {value}" for key, value in document.items()))


@app.command()
def release(
    hold: HoldArgument,
    tenant: TenantOption,
    reason: Annotated[str, typer.Option(help="Why; kept encrypted.")],
    key_file: KeyFile,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Release a hold, as another person than the one who placed it."""
    with installation_of(config, data_dir) as installation:
        tenant_id = installation.tenants.get(tenant).id
        caller = _person(installation, tenant_id, key_file)
        found = _find(installation, tenant_id, hold)
        released = installation.holds.release(caller, caller.scope, found.stored.id, reason)
    show(_document(released), as_json=json, text=f"hold {released.stored.name} is released")


def _person(installation: Installation, tenant_id: TenantId, key_file: Path) -> Caller:
    """Return the caller of a person's key: the database's credential says nothing of a person."""
    try:
        secret = sys.stdin.readline() if key_file == Path("-") else key_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(f"--key-file {key_file}: cannot be read") from None
    principal = installation.keys.find_principal(secret.strip())
    if principal is None or principal.tenant_id != tenant_id:
        raise ConfigurationError(f"--key-file {key_file}: holds no valid key of this tenant")
    return Caller(principal, request_id=str(clock.new_id()), client="memvault", face="cli")


def _all(installation: Installation, tenant_id: TenantId) -> list[Hold]:
    caller = installation_caller(tenant_id, frozenset({Permission.HOLD_PLACE}))
    holds: list[Hold] = []
    while True:
        page = installation.holds.list(caller, caller.scope, None, page=len(holds) // _PAGE + 1, size=_PAGE)
        holds.extend(page.items)
        if len(page.items) < _PAGE:
            return holds


def _find(installation: Installation, tenant_id: TenantId, name_or_id: str) -> Hold:
    for hold in _all(installation, tenant_id):
        if name_or_id in (hold.stored.name, str(hold.stored.id)):
            return hold
    raise NotFound(f"the tenant has no hold {name_or_id}")


def _where(filters: str | None) -> Node | None:
    if filters is None:
        return None
    with suppress(orjson.JSONDecodeError):
        return parse_filter(orjson.loads(filters), where="--filter")
    raise InvalidInput("--filter: is not JSON")


def _document(hold: Hold) -> dict[str, Any]:
    stored = hold.stored
    return {
        "id": str(stored.id),
        "name": stored.name,
        "state": stored.state.value,
        "covers": hold.covers.value,
        **{f"{kind.value}_id": name for kind, name in hold.subjects.items()},
        "filters": None if hold.where is None else as_wire(hold.where),
        "reason": stored.reason,
        "members": stored.members,
        "placed_at": stored.placed_at.isoformat(),
        "released_at": stored.released_at.isoformat() if stored.released_at else None,
        "release_reason": stored.release_reason,
    }
