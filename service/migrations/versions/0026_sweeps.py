"""What is looked for often: old notifications, who is being erased, a page of subjects, what somebody's key seals."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0026"
down_revision = "0025"

_INDEXES: Final = {
    "webhook_deliveries_ended": "webhook_deliveries (tenant_id, updated_at) WHERE status <> 'pending'",
    "subjects_by_time": "subjects (tenant_id, created_at, id) WHERE erasing_at IS NULL",
    "subjects_erasing": "subjects (tenant_id) WHERE erasing_at IS NOT NULL",
    "memories_by_owner": "memories (tenant_id, owner_id)",
    "history_by_owner": "history (tenant_id, owner_id)",
}


def upgrade() -> None:
    """Add the indexes."""
    with op.get_context().autocommit_block():
        for name, what in _INDEXES.items():
            # What an attempt that was cut short left behind cannot be used and is made again.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {what}")


def downgrade() -> None:
    """Remove the indexes."""
    for name in _INDEXES:
        op.execute(f"DROP INDEX {name}")
