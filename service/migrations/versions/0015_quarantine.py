"""Memories that wait for a reviewer, and what keys say of memories."""

from __future__ import annotations

from typing import Any

from alembic import context, op

revision = "0015"
down_revision = "0014"

_UPGRADE = """
CREATE TABLE quarantine (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    version bigint NOT NULL,
    owner_id uuid NOT NULL,
    user_id uuid,
    agent_id uuid,
    app_id uuid,
    run_id uuid,
    content bytea NOT NULL,
    vector bytea NOT NULL,
    embedder varchar NOT NULL,
    tokens bigint[] NOT NULL,
    identity_mac bytea NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    quarantined_at timestamptz NOT NULL,
    expires_on date,
    event_id uuid,
    principal_id uuid,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT quarantine_identity UNIQUE (tenant_id, identity_mac),
    CONSTRAINT quarantine_owner CHECK (owner_id = coalesce(user_id, agent_id, app_id, run_id)),
    FOREIGN KEY (tenant_id, user_id) REFERENCES subjects (tenant_id, id),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES subjects (tenant_id, id),
    FOREIGN KEY (tenant_id, app_id) REFERENCES subjects (tenant_id, id),
    FOREIGN KEY (tenant_id, run_id) REFERENCES subjects (tenant_id, id)
);
CREATE INDEX quarantine_by_time ON quarantine (tenant_id, quarantined_at, id);
CREATE INDEX quarantine_by_owner ON quarantine (tenant_id, owner_id);

CREATE TABLE feedback (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    memory_id uuid NOT NULL,
    owner_id uuid NOT NULL,
    principal_id uuid NOT NULL,
    verdict varchar CHECK (verdict IN ('POSITIVE', 'NEGATIVE', 'VERY_NEGATIVE')),
    reason bytea,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT feedback_of_key UNIQUE (tenant_id, memory_id, principal_id),
    CONSTRAINT feedback_memory FOREIGN KEY (tenant_id, memory_id) REFERENCES memories (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX feedback_by_owner ON feedback (tenant_id, owner_id);
"""
_TENANT = "NULLIF(current_setting('app.tenant', true), '')::uuid"


def upgrade() -> None:
    """Add the tables behind row-level security, and grant."""
    role = context.config.attributes["app_role"]
    connection: Any = op.get_bind().connection.dbapi_connection
    connection.execute(_UPGRADE)
    for table in ("quarantine", "feedback"):
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {role}")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant_isolation ON {table}"
            f" USING (tenant_id = {_TENANT}) WITH CHECK (tenant_id = {_TENANT})"
        )


def downgrade() -> None:
    """Remove the tables."""
    op.execute("DROP TABLE feedback, quarantine")
