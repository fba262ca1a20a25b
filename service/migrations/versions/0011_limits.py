"""Limits of tenants, and what they have used: memories and bytes, calls and tokens of the LLM, requests."""

from __future__ import annotations

from typing import Any

from alembic import context, op

revision = "0011"
down_revision = "0010"

#: The memories of a tenant are counted by the database in the transaction that writes or removes them, whoever does it
#: and by whatever way: each statement adds one row with the difference, so that no writer waits for another. The sum
#: of the rows is what there is.
_UPGRADE = """
ALTER TABLE tenants ADD COLUMN limits jsonb NOT NULL DEFAULT '{}';

CREATE TABLE usage (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id bigint GENERATED ALWAYS AS IDENTITY,
    memories bigint NOT NULL,
    bytes bigint NOT NULL,
    PRIMARY KEY (tenant_id, id)
);

CREATE TABLE llm_usage (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    day date NOT NULL,
    calls bigint NOT NULL,
    tokens bigint NOT NULL,
    PRIMARY KEY (tenant_id, day)
);

CREATE UNLOGGED TABLE rate_buckets (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    tokens double precision NOT NULL,
    taken integer NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id)
);

CREATE FUNCTION memories_added() RETURNS trigger LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO public.usage (tenant_id, memories, bytes)
        SELECT tenant_id, count(*), sum(octet_length(content)) FROM added GROUP BY tenant_id;
    RETURN NULL;
END $$;
CREATE TRIGGER memories_added AFTER INSERT ON memories
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION memories_added();

CREATE FUNCTION memories_removed() RETURNS trigger LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO public.usage (tenant_id, memories, bytes)
        SELECT tenant_id, -count(*), -sum(octet_length(content)) FROM removed GROUP BY tenant_id;
    RETURN NULL;
END $$;
CREATE TRIGGER memories_removed AFTER DELETE ON memories
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION memories_removed();

CREATE FUNCTION memories_changed() RETURNS trigger LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO public.usage (tenant_id, memories, bytes)
        SELECT tenant_id, 0, sum(size) FROM (
            SELECT tenant_id, octet_length(content) AS size FROM changed
            UNION ALL
            SELECT tenant_id, -octet_length(content) FROM before
        ) AS sizes GROUP BY tenant_id HAVING sum(size) <> 0;
    RETURN NULL;
END $$;
CREATE TRIGGER memories_changed AFTER UPDATE ON memories
    REFERENCING OLD TABLE AS before NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION memories_changed();
"""

#: What there is already. Row-level security is forced, so each tenant is counted as itself.
_COUNT = """
DO $$
DECLARE tenant record;
BEGIN
    FOR tenant IN SELECT id FROM tenants LOOP
        PERFORM set_config('app.tenant', tenant.id::text, true);
        INSERT INTO usage (tenant_id, memories, bytes)
            SELECT tenant_id, count(*), sum(octet_length(content)) FROM memories GROUP BY tenant_id;
    END LOOP;
    PERFORM set_config('app.tenant', '', true);
END $$;
"""

_DOWNGRADE = """
DROP TRIGGER memories_changed ON memories;
DROP TRIGGER memories_removed ON memories;
DROP TRIGGER memories_added ON memories;
DROP FUNCTION memories_changed();
DROP FUNCTION memories_removed();
DROP FUNCTION memories_added();
DROP TABLE rate_buckets, llm_usage, usage;
ALTER TABLE tenants DROP COLUMN limits;
"""

_GRANTS = {
    "usage": "SELECT, INSERT, DELETE",
    "llm_usage": "SELECT, INSERT, UPDATE, DELETE",
    "rate_buckets": "SELECT, INSERT, UPDATE, DELETE",
}
_TENANT = "NULLIF(current_setting('app.tenant', true), '')::uuid"


def upgrade() -> None:
    """Add the tables, their row-level security, the counting and the grants."""
    role = context.config.attributes["app_role"]
    _run(_UPGRADE)
    for table, rights in _GRANTS.items():
        op.execute(f"GRANT {rights} ON {table} TO {role}")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant_isolation ON {table}"
            f" USING (tenant_id = {_TENANT}) WITH CHECK (tenant_id = {_TENANT})"
        )
    _run(_COUNT)


def downgrade() -> None:
    """Remove what `upgrade` added."""
    _run(_DOWNGRADE)


def _run(script: str) -> None:
    """Run a script of many statements as it is."""
    connection: Any = op.get_bind().connection.dbapi_connection
    connection.execute(script)
