"""History by whom it belongs to: what an erasure removes, and what a hold on somebody who shares it keeps."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0023"
down_revision = "0022"

_SUBJECTS: Final = ("user", "agent", "app", "run")


def upgrade() -> None:
    """Add an index for each kind of subject, of the rows that have one."""
    with op.get_context().autocommit_block():
        for kind in _SUBJECTS:
            # What an attempt that was cut short left behind cannot be used and is made again.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS history_by_{kind}")
            op.execute(
                f"CREATE INDEX CONCURRENTLY history_by_{kind} ON history (tenant_id, {kind}_id)"
                f" WHERE {kind}_id IS NOT NULL"
            )


def downgrade() -> None:
    """Remove the indexes."""
    for kind in _SUBJECTS:
        op.execute(f"DROP INDEX history_by_{kind}")
