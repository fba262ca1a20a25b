"""Retention: versions of rules, which the application role can only add to, and runs with what they did."""

from __future__ import annotations

from alembic import context, op

revision = "0014"
down_revision = "0013"

_TABLES: tuple[str, ...] = (
    """
    CREATE TABLE retention_rules (
        tenant_id uuid NOT NULL REFERENCES tenants (id),
        id uuid NOT NULL,
        version integer NOT NULL,
        name varchar NOT NULL,
        match bytea NOT NULL,
        action varchar NOT NULL CHECK (action IN ('delete', 'hide', 'keep')),
        counted_from varchar NOT NULL CHECK (counted_from IN ('created', 'updated', 'used')),
        age varchar,
        grace varchar,
        minimum varchar,
        priority integer NOT NULL,
        removed boolean NOT NULL,
        changed_by uuid,
        changed_kind varchar NOT NULL CHECK (changed_kind IN ('key', 'token')),
        changed_at timestamptz NOT NULL,
        PRIMARY KEY (tenant_id, id, version)
    )
    """,
    """
    CREATE TABLE retention_runs (
        tenant_id uuid NOT NULL REFERENCES tenants (id),
        id uuid NOT NULL,
        dry boolean NOT NULL,
        status varchar NOT NULL CHECK (status IN ('running', 'done')),
        now timestamptz NOT NULL,
        place uuid,
        seen bigint NOT NULL,
        deleted bigint NOT NULL,
        hidden bigint NOT NULL,
        asked_by uuid,
        started_at timestamptz NOT NULL,
        ended_at timestamptz,
        PRIMARY KEY (tenant_id, id)
    )
    """,
    "CREATE UNIQUE INDEX retention_runs_open ON retention_runs (tenant_id) WHERE status = 'running' AND NOT dry",
    """
    CREATE TABLE retention_items (
        tenant_id uuid NOT NULL REFERENCES tenants (id),
        run_id uuid NOT NULL,
        memory_id uuid NOT NULL,
        step varchar NOT NULL CHECK (step IN ('delete', 'hide')),
        rule_id uuid,
        rule_version integer,
        due_at timestamptz NOT NULL,
        PRIMARY KEY (tenant_id, run_id, memory_id),
        FOREIGN KEY (tenant_id, run_id) REFERENCES retention_runs (tenant_id, id)
    )
    """,
)
_GRANTS = {
    "retention_rules": "SELECT, INSERT",
    "retention_runs": "SELECT, INSERT, UPDATE, DELETE",
    "retention_items": "SELECT, INSERT, DELETE",
}
_TENANT = "NULLIF(current_setting('app.tenant', true), '')::uuid"


def upgrade() -> None:
    """Add the tables, their row-level security and the grants."""
    role = context.config.attributes["app_role"]
    for statement in _TABLES:
        op.execute(statement)
    for table, rights in _GRANTS.items():
        op.execute(f"GRANT {rights} ON {table} TO {role}")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant_isolation ON {table}"
            f" USING (tenant_id = {_TENANT}) WITH CHECK (tenant_id = {_TENANT})"
        )


def downgrade() -> None:
    """Remove what `upgrade` added."""
    op.execute("DROP TABLE retention_items, retention_runs, retention_rules")
