"""The SQL compiler on a real Postgres: against the truth table, against the evaluator, and how it asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Date,
    DateTime,
    Index,
    MetaData,
    Table,
    Uuid,
    create_engine,
    select,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY

from service.filters.ast import All, Any_, Condition, Field, Node, Not, Op
from service.filters.evaluate import matches
from service.filters.parse import parse_filter
from service.records import Memory
from service.scope import SubjectKind
from service.storage.filter_sql import compile_sql
from service.storage.tables import MemoryRow
from tests.filters.strategies import TREES, populations
from tests.filters.truth_rows import BY_ID, LOOKUP, ROWS, row_tokens, subject_id
from tests.filters.truth_table import CASES, Case
from tests.integration.filter_postgres import postgres_dsn

__all__ = ["postgres_dsn"]

pytestmark = pytest.mark.integration

TABLE = Table(
    "filtered",
    MetaData(),
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, index=True),
    Column("agent_id", Uuid),
    Column("app_id", Uuid),
    Column("run_id", Uuid),
    Column("created_at", DateTime(timezone=True), nullable=False, index=True),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("expires_on", Date),
    Column("tokens", ARRAY(BigInteger), nullable=False),
    Index("filtered_tokens", "tokens", postgresql_using="gin"),
    prefixes=["TEMPORARY"],
)


class KnowsAll:
    """A lookup for which every name but `ghost` is a subject; no row is a ghost's."""

    def subject(self, kind: SubjectKind, name: str) -> UUID | None:
        return None if name == "ghost" else subject_id(kind, name)

    def token(self, text: str) -> int:
        return LOOKUP.token(text)


@pytest.fixture(scope="module")
def connection(postgres_dsn: str) -> Iterator[Connection]:
    """A connection that is not in UTC, so that a clause which leaned on the session's zone would show."""
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(postgres_dsn), hide_parameters=True)
    with engine.connect() as opened:
        opened.execute(text("SET TIME ZONE 'Asia/Kathmandu'"))
        TABLE.create(opened)
        opened.commit()
        yield opened
    engine.dispose()


def _insert(connection: Connection, rows: list[Memory]) -> None:
    connection.execute(
        TABLE.insert(),
        [
            {
                "id": row.id,
                "created_at": row.created_at,
                "updated_at": row.updated_at,
                "expires_on": row.expires_on,
                "tokens": row_tokens(row),
                **{f"{kind}_id": None for kind in SubjectKind},
                **{f"{kind}_id": subject_id(kind, name) for kind, name in row.subjects.items()},
            }
            for row in rows
        ],
    )


@pytest.fixture(scope="module")
def table_rows(connection: Connection) -> Iterator[Connection]:
    with connection.begin() as transaction:
        _insert(connection, list(ROWS.values()))
        yield connection
        transaction.rollback()


def _found(connection: Connection, tree: Node, rows: list[Memory], lookup: Any) -> tuple[set[UUID], bool]:
    """Return the ids that the clause lets through; the clause must be true or false for every row."""
    compiled = compile_sql(tree, lookup, TABLE)
    answers = connection.execute(select(TABLE.c.id, compiled.clause.label("verdict"))).all()
    assert {row.id for row in rows} == {answer.id for answer in answers}
    assert all(isinstance(answer.verdict, bool) for answer in answers)
    return {answer.id for answer in answers if answer.verdict}, compiled.exact


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_truth_table(table_rows: Connection, case: Case) -> None:
    tree = parse_filter(case.filter)
    found, exact = _found(table_rows, tree, list(ROWS.values()), LOOKUP)
    assert found >= case.expected
    if exact:
        assert {BY_ID[one] for one in found} == case.names
    else:
        assert {BY_ID[one] for one in found if matches(tree, ROWS[BY_ID[one]])} == case.names


def test_exact_is_what_the_database_can_see() -> None:
    def exact(raw: Any) -> bool:
        return compile_sql(parse_filter(raw), LOOKUP, TABLE).exact

    assert exact({"user_id": "alice", "NOT": {"metadata": {"a": {"b": {"in": [1, None]}}}}, "categories": ["x"]})
    assert exact({"created_at": "2024-05-01", "actor_id": "*", "expiration_date": None, "memory_ids": []})
    for raw in (
        {"text": "a"},
        {"keywords": "a"},
        {"metadata": {"a": {"gt": 1}}},
        {"metadata": {"a": {"contains": "b"}}},
    ):
        assert not exact(raw)
        assert not exact({"OR": [{"user_id": "alice"}, {"NOT": raw}]})


