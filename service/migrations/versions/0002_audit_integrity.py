"""The audit trail can be sealed: rows in a fixed order, seals and signed checkpoints, and dropping only what is old."""

from __future__ import annotations

from typing import Any

from alembic import context, op

revision = "0002"
down_revision = "0001"

_UPGRADE = """
ALTER TABLE audit
    ADD COLUMN acting_subject_id uuid,
    ADD COLUMN permissions text[] NOT NULL DEFAULT '{}',
    ADD COLUMN purpose varchar,
    ADD COLUMN value_mac bytea,
    ADD COLUMN xid bigint NOT NULL DEFAULT 0;
ALTER TABLE audit ALTER COLUMN xid DROP DEFAULT;
CREATE INDEX audit_in_order ON audit (tenant_id, xid, seq);

CREATE TABLE audit_due (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid NOT NULL,
    xid bigint NOT NULL
);
-- A queue: its statistics are of no use, and its dead rows must not pile up under the next reader.
ALTER TABLE audit_due SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE TABLE audit_checkpoints (
    number bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    body varchar NOT NULL,
    signatures jsonb NOT NULL
);

CREATE TABLE audit_seals (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    number bigint NOT NULL,
    ordinal bigint NOT NULL,
    first bigint NOT NULL,
    size bigint NOT NULL,
    root bytea NOT NULL,
    frontier bytea NOT NULL,
    last_xid bigint NOT NULL,
    last_seq bigint NOT NULL,
    rows bytea NOT NULL,
    PRIMARY KEY (tenant_id, number)
);
CREATE INDEX audit_seals_by_number ON audit_seals (number, ordinal);
-- Hashes do not compress.
ALTER TABLE audit_seals ALTER COLUMN rows SET STORAGE EXTERNAL;

CREATE TABLE audit_deliveries (
    sink varchar PRIMARY KEY,
    number bigint NOT NULL,
    at timestamptz NOT NULL
);

CREATE TABLE audit_drops (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    size bigint NOT NULL,
    last_xid bigint NOT NULL,
    last_seq bigint NOT NULL,
    frontier bytea NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, size)
);
"""

#: The trail's order is (xid, seq). A restore by dump begins a new transaction counter: `memvault audit restored`
#: replaces this function by one that adds what keeps the order growing.
_ORDER = """
CREATE FUNCTION audit_order(xid8) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
AS $$ SELECT $1::text::bigint + 0 $$;
"""

#: The database says which transaction a row belongs to, whatever the writer claims, and notes that its tenant has
#: something to seal.
_STAMP = """
CREATE FUNCTION audit_stamp() RETURNS trigger LANGUAGE plpgsql
AS $$
BEGIN
    NEW.xid := public.audit_order(pg_catalog.pg_current_xact_id());
    INSERT INTO public.audit_due (tenant_id, xid) VALUES (NEW.tenant_id, NEW.xid);
    RETURN NEW;
END $$;
CREATE TRIGGER audit_stamp BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION audit_stamp();
"""

#: Runs with the owner's rights, so that the maintenance role can drop old parts and delete nothing else. The floor of
#: six months stands here too, since a setting can be changed.
_DROP = """
CREATE FUNCTION audit_drop(
    p_tenant uuid, p_size bigint, p_xid bigint, p_seq bigint, p_frontier bytea, p_keep_days integer
) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public
AS $$
DECLARE dropped bigint;
BEGIN
    IF p_keep_days < 183 THEN
        RAISE EXCEPTION 'the audit trail is kept for 183 days at least' USING ERRCODE = 'check_violation';
    END IF;
    PERFORM set_config('app.tenant', p_tenant::text, true);
    IF EXISTS (
        SELECT 1 FROM audit WHERE tenant_id = p_tenant AND (xid, seq) <= (p_xid, p_seq)
            AND at > now() - make_interval(days => p_keep_days)
    ) THEN
        RAISE EXCEPTION 'rows of the audit trail are younger than % days', p_keep_days
            USING ERRCODE = 'check_violation';
    END IF;
    DELETE FROM audit WHERE tenant_id = p_tenant AND (xid, seq) <= (p_xid, p_seq);
    GET DIAGNOSTICS dropped = ROW_COUNT;
    INSERT INTO audit_drops (tenant_id, size, last_xid, last_seq, frontier, at)
        VALUES (p_tenant, p_size, p_xid, p_seq, p_frontier, now());
    PERFORM set_config('app.tenant', '', true);
    RETURN dropped;
END $$;
REVOKE ALL ON FUNCTION audit_drop(uuid, bigint, bigint, bigint, bytea, integer) FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'memvault_maintenance') THEN
        GRANT USAGE ON SCHEMA public TO memvault_maintenance;
        GRANT EXECUTE ON FUNCTION audit_drop(uuid, bigint, bigint, bigint, bytea, integer) TO memvault_maintenance;
    END IF;
END $$;
"""

#: What the application role may do. None of these holds user data and all are read across tenants by the sealer, so
#: they have no row-level security.
_GRANTS = {
    "audit_due": "SELECT, INSERT, DELETE",
    "audit_checkpoints": "SELECT, INSERT",
    "audit_seals": "SELECT, INSERT",
    "audit_deliveries": "SELECT, INSERT, UPDATE",
    "audit_drops": "SELECT",
}


def upgrade() -> None:
    """Add the columns, tables and functions, and grant."""
    role = context.config.attributes["app_role"]
    for script in (_UPGRADE, _ORDER, _STAMP, _DROP):
        _run(script)
    for table, rights in _GRANTS.items():
        op.execute(f"GRANT {rights} ON {table} TO {role}")


def downgrade() -> None:
    """Remove what `upgrade` added."""
    _run(
        """
        DROP TRIGGER audit_stamp ON audit;
        DROP FUNCTION audit_stamp();
        DROP FUNCTION audit_drop(uuid, bigint, bigint, bigint, bytea, integer);
        DROP FUNCTION audit_order(xid8);
        DROP TABLE audit_drops, audit_deliveries, audit_seals, audit_checkpoints, audit_due;
        DROP INDEX audit_in_order;
        ALTER TABLE audit DROP COLUMN xid, DROP COLUMN value_mac, DROP COLUMN purpose, DROP COLUMN permissions,
            DROP COLUMN acting_subject_id;
        """
    )


def _run(script: str) -> None:
    """Run a script of many statements as it is: no bind parameters, so that `:` and `%` in it stay what they are."""
    connection: Any = op.get_bind().connection.dbapi_connection
    connection.execute(script)
