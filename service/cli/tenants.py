"""`memvault tenant …`: create, list, suspend, resume and delete tenants."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from service.cli.erase import document_of, follow, told
from service.cli.options import Config, DataDir, Json, installation_of, open_migrated, settings_from, show
from service.retention.ledger import ErasureKind, Target
from service.tenants.actions import Tenant

app = typer.Typer(help="Tenants: managed here and nowhere else.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the tenant: lower-case letters, digits and hyphens.")]
NameOrId = Annotated[str, typer.Argument(help="Name or id of the tenant.")]


@app.command()
def create(name: Name, config: Config = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Create a tenant."""
    with installation_of(config, data_dir) as installation:
        tenant = installation.tenants.create(name)
    show(_document(tenant), as_json=json, text=f"tenant {tenant.name} created: {tenant.id}")


@app.command("list")
def list_(config: Config = None, data_dir: DataDir = None, json: Json = False) -> None:
    """List all tenants."""
    with installation_of(config, data_dir) as installation:
        tenants = installation.tenants.list()
    lines = [f"{tenant.id}  {tenant.status:<9}  {tenant.name}" for tenant in tenants]
    show([_document(tenant) for tenant in tenants], as_json=json, text="\n".join(lines))


@app.command()
def suspend(tenant: NameOrId, config: Config = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Stop every key of a tenant, within seconds."""
    with installation_of(config, data_dir) as installation:
        changed = installation.tenants.suspend(tenant)
    show(_document(changed), as_json=json, text=f"tenant {changed.name} is suspended")


@app.command()
def resume(tenant: NameOrId, config: Config = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Let the keys of a suspended tenant work again."""
    with installation_of(config, data_dir) as installation:
        changed = installation.tenants.resume(tenant)
    show(_document(changed), as_json=json, text=f"tenant {changed.name} is active")


@app.command()
def delete(
    tenant: NameOrId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait for the receipt.")] = True,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Delete a tenant with all its data, for good; its audit trail stays and its name is free again."""
    with ExitStack() as stack:
        installation = open_migrated(settings_from(config, data_dir), stack)
        found = installation.tenants.get(tenant)
        if not yes:
            typer.confirm(f"delete the tenant {found.name} with all its data, for good?", abort=True, err=True)
        erasure = installation.erasures.request_for_installation(found.id, Target(ErasureKind.TENANT))
        if wait:
            erasure = follow(installation, erasure, stack, quiet=json)
    show(document_of(erasure), as_json=json, text=told(erasure))


def _document(tenant: Tenant) -> dict[str, str]:
    return {
        "tenant_id": str(tenant.id),
        "name": tenant.name,
        "status": tenant.status,
        "created_at": tenant.created_at.isoformat(),
    }
