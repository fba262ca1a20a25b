"""The place of a memory in the line of its subjects, by which a search finds what stands beside it."""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add the column, empty for what is there, and the index by which the last place of a line is found."""
    op.execute("ALTER TABLE memories ADD COLUMN IF NOT EXISTS place bigint")
    with op.get_context().autocommit_block():
        # What an attempt that was cut short left behind cannot be used and is made again.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS memories_by_place")
        op.execute("CREATE INDEX CONCURRENTLY memories_by_place ON memories (tenant_id, place)")


def downgrade() -> None:
    """Remove the column with its index."""
    op.execute("ALTER TABLE memories DROP COLUMN place")
