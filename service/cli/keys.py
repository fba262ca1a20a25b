"""`memvault key …`: create, list, rotate, change and revoke the API keys of a tenant."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Final
from uuid import UUID

import typer

from service import clock
from service.auth.keys import ApiKey, Grant
from service.auth.rotation import Rotation
from service.cli.installation import installation_of
from service.cli.options import Config, DataDir, Json, show
from service.errors import ConfigurationError
from service.policy.table import ROLES
from service.scope import Permission

app = typer.Typer(help="API keys of a tenant.", no_args_is_help=True)

TenantOption = Annotated[str, typer.Option("--tenant", help="Name or id of the tenant.")]
_OWNER_CHARS: Final = 255
#: Characters of a label in a line of the list; the document has all of it.
_LABEL_CHARS: Final = 60
_SPAN: Final = re.compile(r"(\d{1,5})([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@app.command()
def create(
    tenant: TenantOption,
    role: Annotated[str | None, typer.Option(help=f"One of {', '.join(ROLES)}. Default: agent.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="A permission; may be given many times.")] = None,
    user: Annotated[list[str] | None, typer.Option(help="Bind the key to this user; may be given many times.")] = None,
    connector: Annotated[str | None, typer.Option(help="Bind the key to this connector.")] = None,
    acting: Annotated[
        bool, typer.Option("--acting-required", help="A system agent's key: each call names its acting user.")
    ] = False,
    begins: Annotated[
        str | None, typer.Option(help="Time until the key begins to work, such as 12h. Default: at once.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="Life of the key, such as 90d or 12h. Default: no end.")] = None,
    label: Annotated[str | None, typer.Option(help="A note for people.")] = None,
    owner: Annotated[
        str | None,
        typer.Option(help="The person whose key it is, as your identity provider names them; legal holds need it."),
    ] = None,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Create a key and show its secret, once."""
    grant = Grant(
        permissions=_permissions(role, scope),
        users=frozenset(user) if user else None,
        connector=connector,
        expires_at=clock.now() + _span("--expires", expires) if expires else None,
        label=label,
        not_before=clock.now() + _span("--begins", begins) if begins else None,
        must_name_user=acting,
        owner=_owner(owner),
    )
    with installation_of(config, data_dir) as installation:
        found = installation.tenants.get(tenant)
        minted = installation.keys.mint_for_installation(found.id, grant)
    document = {"key_id": str(minted.id), "api_key": minted.secret, "tenant_id": str(found.id)}
    text = f"key {minted.id} of tenant {found.name}, shown once:\n{minted.secret}"
    show(document, as_json=json, text=text)


@app.command("list")
def list_(tenant: TenantOption, config: Config = None, data_dir: DataDir = None, json: Json = False) -> None:
    """List the keys of a tenant, without their secrets."""
    with installation_of(config, data_dir) as installation:
        keys = installation.keys.list_for_installation(installation.tenants.get(tenant).id)
    lines = [f"{key.id}  {key.prefix}…  {_state(key):<8}  {_shown(key.label)}".rstrip() for key in keys]
    show([_document(key) for key in keys], as_json=json, text="\n".join(lines))


