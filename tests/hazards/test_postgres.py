"""Hazards of Postgres, SQLAlchemy and FastAPI."""

from __future__ import annotations

import traceback

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from service.errors import RecordUnavailable
from service.scope import Caller
from service.wiring import Services
from tests.conftest import Postgres
from tests.promises.faces import Connect

pytestmark = pytest.mark.integration

CANARY = "canary-7f3b1c"


def told(error: BaseException) -> str:
    """Return all that a log could show of an error, its causes included, as our own code sees it."""
    return "".join(traceback.format_exception_only(error)) + str(error) + repr(error)


def test_errors_of_statements_hold_no_values(services: Services, caller: Caller) -> None:
    database = services.installation.database
    with (
        pytest.raises(DBAPIError) as raised,
        database.transaction(caller.scope) as connection,
    ):
        connection.execute(text("SELECT :value, no_such_column"), {"value": CANARY})
    assert "hide_parameters" in told(raised.value)
    assert CANARY not in told(raised.value)


def test_a_refusal_of_postgres_is_told_by_its_state_only(
    services: Services, caller: Caller, database: Postgres
) -> None:
    with psycopg.connect(database.admin, autocommit=True) as admin:
        admin.execute("CREATE TABLE closed (text text PRIMARY KEY)")
    with (
        pytest.raises(RecordUnavailable) as raised,
        services.installation.database.transaction(caller.scope) as connection,
    ):
        connection.execute(text("INSERT INTO closed VALUES (:value)"), {"value": CANARY})
    assert str(raised.value.__cause__) == "SQLSTATE 42501"
    assert CANARY not in told(raised.value)


def test_a_connection_comes_back_without_its_tenant_also_after_an_error(services: Services, caller: Caller) -> None:
    database = services.installation.database
    asked = text("SELECT current_setting('app.tenant', true)")
    with database.transaction(caller.scope) as connection:
        assert connection.execute(asked).scalar() == str(caller.principal.tenant_id)
    with pytest.raises(ZeroDivisionError), database.transaction(caller.scope):
        _ = 1 / 0
    with pytest.raises(DBAPIError), database.transaction(caller.scope) as connection:
        connection.execute(text("SELECT no_such_column"))
    for _ in range(30):
        with database.tenant_blind() as connection:
            assert not connection.execute(asked).scalar()


def test_a_commit_that_fails_is_not_answered_with_success(
    services: Services, connect: Connect, database: Postgres
) -> None:
    client = connect(services)
    with psycopg.connect(database.admin, autocommit=True) as admin:
        # Raised at the commit and not at the statement.
        admin.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53100'; END $$"
        )
        admin.execute(
            "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON memories DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    message = {"role": "user", "content": CANARY}
    body = {"messages": [message], "user_id": "alice", "infer": False}
    answer = client.post("/v3/memories/add/", json=body)
    assert answer.status_code == 503, answer.text
    assert CANARY not in answer.text
    assert client.post("/v3/memories/", json={"filters": {"user_id": "alice"}}).json()["count"] == 0
    found = client.post("/v3/memories/search/", json={"query": CANARY, "filters": {"user_id": "alice"}})
    assert found.json()["results"] == []
