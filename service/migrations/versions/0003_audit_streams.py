"""How far each stream of the audit trail has got."""

from __future__ import annotations

from alembic import context, op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the tables and grant."""
    role = context.config.attributes["app_role"]
    op.execute(
        """
        CREATE TABLE audit_streams (
            stream varchar PRIMARY KEY,
            holder uuid NOT NULL,
            held_until timestamptz NOT NULL,
            seen bigint NOT NULL
        )
        """
    )
    op.execute(
        """
        CREATE TABLE audit_stream_places (
            stream varchar NOT NULL,
            tenant_id uuid NOT NULL REFERENCES tenants (id),
            xid bigint NOT NULL,
            seq bigint NOT NULL,
            PRIMARY KEY (stream, tenant_id)
        )
        """
    )
    for table in ("audit_streams", "audit_stream_places"):
        op.execute(f"GRANT SELECT, INSERT, UPDATE ON {table} TO {role}")


def downgrade() -> None:
    """Remove what `upgrade` added."""
    op.execute("DROP TABLE audit_stream_places, audit_streams")
