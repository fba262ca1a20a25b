"""The settings that a tenant makes for itself: instructions and categories of extraction, whether it reviews."""

from __future__ import annotations

from alembic import context, op

revision = "0009"
down_revision = "0008"

_TENANT = "NULLIF(current_setting('app.tenant', true), '')::uuid"


def upgrade() -> None:
    """Add the table behind row-level security, and grant."""
    role = context.config.attributes["app_role"]
    op.execute(
        """
        CREATE TABLE projects (
            tenant_id uuid PRIMARY KEY REFERENCES tenants (id),
            content bytea NOT NULL,
            review_required boolean NOT NULL,
            updated_at timestamptz NOT NULL
        )
        """
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON projects TO {role}")
    op.execute("ALTER TABLE projects ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE projects FORCE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY tenant_isolation ON projects USING (tenant_id = {_TENANT}) WITH CHECK (tenant_id = {_TENANT})"
    )


def downgrade() -> None:
    """Remove the table."""
    op.execute("DROP TABLE projects")
