"""A bound on the wait of writers while a legal hold is being placed: without one they keep threads and connections."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0024"
down_revision = "0023"

#: SQLSTATE 55P03 after three seconds, which is answered as 503. Whoever places a hold waits as long as it takes.
_BOUNDED: Final = """
CREATE OR REPLACE FUNCTION hold_shared() RETURNS void LANGUAGE plpgsql
AS $$
DECLARE
    key CONSTANT bigint := public.hold_lock_key();
    before text;
BEGIN
    IF key IS NULL OR pg_catalog.pg_try_advisory_xact_lock_shared(key) THEN
        RETURN;
    END IF;
    before := pg_catalog.current_setting('lock_timeout');
    PERFORM pg_catalog.set_config('lock_timeout', '3s', true);
    PERFORM pg_catalog.pg_advisory_xact_lock_shared(key);
    PERFORM pg_catalog.set_config('lock_timeout', before, true);
END $$;
"""
_UNBOUNDED: Final = """
CREATE OR REPLACE FUNCTION hold_shared() RETURNS void LANGUAGE plpgsql
AS $$ BEGIN
    IF public.hold_lock_key() IS NOT NULL THEN
        PERFORM pg_catalog.pg_advisory_xact_lock_shared(public.hold_lock_key());
    END IF;
END $$;
"""


def upgrade() -> None:
    """Bound the wait."""
    op.execute(_BOUNDED)


def downgrade() -> None:
    """Let writers wait as long as it takes."""
    op.execute(_UNBOUNDED)
