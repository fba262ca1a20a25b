"""The register of erasers: how the rows of each table leave, those of a subject, of memories and of a whole tenant.

Every table with a tenant or with sealed content is declared here by the file that makes the table, else the test of the
database's catalogue fails. A new table that holds content or refers to a person says it in one call:

    declare(Eraser(FeedbackRow, subjects=("owner_id",), parents={"memory_id": "memories"}, other=("principal_id",)))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    Uuid,
    any_,
    delete,
    func,
    literal,
    or_,
    select,
    union,
)
from sqlmodel import SQLModel

from service.scope import Scope, TenantId
from service.storage.bridging import bridge

Condition = ColumnElement[bool]
_MEMORIES: Final = "memories"


@dataclass(frozen=True, slots=True)
class Eraser:
    """How the rows of one table leave.

    A row leaves with a subject that one of the columns `subjects` holds (uuid or uuid[]), and with the row that a
    column of `parents` names by its id: of another table of the register, such as `memories` or `events`. `other` are
    the remaining columns of ids, which name neither. `connectors` are columns that hold the name of a connector.

    `of_subject`, `of_connector` and `of_tenant` do what a plain delete cannot, and return how many rows they changed;
    `left` then tells which rows still refer to a subject. With `apart` the erasure itself removes the row, at its end.
    """

    row: type[SQLModel]
    subjects: tuple[str, ...] = ()
    parents: Mapping[str, str] = field(default_factory=dict)
    other: tuple[str, ...] = ()
    connectors: tuple[str, ...] = ()
    of_subject: Callable[[Connection, Scope, UUID], int] | None = None
    of_connector: Callable[[Connection, Scope, str], int] | None = None
    of_tenant: Callable[[Connection, Scope], int] | None = None
    apart: bool = False

    @property
    def table(self) -> Any:
        """The table."""
        return self.row.__table__  # type: ignore[attr-defined]

    @property
    def name(self) -> str:
        """The name of the table."""
        return str(self.table.name)


_erasers: Final[dict[str, Eraser]] = {}
_kept: Final[dict[str, str]] = {}


def declare(eraser: Eraser) -> None:
    """Enter a table into the register.

    Raises:
        TypeError: for a column that the table has not, and a table that is there already.
    """
    named = (*eraser.subjects, *eraser.parents, *eraser.other, *eraser.connectors)
    missing = [column for column in named if column not in eraser.table.c]
    if missing or eraser.name in _kept or _erasers.get(eraser.name, eraser).row is not eraser.row:
        raise TypeError(f"the eraser of {eraser.name} is declared twice or names columns that are not there: {missing}")
    _erasers[eraser.name] = eraser


def keep(row: type[SQLModel], reason: str) -> None:
    """Enter a table whose rows outlive an erasure, with the reason: it holds nothing that names or tells of a person.

    Raises:
        TypeError: for a table that is there already as one that is erased.
    """
    name = str(row.__table__.name)  # type: ignore[attr-defined]
    if name in _erasers:
        raise TypeError(f"{name} has an eraser and cannot be kept")
    _kept[name] = reason


def erasers() -> list[Eraser]:
    """Return all erasers, those of rows that refer to others first."""
    order = {table.name: place for place, table in enumerate(SQLModel.metadata.sorted_tables)}
    return sorted(_erasers.values(), key=lambda one: order[one.name], reverse=True)


def kept_tables() -> Mapping[str, str]:
    """Return the tables that outlive an erasure, each with the reason."""
    return dict(_kept)


def erase_subject(connection: Connection, scope: Scope, subject_id: UUID, *, limit: int) -> dict[str, int]:
    """Remove rows of a subject from every table, at most `limit` of each, and return how many of which.

    Memories are left to `purge_memories`, which tells the index, and the subject's own row to the end of the erasure.
    Rows by which more rows of another table are known to be the subject's stay until these are gone.
    """
    removed: dict[str, int] = {}
    needed: set[str] = set()
    for eraser in erasers():
        if eraser.apart:
            continue
        if eraser.name in needed:
            needed.update(eraser.parents.values())
        elif eraser.of_subject is not None:
            removed[eraser.name] = eraser.of_subject(connection, scope, subject_id)
        elif conditions := _of_subjects(eraser, [subject_id]):
            removed[eraser.name] = _remove(connection, eraser, conditions, limit)
            if removed[eraser.name] >= limit:
                needed.update(eraser.parents.values())
    return _counted(removed)


def erase_with_memories(
    connection: Connection, memory_ids: Sequence[UUID], *, but: Sequence[str] = ()
) -> dict[str, int]:
    """Remove what other tables hold of memories that are deleted, but for the tables named, and return how many rows.

    Part of every delete: call it in its transaction, before the memories themselves are removed, which are locked.
    """
    bridge(connection, memory_ids)
    removed = {}
    for eraser in erasers():
        columns = [column for column, parent in eraser.parents.items() if parent == _MEMORIES]
        if columns and eraser.name not in but:
            conditions = [_holds(eraser.table.c[column], memory_ids) for column in columns]
            removed[eraser.name] = _remove(connection, eraser, conditions, None)
    return _counted(removed)


def erase_connector(connection: Connection, scope: Scope, connector: str) -> dict[str, int]:
    """Remove the rows that name a connector or are its own, and return how many. Its memories are found elsewhere."""
    removed = {}
    for eraser in erasers():
        if eraser.of_connector is not None:
            removed[eraser.name] = eraser.of_connector(connection, scope, connector)
        elif eraser.connectors and not eraser.apart:
            conditions = [eraser.table.c[column] == connector for column in eraser.connectors]
            removed[eraser.name] = _remove(connection, eraser, conditions, None)
    return _counted(removed)


def erase_tenant(connection: Connection, scope: Scope, *, limit: int) -> dict[str, int]:
    """Remove rows of a tenant, at most `limit` of each table, and return how many of which: nothing once all are gone.

    Memories are left to `purge_tenant_memories`, which tells the index.
    """
    removed = {}
    for eraser in _of_tenant():
        if eraser.name != _MEMORIES:
            removed[eraser.name] = _remove(connection, eraser, [eraser.table.c.tenant_id == scope.tenant_id], limit)
    return _counted(removed)


def strip_tenant(connection: Connection, scope: Scope) -> dict[str, int]:
    """Take what names anybody out of the rows of a tenant that stay, and return how many rows."""
    found = [one for one in erasers() if one.of_tenant is not None]
    return _counted({one.name: one.of_tenant(connection, scope) for one in found if one.of_tenant is not None})


def left_of_tenant(connection: Connection, tenant_id: TenantId) -> dict[str, int]:
    """Return how many rows each table still has of a tenant whose rows should all be gone."""
    left = {}
    for eraser in _of_tenant():
        query = select(func.count()).select_from(eraser.table).where(eraser.table.c.tenant_id == tenant_id)
        left[eraser.name] = int(connection.execute(query).scalar_one())
    return _counted(left)


def undeclared(connection: Connection) -> list[str]:
    """Return the tables of the database that hold something of a tenant, or sealed values, and are not declared."""
    tables = set(connection.exec_driver_sql(_OF_TENANTS).scalars())
    return sorted(tables - _erasers.keys() - _kept.keys())


def references(connection: Connection, subject_ids: Sequence[UUID]) -> dict[str, int]:
    """Return how many rows hold one of the surrogates in any column of ids whatsoever, table by table.

    It asks the database's catalogue and not the declarations, so that it also finds what they forget. Tables that are
    kept are left out.
    """
    found: dict[str, int] = {}
    for table, column, is_list in connection.exec_driver_sql(_ID_COLUMNS).all():
        if table not in _erasers:
            continue
        # The names come from the catalogue; quoted all the same.
        condition = f'"{column}" && %(ids)s::uuid[]' if is_list else f'"{column}" = ANY(%(ids)s::uuid[])'
        query = f'SELECT count(*) FROM "{table}" WHERE {condition}'
        count = int(connection.exec_driver_sql(query, {"ids": list(subject_ids)}).scalar_one())
        found[table] = found.get(table, 0) + count
    return found


_OF_TENANTS: Final = (
    "SELECT DISTINCT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
    " WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace AND a.attnum > 0"
    " AND NOT a.attisdropped AND (a.attname = 'tenant_id' OR a.atttypid = 'bytea'::regtype)"
)
_ID_COLUMNS: Final = (
    "SELECT c.relname, a.attname, a.atttypid = 'uuid[]'::regtype"
    " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
    " WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace AND a.attnum > 0"
    " AND NOT a.attisdropped AND a.atttypid IN ('uuid'::regtype, 'uuid[]'::regtype) AND a.attname <> 'tenant_id'"
    " ORDER BY c.relname, a.attname"
)


def _of_subjects(eraser: Eraser, subject_ids: Sequence[UUID]) -> list[Condition]:
    columns = eraser.table.c
    conditions = [_holds(columns[column], subject_ids) for column in eraser.subjects]
    for column, parent_name in eraser.parents.items():
        parent = _erasers[parent_name]
        if theirs := _of_subjects(parent, subject_ids):
            conditions.append(columns[column].in_(select(parent.table.c.id).where(or_(*theirs))))
    return conditions


def _of_tenant() -> Iterator[Eraser]:
    return (one for one in erasers() if one.of_tenant is None)


def _holds(column: Any, ids: Sequence[UUID]) -> Condition:
    # One parameter, however many there are: a statement takes 65,535 of them.
    given = literal(list(ids), ARRAY(Uuid))
    condition: Condition = column.overlap(given) if isinstance(column.type, ARRAY) else column == any_(given)
    return condition


def _remove(connection: Connection, eraser: Eraser, conditions: Sequence[Condition], limit: int | None) -> int:
    table, where = eraser.table, or_(*conditions)
    key = [column for column in table.primary_key.columns if column.name != "tenant_id"]
    # Of a table without a key of its own a tenant has one row.
    if limit is None or not key:
        return int(connection.execute(delete(table).where(where)).rowcount)
    rows = connection.execute(_keys(eraser, key, conditions).limit(limit)).all()
    if not rows:
        return 0
    if len(key) == 1:
        return int(connection.execute(delete(table).where(key[0].in_([row[0] for row in rows]), where)).rowcount)
    matched = or_(*(_same(key, row) for row in rows))
    return int(connection.execute(delete(table).where(matched, where)).rowcount)


def _keys(eraser: Eraser, key: Sequence[Any], conditions: Sequence[Condition]) -> Select[Any] | CompoundSelect[Any]:
    """Return the query for the keys of the rows that meet a condition.

    Each is asked for by itself, by its index: joined by OR they would be asked of every row of the tenant. A list of
    ids is looked for in every row anyway, for row-level security keeps its operators from an index.
    """
    if any(isinstance(eraser.table.c[column].type, ARRAY) for column in eraser.subjects):
        return select(*key).where(or_(*conditions))
    return union(*(select(*key).where(one) for one in conditions))


def _same(key: Sequence[Any], row: Sequence[Any]) -> Condition:
    condition: Condition = key[0] == row[0]
    for column, value in zip(key[1:], row[1:], strict=True):
        condition = condition & (column == value)
    return condition


def _counted(removed: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in removed.items() if count}
