"""Which embedding model serves, and which one is being brought in beside it, the same for all processes."""

from __future__ import annotations

from alembic import context, op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Make the table. It has no tenant and no user data: `settings` is sealed, since it may hold a provider's key."""
    role = context.config.attributes["app_role"]
    op.execute(
        """
        CREATE TABLE embedding_models (
            id uuid PRIMARY KEY,
            generation integer NOT NULL UNIQUE,
            name varchar NOT NULL,
            dimensions integer NOT NULL,
            settings bytea NOT NULL,
            state varchar NOT NULL CHECK (state IN ('serving', 'filling', 'retired')),
            done bigint NOT NULL,
            total bigint NOT NULL,
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL
        )
        """
    )
    op.execute("CREATE UNIQUE INDEX embedding_models_one ON embedding_models (state) WHERE state <> 'retired'")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON embedding_models TO {role}")


def downgrade() -> None:
    """Remove the table; the index is then the one of whatever model the settings name."""
    op.execute("DROP TABLE embedding_models")
