"""Holds on very many memories: who places one may take back what was deleted while it was being looked for."""

from __future__ import annotations

from typing import Final

from alembic import context, op

revision = "0025"
down_revision = "0024"

#: Runs with the owner's rights: who places a hold makes its members before the lock, and takes back those that were
#: deleted until then. Of a hold that another transaction placed, nobody takes any.
_TAKE_BACK: Final = """
CREATE FUNCTION hold_take_back(p_hold uuid, p_memories uuid[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public
AS $$ BEGIN
    DELETE FROM public.hold_members m USING public.holds h
    WHERE h.id = p_hold AND h.tenant_id = m.tenant_id AND h.id = m.hold_id AND m.memory_id = ANY (p_memories)
        AND h.xmin = pg_catalog.pg_current_xact_id()::pg_catalog.xid;
END $$"""


def upgrade() -> None:
    """Add the function."""
    op.execute(_TAKE_BACK)
    op.execute("REVOKE ALL ON FUNCTION hold_take_back(uuid, uuid[]) FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION hold_take_back(uuid, uuid[]) TO {context.config.attributes['app_role']}")


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP FUNCTION hold_take_back(uuid, uuid[])")