def test_a_range_reads_only_rows_that_set_the_path(table_rows: Connection) -> None:
    tree = parse_filter({"metadata": {"flag": {"gt": 100}}})
    found, _ = _found(table_rows, tree, list(ROWS.values()), LOOKUP)
    assert {BY_ID[one] for one in found} == {"app_only", "agent_only", "run_only", "nobody"}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES, rows=populations())
def test_random_trees_on_random_rows(connection: Connection, tree: Node, rows: list[Memory]) -> None:
    expected = {row.id for row in rows if matches(tree, row)}
    nested = connection.begin_nested() if connection.in_transaction() else connection.begin()
    try:
        connection.execute(TABLE.delete())
        _insert(connection, rows)
        found, exact = _found(connection, tree, rows, KnowsAll())
    finally:
        nested.rollback()
    assert found >= expected
    if exact:
        assert found == expected


def _plan(connection: Connection, tree: Node) -> str:
    """Return the plan of a query that may not scan the whole table."""
    query = select(TABLE.c.id).where(compile_sql(tree, LOOKUP, TABLE).clause)
    compiled = query.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})
    connection.execute(text("SET LOCAL enable_seqscan = off"))
    return "\n".join(connection.exec_driver_sql(f"EXPLAIN {compiled}".replace("%", "%%")).scalars())


@pytest.mark.parametrize(
    ("raw", "index"),
    [
        ({"metadata": {"source": "slack"}}, "filtered_tokens"),
        ({"metadata": {"source": ["slack", "email"]}}, "filtered_tokens"),
        ({"metadata": {"source": {"contains": "sla"}}}, "filtered_tokens"),
        ({"categories": "food"}, "filtered_tokens"),
        ({"user_id": "alice"}, "ix_filtered_user_id"),
        ({"user_id": ["alice", "bob"]}, "ix_filtered_user_id"),
        ({"created_at": {"gte": "2024-05-01"}}, "ix_filtered_created_at"),
        ({"memory_ids": [str(one) for one in BY_ID]}, "filtered_pkey"),
    ],
)
def test_conditions_can_use_an_index(table_rows: Connection, raw: Any, index: str) -> None:
    plan = _plan(table_rows, parse_filter(raw))
    assert index in plan
    assert "Index Cond" in plan


def test_values_travel_as_parameters_only() -> None:
    canary = "canary'7f3"
    tree = parse_filter(
        {
            "user_id": canary,
            "actor_id": canary,
            "text": canary,
            "categories": canary,
            "metadata": {canary: canary},
            "created_at": "2024-05-31",
            "expiration_date": "2024-05-31",
        }
    )
    statement = str(
        select(TABLE.c.id).where(compile_sql(tree, KnowsAll(), TABLE).clause).compile(dialect=postgresql.dialect())
    )
    assert "canary" not in statement
    assert "2024" not in statement
    assert str(subject_id(SubjectKind.USER, canary)) not in statement


def test_empty_trees(table_rows: Connection) -> None:
    every = set(BY_ID)
    assert _found(table_rows, All(), list(ROWS.values()), LOOKUP) == (every, True)
    assert _found(table_rows, Any_(), list(ROWS.values()), LOOKUP) == (set(), True)
    assert _found(table_rows, Not(Any_()), list(ROWS.values()), LOOKUP) == (every, True)
    assert _found(table_rows, Not(Condition(Field.TEXT, Op.CONTAINS, "")), list(ROWS.values()), LOOKUP) == (
        every,
        False,
    )


def test_the_record_has_the_columns() -> None:
    columns = MemoryRow.__table__.c  # type: ignore[attr-defined]
    for column in TABLE.c:
        same = columns[column.name]
        assert same.type.python_type is column.type.python_type, column.name
        assert not (same.nullable and not column.nullable), column.name
