"""The likeness of a memory, by which one that is worded alike is found when it is added."""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add the column, empty for what is there, whose text is sealed, and the index of it."""
    op.execute("ALTER TABLE memories ADD COLUMN IF NOT EXISTS likeness bigint")
    with op.get_context().autocommit_block():
        # What an attempt that was cut short left behind cannot be used and is made again.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS memories_by_likeness")
        op.execute("CREATE INDEX CONCURRENTLY memories_by_likeness ON memories (tenant_id, likeness)")


def downgrade() -> None:
    """Remove the column with its index."""
    op.execute("ALTER TABLE memories DROP COLUMN likeness")
