"""Keys are rotated, changed, valid from a moment on, and a system agent's; replicas hear of changes to credentials."""

from __future__ import annotations

from typing import Any

from alembic import op

revision = "0006"
down_revision = "0005"

#: The version of a tenant's credentials grows with whatever makes a checked credential worth another look: its name,
#: its status, a key that was changed or is gone, a user that a key is bound to and that was erased. In the database, so
#: that no way of changing these can forget it. The time of the last use is no change.
_UPGRADE = """
ALTER TABLE api_keys
    ADD COLUMN not_before timestamptz,
    ADD COLUMN must_name_user boolean NOT NULL DEFAULT false,
    ADD COLUMN replaced_by uuid;
ALTER TABLE events ADD COLUMN acting_id uuid;
ALTER TABLE tenants ADD COLUMN version bigint NOT NULL DEFAULT 0;

CREATE FUNCTION tenant_changed() RETURNS trigger LANGUAGE plpgsql
AS $$
BEGIN
    NEW.version := greatest(NEW.version, OLD.version + 1);
    RETURN NEW;
END $$;
CREATE TRIGGER tenant_changed BEFORE UPDATE ON tenants FOR EACH ROW EXECUTE FUNCTION tenant_changed();

CREATE FUNCTION key_changed() RETURNS trigger LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE public.tenants SET version = version + 1 WHERE id = OLD.tenant_id;
    RETURN NULL;
END $$;
CREATE TRIGGER key_changed AFTER UPDATE ON api_keys FOR EACH ROW
    WHEN (
        (OLD.permissions, OLD.user_ids, OLD.connector, OLD.not_before, OLD.expires_at, OLD.revoked_at,
         OLD.must_name_user)
        IS DISTINCT FROM
        (NEW.permissions, NEW.user_ids, NEW.connector, NEW.not_before, NEW.expires_at, NEW.revoked_at,
         NEW.must_name_user)
    )
    EXECUTE FUNCTION key_changed();
CREATE TRIGGER key_removed AFTER DELETE ON api_keys FOR EACH ROW EXECUTE FUNCTION key_changed();

CREATE FUNCTION bound_user_removed() RETURNS trigger LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE public.tenants SET version = version + 1 WHERE id = OLD.tenant_id AND EXISTS (
        SELECT 1 FROM public.api_keys k WHERE k.tenant_id = OLD.tenant_id AND OLD.id = ANY (k.user_ids)
    );
    RETURN NULL;
END $$;
CREATE TRIGGER bound_user_removed AFTER DELETE ON subjects FOR EACH ROW WHEN (OLD.kind = 'user')
    EXECUTE FUNCTION bound_user_removed();
"""

_DOWNGRADE = """
DROP TRIGGER bound_user_removed ON subjects;
DROP TRIGGER key_removed ON api_keys;
DROP TRIGGER key_changed ON api_keys;
DROP TRIGGER tenant_changed ON tenants;
DROP FUNCTION bound_user_removed();
DROP FUNCTION key_changed();
DROP FUNCTION tenant_changed();
ALTER TABLE tenants DROP COLUMN version;
ALTER TABLE events DROP COLUMN acting_id;
ALTER TABLE api_keys DROP COLUMN replaced_by, DROP COLUMN must_name_user, DROP COLUMN not_before;
"""


def upgrade() -> None:
    """Add the columns and the triggers. The constant defaults rewrite no row."""
    _run(_UPGRADE)


def downgrade() -> None:
    """Remove what `upgrade` added."""
    _run(_DOWNGRADE)


def _run(script: str) -> None:
    """Run a script of many statements as it is."""
    connection: Any = op.get_bind().connection.dbapi_connection
    connection.execute(script)
