"""`memvault tenant …`: create, list, rename, suspend, resume and delete tenants."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated, Final

import typer

from service.cli.erase import document_of as erasure_document
from service.cli.erase import follow, told
from service.cli.installation import installation_of, open_migrated
from service.cli.options import Config, DataDir, Json, settings_from, show
from service.errors import ConfigurationError
from service.retention.ledger import ErasureKind, Target
from service.settings.languages import Language
from service.tenants.actions import Tenant

app = typer.Typer(help="Tenants: managed here and nowhere else.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the tenant: lower-case letters, digits and hyphens.")]
NameOrId = Annotated[str, typer.Argument(help="Name or id of the tenant.")]
#: What a language can be, for the help of commands.
LANGUAGES: Final = "`english`, `german`, … or `multilingual`"


@app.command()
def create(
    name: Name,
    language: Annotated[
        str | None, typer.Option(help=f"Language of the memories: {LANGUAGES}; else that of the settings.")
    ] = None,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Create a tenant."""
    spoken = None if language is None else language_of(language)
    with installation_of(config, data_dir, make=True) as installation:
        tenant = installation.tenants.create(name, language=spoken)
    show(document_of(tenant), as_json=json, text=f"tenant {tenant.name} created: {tenant.id}")


@app.command("list")
def list_(config: Config = None, data_dir: DataDir = None, json: Json = False) -> None:
    """List all tenants."""
    with installation_of(config, data_dir) as installation:
        tenants = installation.tenants.list()
    lines = [f"{tenant.id}  {tenant.status:<9}  {tenant.name}" for tenant in tenants]
    show(
        [{**document_of(tenant), "own_limits": dict(tenant.limits)} for tenant in tenants],
        as_json=json,
        text="\n".join(lines),
    )


@app.command()
def suspend(tenant: NameOrId, config: Config = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Stop every key of a tenant, within seconds."""
    with installation_of(config, data_dir) as installation:
        changed = installation.tenants.suspend(tenant)
    show(document_of(changed), as_json=json, text=f"tenant {changed.name} is suspended")


@app.command()
def resume(tenant: NameOrId, config: Config = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Let the keys of a suspended tenant work again."""
    with installation_of(config, data_dir) as installation:
        changed = installation.tenants.resume(tenant)
    show(document_of(changed), as_json=json, text=f"tenant {changed.name} is active")


@app.command()
def rename(tenant: NameOrId, name: Name, config: Config = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Give a tenant another name. Its id, its keys and its data stay."""
    with installation_of(config, data_dir) as installation:
        renamed = installation.tenants.rename(tenant, name)
    show(document_of(renamed), as_json=json, text=f"tenant {renamed.id} is now {renamed.name}")


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
    show(erasure_document(erasure), as_json=json, text=told(erasure))


def language_of(name: str) -> Language:
    """Return a language by its name.

    Raises:
        ConfigurationError: for one that keyword search does not know.
    """
    try:
        return Language(name)
    except ValueError:
        raise ConfigurationError(f"language {name}: write one of {', '.join(Language)}") from None


def document_of(tenant: Tenant) -> dict[str, str]:
    return {
        "tenant_id": str(tenant.id),
        "name": tenant.name,
        "status": tenant.status,
        "created_at": tenant.created_at.isoformat(),
    }
