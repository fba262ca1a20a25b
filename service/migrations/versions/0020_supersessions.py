"""Which memories say anew what older ones said, so that the newest alone can be asked for."""

from __future__ import annotations

from typing import Any

from alembic import context, op

revision = "0020"
down_revision = "0019"

_UPGRADE = """
CREATE TABLE supersessions (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    older_id uuid NOT NULL,
    newer_id uuid NOT NULL,
    kind varchar NOT NULL CHECK (kind IN ('changed', 'same')),
    state varchar NOT NULL CHECK (state IN ('linked', 'proposed', 'dismissed')),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, older_id, newer_id),
    CONSTRAINT supersessions_older FOREIGN KEY (tenant_id, older_id)
        REFERENCES memories (tenant_id, id) ON DELETE CASCADE,
    CONSTRAINT supersessions_newer FOREIGN KEY (tenant_id, newer_id)
        REFERENCES memories (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX supersessions_by_newer ON supersessions (tenant_id, newer_id);
"""
_TENANT = "NULLIF(current_setting('app.tenant', true), '')::uuid"


def upgrade() -> None:
    """Add the table behind row-level security, and grant."""
    role = context.config.attributes["app_role"]
    connection: Any = op.get_bind().connection.dbapi_connection
    connection.execute(_UPGRADE)
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON supersessions TO {role}")
    op.execute("ALTER TABLE supersessions ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE supersessions FORCE ROW LEVEL SECURITY")
    op.execute(
        "CREATE POLICY tenant_isolation ON supersessions"
        f" USING (tenant_id = {_TENANT}) WITH CHECK (tenant_id = {_TENANT})"
    )


def downgrade() -> None:
    """Remove the table; what was superseded is one memory among others again."""
    op.execute("DROP TABLE supersessions")
