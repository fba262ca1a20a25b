"""Legal holds: their members, their release by another person, triggers that keep what is held; owners of keys."""

from __future__ import annotations

from typing import Any

from alembic import context, op

revision = "0010"
down_revision = "0009"

_TABLES = """
-- Who a key belongs to: without that, nobody could tell that two keys are of two people.
ALTER TABLE api_keys
    ADD COLUMN owner_id uuid,
    ADD COLUMN owner bytea;

CREATE TABLE holds (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    name varchar NOT NULL,
    subject_ids uuid[] CHECK (cardinality(subject_ids) > 0),
    filter bytea,
    reason bytea NOT NULL,
    placed_by uuid NOT NULL,
    placed_kind varchar NOT NULL CHECK (placed_kind IN ('key', 'token')),
    placed_person uuid NOT NULL,
    placed_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT holds_name UNIQUE (tenant_id, name)
);

CREATE TABLE hold_members (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    hold_id uuid NOT NULL,
    memory_id uuid NOT NULL,
    joined_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, hold_id, memory_id),
    FOREIGN KEY (tenant_id, hold_id) REFERENCES holds (tenant_id, id)
);
CREATE INDEX hold_members_by_memory ON hold_members (tenant_id, memory_id);

CREATE TABLE hold_releases (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    hold_id uuid NOT NULL,
    reason bytea NOT NULL,
    released_by uuid NOT NULL,
    released_kind varchar NOT NULL CHECK (released_kind IN ('key', 'token')),
    released_person uuid NOT NULL,
    released_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, hold_id),
    FOREIGN KEY (tenant_id, hold_id) REFERENCES holds (tenant_id, id)
);
"""

#: Who writes memories shares a lock of its tenant, who places a hold has it alone: no memory is written, changed or
#: deleted between the look at what a hold covers and its commit. Row triggers are VOLATILE, so what they read is what
#: is committed by the time they run, which is after the lock.
_LOCKS = """
CREATE FUNCTION hold_lock_key() RETURNS bigint LANGUAGE sql STABLE
AS $$ SELECT pg_catalog.hashtextextended('memvault.holds/' || pg_catalog.current_setting('app.tenant', true), 0) $$;
CREATE FUNCTION hold_shared() RETURNS void LANGUAGE plpgsql
AS $$ BEGIN
    IF public.hold_lock_key() IS NOT NULL THEN
        PERFORM pg_catalog.pg_advisory_xact_lock_shared(public.hold_lock_key());
    END IF;
END $$;
CREATE FUNCTION hold_exclusive() RETURNS void LANGUAGE plpgsql
AS $$ BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(public.hold_lock_key()); END $$;
CREATE FUNCTION hold_wait() RETURNS trigger LANGUAGE plpgsql
AS $$ BEGIN PERFORM public.hold_shared(); RETURN NULL; END $$;
CREATE TRIGGER hold_wait BEFORE INSERT OR UPDATE OR DELETE ON memories
    FOR EACH STATEMENT EXECUTE FUNCTION hold_wait();
CREATE TRIGGER hold_wait BEFORE UPDATE OR DELETE ON history
    FOR EACH STATEMENT EXECUTE FUNCTION hold_wait();
"""

#: SQLSTATE MH409 is answered as 409 with the name of the hold, which is the whole message. What an index needs may be
#: made anew (vectors, filter tokens, the digest that finds twins); everything else of a held memory stays, columns that
#: later releases add included.
_KEEPING = """
CREATE FUNCTION hold_on(p_tenant uuid, p_memory uuid, p_subjects uuid[]) RETURNS varchar LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    RETURN (
        SELECT h.name FROM public.holds h
        WHERE h.tenant_id = p_tenant
            AND (
                EXISTS (
                    SELECT 1 FROM public.hold_members m
                    WHERE m.tenant_id = h.tenant_id AND m.hold_id = h.id AND m.memory_id = p_memory
                )
                OR h.subject_ids <@ p_subjects
            )
            AND NOT EXISTS (
                SELECT 1 FROM public.hold_releases r WHERE r.tenant_id = h.tenant_id AND r.hold_id = h.id
            )
        ORDER BY h.name LIMIT 1
    );
END $$;
CREATE FUNCTION hold_memory() RETURNS trigger LANGUAGE plpgsql
AS $$
DECLARE
    held varchar;
    remade CONSTANT text[] := ARRAY['vector', 'embedder', 'tokens', 'identity_mac'];
BEGIN
    held := public.hold_on(OLD.tenant_id, OLD.id, ARRAY[OLD.user_id, OLD.agent_id, OLD.app_id, OLD.run_id]);
    IF held IS NULL THEN
        RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
    END IF;
    IF TG_OP = 'UPDATE' AND to_jsonb(OLD) - remade = to_jsonb(NEW) - remade THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '%', held USING ERRCODE = 'MH409';
END $$;
CREATE TRIGGER hold_memory BEFORE UPDATE OR DELETE ON memories FOR EACH ROW EXECUTE FUNCTION hold_memory();

CREATE FUNCTION hold_history() RETURNS trigger LANGUAGE plpgsql
AS $$
DECLARE held varchar;
BEGIN
    held := public.hold_on(OLD.tenant_id, OLD.memory_id, ARRAY[OLD.user_id, OLD.agent_id, OLD.app_id, OLD.run_id]);
    IF held IS NOT NULL THEN
        RAISE EXCEPTION '%', held USING ERRCODE = 'MH409';
    END IF;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TRIGGER hold_history BEFORE UPDATE OR DELETE ON history FOR EACH ROW EXECUTE FUNCTION hold_history();
"""