@app.command()
def rotate(
    key_id: Annotated[UUID, typer.Argument(help="Id of the key.")],
    tenant: TenantOption,
    overlap: Annotated[str, typer.Option(help="How long the old key goes on working, such as 1d; 0 ends it now.")] = (
        "1d"
    ),
    expires: Annotated[
        str | None, typer.Option(help="Life of the new key, such as 90d. Default: it ends as the old one would have.")
    ] = None,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Make a key with the same grant and show its secret, once; the old key ends after the overlap."""
    rotation = Rotation(
        timedelta() if overlap == "0" else _span("--overlap", overlap),
        clock.now() + _span("--expires", expires) if expires else None,
    )
    with installation_of(config, data_dir) as installation:
        found = installation.tenants.get(tenant)
        rotated = installation.key_changes.rotate_for_installation(found.id, key_id, rotation)
    document = {
        "key_id": str(rotated.minted.id),
        "api_key": rotated.minted.secret,
        "tenant_id": str(found.id),
        "replaces": str(key_id),
        "old_expires_at": rotated.old_ends_at.isoformat(),
    }
    text = (
        f"key {rotated.minted.id} of tenant {found.name}, shown once:\n{rotated.minted.secret}\n"
        f"key {key_id} ends at {rotated.old_ends_at.isoformat(timespec='seconds')}"
    )
    show(document, as_json=json, text=text)


@app.command()
def change(
    key_id: Annotated[UUID, typer.Argument(help="Id of the key.")],
    tenant: TenantOption,
    role: Annotated[str | None, typer.Option(help=f"One of {', '.join(ROLES)}.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="A permission; may be given many times.")] = None,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Give a key the permissions of a role, or these, and no others; within seconds."""
    if role is None and not scope:
        raise ConfigurationError("--role or --scope: say what the key may do from now on")
    held = _permissions(role, scope)
    with installation_of(config, data_dir) as installation:
        installation.key_changes.change_for_installation(installation.tenants.get(tenant).id, key_id, held)
    show(
        {"key_id": str(key_id), "permissions": sorted(held)},
        as_json=json,
        text=f"key {key_id} may now {', '.join(sorted(held))}",
    )


@app.command()
def revoke(
    key_id: Annotated[UUID, typer.Argument(help="Id of the key.")],
    tenant: TenantOption,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Revoke a key, for good; it stops within seconds."""
    with installation_of(config, data_dir) as installation:
        installation.keys.revoke_for_installation(installation.tenants.get(tenant).id, key_id)
    show({"key_id": str(key_id), "revoked": True}, as_json=json, text=f"key {key_id} is revoked")


def _owner(owner: str | None) -> str | None:
    if owner is not None and not (owner.strip() and owner.isprintable() and len(owner) <= _OWNER_CHARS):
        raise ConfigurationError(f"--owner: 1 to {_OWNER_CHARS} printable characters")
    return owner


def _permissions(role: str | None, scopes: list[str] | None) -> frozenset[Permission]:
    if role is not None and scopes:
        raise ConfigurationError("--role and --scope: give one of them, not both")
    if scopes:
        known = {permission.value: permission for permission in Permission}
        unknown = [name for name in scopes if name not in known]
        if unknown:
            raise ConfigurationError(f"--scope {unknown[0]}: is none of {', '.join(known)}")
        return frozenset(known[name] for name in scopes)
    if (role or "agent") not in ROLES:
        raise ConfigurationError(f"--role {role}: is none of {', '.join(ROLES)}")
    return ROLES[role or "agent"]


def _span(option: str, text: str) -> timedelta:
    match = _SPAN.fullmatch(text)
    if match is None or not int(match[1]):
        raise ConfigurationError(f"{option} {text}: write a number and one of s, m, h, d, w, such as 90d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _state(key: ApiKey) -> str:
    now = clock.now()
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and key.expires_at <= now:
        return "expired"
    return "to begin" if key.not_before is not None and key.not_before > now else "active"


def _shown(label: str | None) -> str:
    """Return the beginning of a note as a terminal can take it: whoever makes keys over REST writes what they like."""
    return "".join(character if character.isprintable() else "?" for character in (label or "")[:_LABEL_CHARS])


def _document(key: ApiKey) -> dict[str, Any]:
    return {
        "key_id": str(key.id),
        "prefix": key.prefix,
        "permissions": sorted(key.permissions),
        "bound_to_users": key.bound_to_users,
        "connector": key.connector,
        "created_at": key.created_at.isoformat(),
        "not_before": key.not_before.isoformat() if key.not_before else None,
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
        "last_used_at": key.last_used_at.isoformat() if key.last_used_at else None,
        "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
        "acting": "required" if key.must_name_user else None,
        "replaced_by": str(key.replaced_by) if key.replaced_by else None,
        "owner": key.owner,
        "label": key.label,
    }
