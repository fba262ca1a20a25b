"""`memvault tenant limits` and `tenant show`: what a tenant may use, and what it does use."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from service.cli.installation import installation_of
from service.cli.options import Config, DataDir, Json, show
from service.cli.tenants import NameOrId, app, document_of
from service.errors import ConfigurationError
from service.scope import Limit
from service.tenants.actions import Tenant
from service.tenants.quotas import Used

_HELP: Final = "A number, `none` for no limit, or `default` for that of the settings (`quotas`)."
_NO_LIMIT, _DEFAULT = "none", "default"
_DIGITS: Final = 16
Most = Annotated[str | None, typer.Option(help=_HELP)]


@app.command("show")
def show_tenant(tenant: NameOrId, config: Config = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Show a tenant's limits, and what of them is used."""
    with installation_of(config, data_dir) as installation:
        found = installation.tenants.get(tenant)
        used = installation.quotas.used(found.id)
    show(_usage(found, used), as_json=json, text=_table(found, used))


@app.command()
def limits(
    tenant: NameOrId,
    memories: Most = None,
    size: Annotated[str | None, typer.Option("--bytes", help=_HELP)] = None,
    requests_per_second: Most = None,
    llm_calls_per_day: Most = None,
    llm_tokens_per_day: Most = None,
    events_waiting: Most = None,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Set limits of a tenant, and show all of them; within seconds on every replica."""
    given = {
        Limit.MEMORIES: memories,
        Limit.BYTES: size,
        Limit.REQUESTS_PER_SECOND: requests_per_second,
        Limit.LLM_CALLS_PER_DAY: llm_calls_per_day,
        Limit.LLM_TOKENS_PER_DAY: llm_tokens_per_day,
        Limit.EVENTS_WAITING: events_waiting,
    }
    changes = {limit: _most(limit, text) for limit, text in given.items() if text not in (None, _DEFAULT)}
    unset = [limit for limit, text in given.items() if text == _DEFAULT]
    with installation_of(config, data_dir) as installation:
        found = installation.tenants.get(tenant)
        if changes or unset:
            found = installation.tenants.set_limits(tenant, changes, unset)
        used = installation.quotas.used(found.id)
    show(_usage(found, used), as_json=json, text=_table(found, used))


def _most(limit: Limit, text: str | None) -> int | None:
    if text == _NO_LIMIT:
        return None
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > _DIGITS:
        option = limit.value.replace("_", "-")
        raise ConfigurationError(f"--{option} {text}: write a number, `{_NO_LIMIT}` or `{_DEFAULT}`")
    return int(text)


def _usage(tenant: Tenant, used: Used) -> dict[str, Any]:
    limits = {
        limit.value: {
            "limit": used.limits[limit],
            "used": used.counts.get(limit),
            "set_for": "tenant" if limit in tenant.limits else "installation",
        }
        for limit in Limit
    }
    return {**document_of(tenant), "limits": limits}


def _table(tenant: Tenant, used: Used) -> str:
    lines = [f"{tenant.id}  {tenant.status:<9}  {tenant.name}"]
    for limit in Limit:
        most = used.limits[limit]
        count = used.counts.get(limit, "-")
        lines.append(f"  {limit.value:<20} {count:>14} of {'no limit' if most is None else most}")
    return "\n".join(lines)
