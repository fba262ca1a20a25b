"""The command `memvault`: its sub-commands, and how its errors end the process."""

from __future__ import annotations

import os
import sys

import typer

from service.cli import (
    audit,
    audit_tail,
    backups,
    consolidate,
    doctor,
    erase,
    health,
    holds,
    index,
    keyring,
    keys,
    languages,
    limits,
    mcp,
    migrate,
    model,
    portability,
    retention,
    serve,
    tenants,
)
from service.errors import ConfigurationError, MemvaultError

app = typer.Typer(
    name="memvault",
    help="A self-hosted memory service: Postgres is the record, Qdrant the index, Mem0 the engine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.command("worker")(serve.worker)
app.command("migrate")(migrate.migrate)
app.command("postgres-template")(serve.postgres_template)
app.command("model")(model.model)
app.command("doctor")(doctor.doctor)
app.command("health")(health.health)
app.command("erase")(erase.erase)
app.command("verify-receipt")(erase.verify_receipt)
app.command("mcp")(mcp.mcp)
app.command("backup")(backups.backup)
app.command("restore")(backups.restore)
app.command("consolidate")(consolidate.consolidate)
app.command("export")(portability.export)
app.command("import")(portability.import_)
app.add_typer(tenants.app, name="tenant")
tenants.app.command("show")(limits.show_tenant)
tenants.app.command("limits")(limits.limits)
tenants.app.command("language")(languages.language)
app.add_typer(keys.app, name="key")
app.add_typer(keyring.app, name="keyring")
app.add_typer(holds.app, name="hold")
app.add_typer(retention.app, name="retention")
app.add_typer(index.app, name="index")
app.add_typer(audit.app, name="audit")
audit.app.command("tail")(audit_tail.tail)
audit.app.command("match")(audit_tail.match)


def main() -> None:
    """Run a command. A wrong setting is one line and exit code 2; a refusal is one line and exit code 1."""
    # These would lead connections to the embedded Postgres past its private socket, behind the settings' back.
    for variable in ("PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE"):
        os.environ.pop(variable, None)
    try:
        app()
    except ConfigurationError as error:
        _end(error, 2)
    except MemvaultError as error:
        _end(error, 1)


def _end(error: MemvaultError, code: int) -> None:
    print(f"memvault: {error.detail}", file=sys.stderr)
    raise SystemExit(code)
