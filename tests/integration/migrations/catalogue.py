"""What a schema consists of, as the database's own catalogue describes it, without the order of columns."""

from __future__ import annotations

from typing import Final

from tests.integration.migrations.filling import Connection

_PARTS: Final = {
    "columns": "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns"
    " WHERE table_schema = 'public'",
    "constraints": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace AND contype <> 'n'",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "triggers": "SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
    "functions": "SELECT proname, pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
    " AND prokind = 'f'",
    "policies": "SELECT tablename, policyname, qual, with_check FROM pg_policies",
    "security": "SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class"
    " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
    "grants": "SELECT table_name, grantee, privilege_type FROM information_schema.role_table_grants"
    " WHERE table_schema = 'public'",
    "statistics": "SELECT attrelid::regclass::text, attname, attstattarget FROM pg_attribute JOIN pg_class c"
    " ON c.oid = attrelid WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND attstattarget >= 0"
    " AND NOT attisdropped",
}


def describe(admin: Connection) -> set[tuple[str, ...]]:
    """Return all parts of the schema."""
    return {(part, *map(str, row)) for part, query in _PARTS.items() for row in admin.execute(query)}
