"""The schema of the record, by Alembic."""
