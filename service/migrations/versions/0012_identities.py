"""Connector accounts that stand for a user."""

from __future__ import annotations

from alembic import context, op

revision = "0012"
down_revision = "0011"

_TENANT = "NULLIF(current_setting('app.tenant', true), '')::uuid"


def upgrade() -> None:
    """Add the table, its row-level security and the grants."""
    role = context.config.attributes["app_role"]
    op.execute(
        """
        CREATE TABLE identities (
            tenant_id uuid NOT NULL REFERENCES tenants (id),
            id uuid NOT NULL,
            connector varchar NOT NULL,
            account_mac bytea NOT NULL,
            name_mac bytea NOT NULL,
            account bytea NOT NULL,
            user_id uuid NOT NULL,
            principal_id uuid NOT NULL,
            created_at timestamptz NOT NULL,
            PRIMARY KEY (tenant_id, id),
            CONSTRAINT identities_account UNIQUE (tenant_id, account_mac),
            FOREIGN KEY (tenant_id, user_id) REFERENCES subjects (tenant_id, id)
        )
        """
    )
    op.execute("CREATE INDEX identities_by_user ON identities (tenant_id, user_id)")
    op.execute("CREATE INDEX identities_by_name ON identities (tenant_id, name_mac)")
    op.execute("ALTER TABLE identities ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE identities FORCE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY tenant_isolation ON identities USING (tenant_id = {_TENANT}) WITH CHECK (tenant_id = {_TENANT})"
    )
    op.execute(f"GRANT SELECT, INSERT, DELETE ON identities TO {role}")


def downgrade() -> None:
    """Remove the table."""
    op.execute("DROP TABLE identities")
