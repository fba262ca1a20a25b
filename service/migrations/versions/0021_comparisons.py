"""Which memories the language model was asked about, so that a consolidation does not ask again."""

from __future__ import annotations

from typing import Any

from alembic import context, op

revision = "0021"
down_revision = "0020"

_UPGRADE = """
CREATE TABLE comparisons (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    memory_id uuid NOT NULL,
    version bigint NOT NULL,
    tries smallint NOT NULL,
    settled boolean NOT NULL,
    asked_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, memory_id),
    CONSTRAINT comparisons_memory FOREIGN KEY (tenant_id, memory_id)
        REFERENCES memories (tenant_id, id) ON DELETE CASCADE
);
"""
_TENANT = "NULLIF(current_setting('app.tenant', true), '')::uuid"


def upgrade() -> None:
    """Add the table behind row-level security, and grant."""
    role = context.config.attributes["app_role"]
    connection: Any = op.get_bind().connection.dbapi_connection
    connection.execute(_UPGRADE)
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON comparisons TO {role}")
    op.execute("ALTER TABLE comparisons ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE comparisons FORCE ROW LEVEL SECURITY")
    op.execute(
        "CREATE POLICY tenant_isolation ON comparisons"
        f" USING (tenant_id = {_TENANT}) WITH CHECK (tenant_id = {_TENANT})"
    )


def downgrade() -> None:
    """Remove the table; the next release that has it asks about everything once more."""
    op.execute("DROP TABLE comparisons")
