"""`memvault retention …`: run retention by hand or from a CronJob, list what a run would do, apply sets of rules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from service.cli.installation import installation_of
from service.cli.keys import TenantOption
from service.cli.options import Config, DataDir, Json, show
from service.errors import ConfigurationError
from service.retention.rule_files import rules_of
from service.scope import Caller, Permission, TenantId, installation_caller
from service.wiring import Installation

app = typer.Typer(help="Retention: rules, and runs that delete what they say.", no_args_is_help=True)
_PAGE: Final = 1000


@app.command()
def run(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be deleted or hidden.")] = False,
    tenant: Annotated[str | None, typer.Option(help="Name or id of one tenant. Default: all.")] = None,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Delete and hide what the rules and expiration dates say is due; beside a running service or without one."""
    documents = []
    with installation_of(config, data_dir) as installation, _bar(json) as bar:
        runs = installation.retention_runs
        found = [installation.tenants.get(tenant)] if tenant else installation.tenants.list()
        for one in (each for each in found if each.status in ("active", "suspended")):
            caller = _caller(one.id)
            begun = runs.start(caller, caller.scope, dry=dry_run)
            task = bar.add_task(one.name, total=max(1, runs.count(caller.scope)))
            report = runs.go_on(caller.scope, begun.id, progress=lambda seen, task=task: bar.advance(task, seen))  # type: ignore[misc]
            document = _document(report.run, report.by_rule) | {"tenant_id": str(one.id), "tenant": one.name}
            documents.append(document | {"items": _items(installation, caller, report.run.id)})
    lines = [_line(document, dry_run) for document in documents]
    if dry_run:
        lines += [f"{item['id']}  {item['action']}" for document in documents for item in document["items"]]
    show({"dry_run": dry_run, "tenants": documents}, as_json=json, text="\n".join(lines))


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(help="YAML file with rules, such as those in config/retention/.")],
    tenant: TenantOption,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Set the rules of a file: new names are added, known ones get a new version, others stay as they are."""
    try:
        bodies = rules_of(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(f"{file}: cannot be read") from None
    except yaml.YAMLError:
        raise ConfigurationError(f"{file}: is not valid YAML") from None
    with installation_of(config, data_dir) as installation:
        caller = _caller(installation.tenants.get(tenant).id)
        applied = installation.retention_rules.apply(caller, caller.scope, bodies)
    document = {
        "created": list(applied.created),
        "changed": list(applied.changed),
        "unchanged": list(applied.unchanged),
    }
    text = "\n".join(f"{what}: {', '.join(names) or '-'}" for what, names in document.items())
    show(document, as_json=json, text=text)


@app.command("rules")
def rules_(tenant: TenantOption, config: Config = None, data_dir: DataDir = None, json: Json = False) -> None:
    """List the rules of a tenant that count, those of the highest priority first."""
    with installation_of(config, data_dir) as installation:
        caller = _caller(installation.tenants.get(tenant).id)
        rules = installation.retention_rules.list(caller, caller.scope)
    documents = [
        {
            "id": str(rule.id),
            "version": rule.version,
            "name": rule.body.name,
            "action": rule.body.action.value,
            "counted_from": rule.body.counted_from.value,
            "age": rule.body.age.text if rule.body.age else None,
            "grace": rule.body.grace.text if rule.body.grace else None,
            "minimum": rule.body.minimum.text if rule.body.minimum else None,
            "priority": rule.body.priority,
        }
        for rule in rules
    ]
    text = "\n".join(
        f"{one['priority']:5}  {one['action']:6}  {one['age'] or '-':6}  {one['name']}" for one in documents
    )
    show(documents, as_json=json, text=text)


def _caller(tenant_id: TenantId) -> Caller:
    return installation_caller(tenant_id, frozenset({Permission.RETENTION_MANAGE}))


def _items(installation: Installation, caller: Caller, run_id: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    while True:
        number = len(items) // _PAGE + 1
        page = installation.retention_runs.items(caller, caller.scope, run_id, page=number, size=_PAGE)
        items += [
            {
                "id": str(one.memory_id),
                "action": one.step.value,
                "rule_id": str(one.rule_id) if one.rule_id else None,
                "due_at": one.due_at.isoformat(),
            }
            for one in page.items
        ]
        if len(page.items) < _PAGE:
            return items


def _document(run: Any, by_rule: Any) -> dict[str, Any]:
    return {
        "run_id": str(run.id),
        "status": run.status,
        "seen": run.seen,
        "deleted": run.deleted,
        "hidden": run.hidden,
        "by_rule": [
            {"rule_id": str(one.rule_id) if one.rule_id else None, "action": one.step.value, "count": one.count}
            for one in by_rule
        ],
    }


def _line(document: dict[str, Any], dry_run: bool) -> str:
    verb = "would be" if dry_run else "were"
    return (
        f"{document['tenant']}: of {document['seen']} memories {document['deleted']} {verb} deleted, "
        f"{document['hidden']} {verb} hidden"
    )


def _bar(json: bool) -> Progress:
    """Show on standard error how far each tenant's run is."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=json)
