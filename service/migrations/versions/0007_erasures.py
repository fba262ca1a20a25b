"""Erasures: what was asked for, how far it is, and the receipts; sealed columns have no samples in the statistics."""

from __future__ import annotations

from typing import Any

from alembic import context, op

revision = "0007"
down_revision = "0006"

_UPGRADE = """
ALTER TABLE tenants DROP CONSTRAINT tenants_status_check;
ALTER TABLE tenants ADD CONSTRAINT tenants_status_check
    CHECK (status IN ('active', 'suspended', 'deleting', 'deleted', 'system'));

CREATE TABLE erasures (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    kind varchar NOT NULL CHECK (kind IN ('user', 'agent', 'app', 'run', 'connector', 'tenant')),
    subject_id uuid,
    target bytea,
    target_mac bytea,
    status varchar NOT NULL CHECK (status IN ('scheduled', 'running', 'purging', 'completed')),
    due_at timestamptz,
    blocked_by varchar,
    principal_id uuid,
    requested_at timestamptz NOT NULL,
    begun_at timestamptz,
    removed_at timestamptz,
    completed_at timestamptz,
    removed jsonb NOT NULL,
    sealed_elsewhere bigint NOT NULL,
    physical jsonb,
    receipt jsonb,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX erasures_by_time ON erasures (tenant_id, requested_at, id);
CREATE UNIQUE INDEX erasures_open ON erasures (tenant_id, kind, subject_id)
    WHERE status IN ('scheduled', 'running') AND subject_id IS NOT NULL;

-- Which erasures have something to be done, across tenants: ids and times only.
CREATE TABLE erasure_work (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    erasure_id uuid NOT NULL,
    due_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, erasure_id)
);
CREATE INDEX erasure_work_by_due ON erasure_work (due_at);
"""

_TENANT = "NULLIF(current_setting('app.tenant', true), '')::uuid"
#: Columns whose values are sealed: a sample of them in the statistics helps no query and outlives the row.
_SEALED = {
    "memories": ("content", "vector"),
    "history": ("content",),
    "messages": ("content",),
    "events": ("payload",),
    "subjects": ("name",),
    "api_keys": ("label",),
}


def upgrade() -> None:
    """Make the tables, let deleted tenants be, and take no samples of sealed values."""
    role = context.config.attributes["app_role"]
    _run(_UPGRADE)
    op.execute("ALTER TABLE erasures ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE erasures FORCE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY tenant_isolation ON erasures USING (tenant_id = {_TENANT}) WITH CHECK (tenant_id = {_TENANT})"
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON erasures TO {role}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON erasure_work TO {role}")
    _sample(0)


def downgrade() -> None:
    """Remove the tables; deleted tenants become suspended ones."""
    op.execute("DROP TABLE erasure_work, erasures")
    op.execute("UPDATE tenants SET status = 'suspended' WHERE status = 'deleted'")
    op.execute("ALTER TABLE tenants DROP CONSTRAINT tenants_status_check")
    op.execute(
        "ALTER TABLE tenants ADD CONSTRAINT tenants_status_check"
        " CHECK (status IN ('active', 'suspended', 'deleting', 'system'))"
    )
    _sample(-1)


def _sample(target: int) -> None:
    for table, columns in _SEALED.items():
        for column in columns:
            op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS {target}")


def _run(script: str) -> None:
    """Run a script of many statements as it is."""
    connection: Any = op.get_bind().connection.dbapi_connection
    connection.execute(script)
