"""The language of each tenant's memories."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Add the columns; null is the installation's language, as before."""
    op.add_column("tenants", sa.Column("language", sa.String()))
    op.add_column("tenants", sa.Column("former_language", sa.String()))
    op.add_column("tenants", sa.Column("language_changed_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    """Remove what `upgrade` added."""
    op.drop_column("tenants", "language_changed_at")
    op.drop_column("tenants", "former_language")
    op.drop_column("tenants", "language")
