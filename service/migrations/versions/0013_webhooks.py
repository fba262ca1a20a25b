"""Webhooks and what is to be delivered to them."""

from __future__ import annotations

from alembic import context, op

revision = "0013"
down_revision = "0012"

_TENANT = "NULLIF(current_setting('app.tenant', true), '')::uuid"
_GRANTS = {"webhooks": "SELECT, INSERT, UPDATE, DELETE", "webhook_deliveries": "SELECT, INSERT, UPDATE, DELETE"}


def upgrade() -> None:
    """Add the tables, their row-level security and the grants."""
    role = context.config.attributes["app_role"]
    op.execute(
        """
        CREATE TABLE webhooks (
            tenant_id uuid NOT NULL REFERENCES tenants (id),
            id uuid NOT NULL,
            name bytea NOT NULL,
            url bytea NOT NULL,
            secret bytea NOT NULL,
            event_types varchar[] NOT NULL,
            principal_id uuid NOT NULL,
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL,
            PRIMARY KEY (tenant_id, id)
        )
        """
    )
    op.execute(
        """
        CREATE TABLE webhook_deliveries (
            tenant_id uuid NOT NULL REFERENCES tenants (id),
            id uuid NOT NULL,
            webhook_id uuid NOT NULL,
            event_type varchar NOT NULL,
            memory_ids uuid[] NOT NULL,
            subject_ids uuid[] NOT NULL,
            status varchar NOT NULL CHECK (status IN ('pending', 'delivered', 'dead')),
            attempts integer NOT NULL,
            http_status integer,
            code varchar,
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL,
            due_at timestamptz NOT NULL,
            PRIMARY KEY (tenant_id, id),
            FOREIGN KEY (tenant_id, webhook_id) REFERENCES webhooks (tenant_id, id) ON DELETE CASCADE
        )
        """
    )
    op.execute(
        "CREATE INDEX webhook_deliveries_by_webhook ON webhook_deliveries (tenant_id, webhook_id, created_at, id)"
    )
    op.execute("CREATE INDEX webhook_deliveries_by_subject ON webhook_deliveries USING gin (subject_ids)")
    op.execute(
        "CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (tenant_id, due_at) WHERE status = 'pending'"
    )
    for table, rights in _GRANTS.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant_isolation ON {table}"
            f" USING (tenant_id = {_TENANT}) WITH CHECK (tenant_id = {_TENANT})"
        )
        op.execute(f"GRANT {rights} ON {table} TO {role}")


def downgrade() -> None:
    """Remove the tables."""
    op.execute("DROP TABLE webhook_deliveries, webhooks")
