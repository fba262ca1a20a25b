"""Counts what waits for a reviewer, as the limits of tenants do memories."""

from __future__ import annotations

from typing import Any

from alembic import context, op

revision = "0022"
down_revision = "0021"

#: Counted like memories (`0011_limits`), and apart from them: a release that does not know this table takes what
#: `usage` says for the memories of the record.
_UPGRADE = """
CREATE TABLE quarantine_usage (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id bigint GENERATED ALWAYS AS IDENTITY,
    memories bigint NOT NULL,
    bytes bigint NOT NULL,
    PRIMARY KEY (tenant_id, id)
);

CREATE FUNCTION quarantine_added() RETURNS trigger LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO public.quarantine_usage (tenant_id, memories, bytes)
        SELECT tenant_id, count(*), sum(octet_length(content)) FROM added GROUP BY tenant_id;
    RETURN NULL;
END $$;
CREATE TRIGGER quarantine_added AFTER INSERT ON quarantine
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION quarantine_added();

CREATE FUNCTION quarantine_removed() RETURNS trigger LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO public.quarantine_usage (tenant_id, memories, bytes)
        SELECT tenant_id, -count(*), -sum(octet_length(content)) FROM removed GROUP BY tenant_id;
    RETURN NULL;
END $$;
CREATE TRIGGER quarantine_removed AFTER DELETE ON quarantine
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION quarantine_removed();

CREATE FUNCTION quarantine_changed() RETURNS trigger LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO public.quarantine_usage (tenant_id, memories, bytes)
        SELECT tenant_id, 0, sum(size) FROM (
            SELECT tenant_id, octet_length(content) AS size FROM changed
            UNION ALL
            SELECT tenant_id, -octet_length(content) FROM before
        ) AS sizes GROUP BY tenant_id HAVING sum(size) <> 0;
    RETURN NULL;
END $$;
CREATE TRIGGER quarantine_changed AFTER UPDATE ON quarantine
    REFERENCING OLD TABLE AS before NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION quarantine_changed();
"""

#: What waits already; the triggers keep writers away until it is counted. Row-level security is forced, so each tenant
#: is counted as itself.
_COUNT = """
DO $$
DECLARE tenant record;
BEGIN
    FOR tenant IN SELECT id FROM tenants LOOP
        PERFORM set_config('app.tenant', tenant.id::text, true);
        INSERT INTO quarantine_usage (tenant_id, memories, bytes)
            SELECT tenant_id, count(*), sum(octet_length(content)) FROM quarantine GROUP BY tenant_id;
    END LOOP;
    PERFORM set_config('app.tenant', '', true);
END $$;
"""

_DOWNGRADE = """
DROP TRIGGER quarantine_changed ON quarantine;
DROP TRIGGER quarantine_removed ON quarantine;
DROP TRIGGER quarantine_added ON quarantine;
DROP FUNCTION quarantine_changed();
DROP FUNCTION quarantine_removed();
DROP FUNCTION quarantine_added();
DROP TABLE quarantine_usage;
"""
_TENANT = "NULLIF(current_setting('app.tenant', true), '')::uuid"


def upgrade() -> None:
    """Add the table behind row-level security, the counting and the grants, and count what is there."""
    role = context.config.attributes["app_role"]
    _run(_UPGRADE)
    op.execute(f"GRANT SELECT, INSERT, DELETE ON quarantine_usage TO {role}")
    op.execute("ALTER TABLE quarantine_usage ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE quarantine_usage FORCE ROW LEVEL SECURITY")
    op.execute(
        "CREATE POLICY tenant_isolation ON quarantine_usage"
        f" USING (tenant_id = {_TENANT}) WITH CHECK (tenant_id = {_TENANT})"
    )
    _run(_COUNT)


def downgrade() -> None:
    """Remove what `upgrade` added; what waits is not counted any more."""
    _run(_DOWNGRADE)


def _run(script: str) -> None:
    """Run a script of many statements as it is."""
    connection: Any = op.get_bind().connection.dbapi_connection
    connection.execute(script)
