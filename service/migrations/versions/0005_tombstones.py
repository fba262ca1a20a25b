"""Which tombstones (erasures, revoked keys, holds) are applied in this database; the journal is outside of it."""

from __future__ import annotations

from alembic import context, op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the table and grant. Nothing is ever taken out of it."""
    role = context.config.attributes["app_role"]
    op.execute(
        """
        CREATE TABLE tombstones (
            id uuid PRIMARY KEY,
            tenant_id uuid NOT NULL,
            kind varchar NOT NULL,
            ids uuid[] NOT NULL,
            sealed bytea,
            at timestamptz NOT NULL
        )
        """
    )
    op.execute(f"GRANT SELECT, INSERT ON tombstones TO {role}")


def downgrade() -> None:
    """Remove what `upgrade` added."""
    op.execute("DROP TABLE tombstones")