#: SQLSTATE MH403 is answered as 403. The database looks up for itself whose keys these are, so that a release that is
#: written by hand needs a second person's live key as well.
_PEOPLE = """
CREATE FUNCTION key_lineage(p_tenant uuid, p_key uuid) RETURNS uuid[] LANGUAGE sql STABLE
AS $$
    WITH RECURSIVE lineage(id) AS (
        SELECT p_key
        UNION
        SELECT k.created_by FROM lineage l
            JOIN public.api_keys k ON k.tenant_id = p_tenant AND k.id = l.id
            WHERE k.created_by IS NOT NULL
    )
    SELECT pg_catalog.array_agg(id) FROM lineage
$$;
CREATE FUNCTION hold_by_person(
    p_tenant uuid, p_principal uuid, p_kind varchar, p_person uuid, p_permission text
) RETURNS boolean LANGUAGE sql STABLE
AS $$
    SELECT p_kind = 'token' OR EXISTS (
        SELECT 1 FROM public.api_keys k
        WHERE k.tenant_id = p_tenant AND k.id = p_principal AND k.owner_id = p_person AND k.revoked_at IS NULL
            AND p_permission = ANY (k.permissions)
    )
$$;
-- What is done again in a restored database, which may not know the key yet that did it first.
CREATE FUNCTION hold_in_journal(p_tenant uuid, p_hold uuid, p_kind varchar) RETURNS boolean LANGUAGE sql STABLE
AS $$
    SELECT EXISTS (
        SELECT 1 FROM public.tombstones t WHERE t.tenant_id = p_tenant AND t.kind = p_kind AND t.ids[1] = p_hold
    )
$$;
CREATE FUNCTION hold_placed() RETURNS trigger LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT public.hold_by_person(NEW.tenant_id, NEW.placed_by, NEW.placed_kind, NEW.placed_person, 'hold:place')
        AND NOT public.hold_in_journal(NEW.tenant_id, NEW.id, 'hold:placed')
    THEN
        RAISE EXCEPTION 'a hold is placed by a known person' USING ERRCODE = 'MH403';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER hold_placed BEFORE INSERT ON holds FOR EACH ROW EXECUTE FUNCTION hold_placed();

CREATE FUNCTION hold_released() RETURNS trigger LANGUAGE plpgsql
AS $$
DECLARE hold public.holds;
BEGIN
    SELECT * INTO STRICT hold FROM public.holds WHERE tenant_id = NEW.tenant_id AND id = NEW.hold_id;
    IF NOT (
        public.hold_by_person(
            NEW.tenant_id, NEW.released_by, NEW.released_kind, NEW.released_person, 'hold:release'
        )
        OR public.hold_in_journal(NEW.tenant_id, NEW.hold_id, 'hold:released')
    ) OR NEW.released_person = hold.placed_person
        OR hold.placed_by = ANY (public.key_lineage(NEW.tenant_id, NEW.released_by))
        OR NEW.released_by = ANY (public.key_lineage(NEW.tenant_id, hold.placed_by))
    THEN
        RAISE EXCEPTION 'a hold is released by another person than the one who placed it' USING ERRCODE = 'MH403';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER hold_released BEFORE INSERT ON hold_releases FOR EACH ROW EXECUTE FUNCTION hold_released();

CREATE FUNCTION key_origin() RETURNS trigger LANGUAGE plpgsql
AS $$
BEGIN
    RAISE EXCEPTION 'who owns a key and who made it does not change' USING ERRCODE = 'MH403';
END $$;
CREATE TRIGGER key_origin BEFORE UPDATE ON api_keys FOR EACH ROW
    WHEN (OLD.owner_id IS DISTINCT FROM NEW.owner_id OR OLD.created_by IS DISTINCT FROM NEW.created_by)
    EXECUTE FUNCTION key_origin();
"""

_NEW: tuple[str, ...] = ("holds", "hold_members", "hold_releases")
_TENANT = "NULLIF(current_setting('app.tenant', true), '')::uuid"


def upgrade() -> None:
    """Add the tables, their row-level security and the triggers. The application role may add rows and change none."""
    role = context.config.attributes["app_role"]
    for script in (_TABLES, _LOCKS, _KEEPING, _PEOPLE):
        _run(script)
    for table in _NEW:
        op.execute(f"GRANT SELECT, INSERT ON {table} TO {role}")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant_isolation ON {table}"
            f" USING (tenant_id = {_TENANT}) WITH CHECK (tenant_id = {_TENANT})"
        )


def downgrade() -> None:
    """Remove what `upgrade` added."""
    _run(
        """
        DROP TRIGGER key_origin ON api_keys;
        DROP TRIGGER hold_history ON history;
        DROP TRIGGER hold_wait ON history;
        DROP TRIGGER hold_memory ON memories;
        DROP TRIGGER hold_wait ON memories;
        DROP TABLE hold_releases, hold_members, holds;
        DROP FUNCTION key_origin(), hold_released(), hold_placed(), hold_history(), hold_memory(), hold_wait(),
            hold_exclusive(), hold_shared(), hold_lock_key();
        DROP FUNCTION hold_on(uuid, uuid, uuid[]);
        DROP FUNCTION hold_by_person(uuid, uuid, varchar, uuid, text);
        DROP FUNCTION hold_in_journal(uuid, uuid, varchar);
        DROP FUNCTION key_lineage(uuid, uuid);
        ALTER TABLE api_keys DROP COLUMN owner, DROP COLUMN owner_id;
        """
    )


def _run(script: str) -> None:
    """Run a script of many statements as it is: no bind parameters, so that `:` and `%` in it stay what they are."""
    connection: Any = op.get_bind().connection.dbapi_connection
    connection.execute(script)
