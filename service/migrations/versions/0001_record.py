"""The record: tenants, subjects, keys, memories with history, events, outbox, audit trail and the queue."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from alembic import context, op

revision = "0001"
down_revision = None

_TABLES = """
CREATE TABLE tenants (
    id uuid PRIMARY KEY,
    name varchar NOT NULL UNIQUE,
    status varchar NOT NULL CHECK (status IN ('active', 'suspended', 'deleting', 'system')),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

CREATE TABLE subjects (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    kind varchar NOT NULL CHECK (kind IN ('user', 'agent', 'app', 'run')),
    name_mac bytea NOT NULL,
    name bytea NOT NULL,
    created_at timestamptz NOT NULL,
    erasing_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT subjects_name UNIQUE (tenant_id, kind, name_mac)
);

CREATE TABLE key_index (
    key_hash bytea PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    key_id uuid NOT NULL
);

CREATE TABLE api_keys (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    prefix varchar NOT NULL,
    label bytea,
    permissions text[] NOT NULL,
    user_ids uuid[],
    connector varchar,
    created_by uuid,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz,
    PRIMARY KEY (tenant_id, id)
);

CREATE TABLE memories (
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
    identity_mac bytea,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    ingested_at timestamptz NOT NULL,
    expires_on date,
    event_id uuid,
    principal_id uuid,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT memories_identity UNIQUE (tenant_id, identity_mac),
    CONSTRAINT memories_owner CHECK (owner_id = coalesce(user_id, agent_id, app_id, run_id)),
    FOREIGN KEY (tenant_id, user_id) REFERENCES subjects (tenant_id, id),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES subjects (tenant_id, id),
    FOREIGN KEY (tenant_id, app_id) REFERENCES subjects (tenant_id, id),
    FOREIGN KEY (tenant_id, run_id) REFERENCES subjects (tenant_id, id)
);
CREATE INDEX memories_by_time ON memories (tenant_id, created_at, id);
CREATE INDEX memories_by_user ON memories (tenant_id, user_id, created_at, id);
CREATE INDEX memories_by_agent ON memories (tenant_id, agent_id);
CREATE INDEX memories_by_app ON memories (tenant_id, app_id);
CREATE INDEX memories_by_run ON memories (tenant_id, run_id);

CREATE TABLE history (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    memory_id uuid NOT NULL,
    owner_id uuid NOT NULL,
    user_id uuid,
    agent_id uuid,
    app_id uuid,
    run_id uuid,
    change varchar NOT NULL CHECK (change IN ('ADD', 'UPDATE', 'DELETE')),
    content bytea,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX history_by_memory ON history (tenant_id, memory_id, seq);

CREATE TABLE events (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    kind varchar NOT NULL,
    status varchar NOT NULL CHECK (status IN ('PENDING', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
    owner_id uuid NOT NULL,
    subject_ids uuid[] NOT NULL,
    principal_id uuid NOT NULL,
    payload bytea,
    results jsonb NOT NULL,
    notes jsonb NOT NULL,
    code varchar,
    reason varchar,
    attempts integer NOT NULL,
    request_id varchar NOT NULL,
    client varchar NOT NULL,
    face varchar NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    started_at timestamptz,
    completed_at timestamptz,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX events_by_time ON events (tenant_id, created_at, id);
CREATE INDEX events_by_owner ON events (tenant_id, owner_id);
CREATE INDEX events_unfinished ON events (tenant_id, updated_at) WHERE status IN ('PENDING', 'RUNNING');

CREATE TABLE messages (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    scope_mac bytea NOT NULL,
    owner_id uuid NOT NULL,
    event_id uuid NOT NULL,
    content bytea NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX messages_by_scope ON messages (tenant_id, scope_mac, seq);
CREATE INDEX messages_by_event ON messages (tenant_id, event_id);
CREATE INDEX messages_by_owner ON messages (tenant_id, owner_id);

CREATE TABLE idempotency (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    principal_id uuid NOT NULL,
    key_mac bytea NOT NULL,
    request_mac bytea NOT NULL,
    event_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, principal_id, key_mac),
    FOREIGN KEY (tenant_id, event_id) REFERENCES events (tenant_id, id) ON DELETE CASCADE
        DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX idempotency_by_time ON idempotency (tenant_id, created_at);
CREATE INDEX idempotency_by_event ON idempotency (tenant_id, event_id);

CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    memory_id uuid NOT NULL,
    version bigint NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE tasks (
    id uuid PRIMARY KEY,
    kind varchar NOT NULL,
    state varchar NOT NULL CHECK (state IN ('pending', 'running', 'succeeded', 'failed')),
    done bigint NOT NULL,
    error varchar,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

CREATE TABLE audit (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL,
    event varchar NOT NULL,
    outcome varchar NOT NULL,
    principal_id uuid,
    subject_ids uuid[] NOT NULL,
    connector varchar,
    client varchar NOT NULL,
    face varchar NOT NULL,
    request_id varchar NOT NULL,
    target_ids uuid[] NOT NULL,
    result_ids uuid[] NOT NULL,
    query_mac bytea,
    detail jsonb NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX audit_by_time ON audit (tenant_id, at, id);

INSERT INTO tenants VALUES ('00000000-0000-0000-0000-000000000000', '_system', 'system', now(), now());
"""

#: What the application role may do, table by table. Nothing else is granted.
_GRANTS = {
    "tenants": "SELECT, INSERT, UPDATE",
    "key_index": "SELECT, INSERT, DELETE",
    "outbox": "SELECT, INSERT, DELETE",
    "tasks": "SELECT, INSERT, UPDATE",
    "subjects": "SELECT, INSERT, UPDATE, DELETE",
    "api_keys": "SELECT, INSERT, UPDATE",
    "memories": "SELECT, INSERT, UPDATE, DELETE",
    "history": "SELECT, INSERT, UPDATE, DELETE",
    "events": "SELECT, INSERT, UPDATE, DELETE",
    "messages": "SELECT, INSERT, DELETE",
    "idempotency": "SELECT, INSERT, DELETE",
    "audit": "SELECT, INSERT",
}
_TENANT_BLIND = {"tenants", "key_index", "outbox", "tasks"}
_TENANT = "NULLIF(current_setting('app.tenant', true), '')::uuid"


def upgrade() -> None:
    """Make the tables, their row-level security and the grants."""
    role = context.config.attributes["app_role"]
    _run(_TABLES)
    for table, rights in _GRANTS.items():
        op.execute(f"GRANT {rights} ON {table} TO {role}")
        if table in _TENANT_BLIND:
            continue
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant_isolation ON {table}"
            f" USING (tenant_id = {_TENANT}) WITH CHECK (tenant_id = {_TENANT})"
        )
    op.execute(f"GRANT SELECT ON alembic_version TO {role}")
    _queue(role)


def downgrade() -> None:
    """Remove everything that `upgrade` made."""
    op.execute(
        "DROP TABLE audit, tasks, outbox, idempotency, messages, events, history, memories, api_keys, key_index,"
        " subjects, tenants"
    )
    _run(_DROP_QUEUE)


#: Every object of procrastinate carries its prefix.
_DROP_QUEUE = """
DO $$
DECLARE thing record;
BEGIN
    FOR thing IN SELECT tablename AS name FROM pg_tables
        WHERE schemaname = 'public' AND tablename LIKE 'procrastinate\\_%' LOOP
        EXECUTE format('DROP TABLE %I CASCADE', thing.name);
    END LOOP;
    FOR thing IN SELECT oid::regprocedure AS name FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND proname LIKE 'procrastinate\\_%' LOOP
        EXECUTE format('DROP FUNCTION %s CASCADE', thing.name);
    END LOOP;
    FOR thing IN SELECT typname AS name FROM pg_type
        WHERE typnamespace = 'public'::regnamespace
            AND typname LIKE 'procrastinate\\_%' AND typtype IN ('e', 'c') LOOP
        EXECUTE format('DROP TYPE %I CASCADE', thing.name);
    END LOOP;
END $$;
"""


def _queue(role: str) -> None:
    """Install procrastinate's own schema: its tables hold ids of work and no user data."""
    _run(files("procrastinate").joinpath("sql", "schema.sql").read_text(encoding="utf-8"))
    _run(_GRANT_QUEUE.format(role=role))


_GRANT_QUEUE = """
DO $$
DECLARE thing record;
BEGIN
    FOR thing IN SELECT tablename AS name FROM pg_tables
        WHERE schemaname = 'public' AND tablename LIKE 'procrastinate\\_%' LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO {role}', thing.name);
    END LOOP;
    FOR thing IN SELECT sequencename AS name FROM pg_sequences
        WHERE schemaname = 'public' AND sequencename LIKE 'procrastinate\\_%' LOOP
        EXECUTE format('GRANT USAGE ON SEQUENCE %I TO {role}', thing.name);
    END LOOP;
END $$;
"""


def _run(script: str) -> None:
    """Run a script of many statements as it is: no bind parameters, so that `:` and `%` in it stay what they are."""
    connection: Any = op.get_bind().connection.dbapi_connection
    connection.execute(script)
