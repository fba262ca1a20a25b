"""Runs the migrations on the connection that `service.migrations.runner` hands in, each in a transaction of its own."""

from __future__ import annotations

from typing import Any

from alembic import context

from service.migrations.compatibility import record


def _applied(ctx: Any, step: Any, heads: Any, run_args: Any) -> None:
    """Note, inside the transaction of a migration, what may serve its schema, and tell that it is done."""
    if heads:
        record(ctx.connection, next(iter(heads)))
    context.config.attributes["applied"](step.is_upgrade, step.up_revision_id)


context.configure(
    connection=context.config.attributes["connection"],
    transaction_per_migration=True,
    on_version_apply=_applied,
)
with context.begin_transaction():
    context.run_migrations()
