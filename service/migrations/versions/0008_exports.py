"""What exports were asked for; the exports themselves are made from the record while they are read."""

from __future__ import annotations

from alembic import context, op

revision = "0008"
down_revision = "0007"

_TENANT = "NULLIF(current_setting('app.tenant', true), '')::uuid"


def upgrade() -> None:
    """Add the table with its row-level security, and grant."""
    role = context.config.attributes["app_role"]
    op.execute(
        """
        CREATE TABLE exports (
            tenant_id uuid NOT NULL REFERENCES tenants (id),
            id uuid NOT NULL,
            principal_id uuid NOT NULL,
            subject_ids uuid[] NOT NULL,
            request bytea NOT NULL,
            request_mac bytea NOT NULL,
            created_at timestamptz NOT NULL,
            PRIMARY KEY (tenant_id, id)
        )
        """
    )
    op.execute("CREATE INDEX exports_by_request ON exports (tenant_id, request_mac, created_at)")
    op.execute("ALTER TABLE exports ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE exports FORCE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY tenant_isolation ON exports USING (tenant_id = {_TENANT}) WITH CHECK (tenant_id = {_TENANT})"
    )
    op.execute(f"GRANT SELECT, INSERT, DELETE ON exports TO {role}")


def downgrade() -> None:
    """Remove what `upgrade` added."""
    op.execute("DROP TABLE exports")
