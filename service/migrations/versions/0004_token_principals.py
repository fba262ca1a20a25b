"""Events say whether a key or an access token asked for them: a token has no row to look at again."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the kind. The constant default rewrites no row; all that is there was asked for by keys."""
    op.execute(
        "ALTER TABLE events ADD COLUMN principal_kind varchar NOT NULL DEFAULT 'key'"
        " CONSTRAINT events_principal_kind CHECK (principal_kind IN ('key', 'token'))"
    )


def downgrade() -> None:
    """Remove the kind."""
    op.execute("ALTER TABLE events DROP COLUMN principal_kind")
