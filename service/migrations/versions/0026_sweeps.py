"""What is looked for every minute and page by page: finished notifications that are old, and who is being erased."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0026"
down_revision = "0025"

_INDEXES: Final = {
    "webhook_deliveries_ended": "webhook_deliveries (tenant_id, updated_at) WHERE status <> 'pending'",
    "subjects_by_time": "subjects (tenant_id, created_at, id) WHERE erasing_at IS NULL",
    "subjects_erasing": "subjects (tenant_id) WHERE erasing_at IS NOT NULL",
}


def upgrade() -> None:
    """Add the indexes, each of the few rows that are asked for."""
    with op.get_context().autocommit_block():
        for name, what in _INDEXES.items():
            # What an attempt that was cut short left behind cannot be used and is made again.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {what}")


def downgrade() -> None:
    """Remove the indexes."""
    for name in _INDEXES:
        op.execute(f"DROP INDEX {name}")
