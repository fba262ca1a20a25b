"""Refusals that are counted, of credentials and of limits, reach the trail without another one, and before the end."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import psycopg
import pytest

from service.errors import MemvaultError, QuotaExceeded, RecordUnavailable, Unauthenticated
from service.records import Message, NewMemories, SubjectNames
from service.scope import Caller, Limit
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of, open_on

pytestmark = pytest.mark.integration

COUNTED: Final = "SELECT (detail ->> 'count')::int FROM audit WHERE event = %s ORDER BY at, seq"
KINDS: Final = ("credential:refused", "limit:reached")


def counts(database: Postgres) -> list[list[int]]:
    """How many refusals each row stands for: of credentials, and of limits."""
    with psycopg.connect(database.admin) as connection:
        return [[count for (count,) in connection.execute(COUNTED, [kind]).fetchall()] for kind in KINDS]


def full(services: Services) -> Caller:
    """A caller of a tenant that may keep nothing."""
    tenant = services.installation.tenants.create("acme").id
    services.installation.tenants.set_limits("acme", {Limit.MEMORIES: 0})
    return caller_of(services, tenant)


def be_refused(
    services: Services,
    caller: Caller,
    times: int,
    *,
    errors: tuple[type[MemvaultError], type[MemvaultError]] = (Unauthenticated, QuotaExceeded),
) -> None:
    """Show a wrong key, and reach a limit, so often."""
    new = NewMemories([Message("user", "alice keeps bees")], SubjectNames(user_id="alice"), infer=False)
    for _ in range(times):
        with pytest.raises(errors[0]):
            services.authenticator.authenticate("mv_wrong", request_id="r", client="c", face="rest")
        with pytest.raises(errors[1]):
            services.adds.add(caller, caller.scope, new)


@pytest.mark.parametrize("cache_seconds", [0, 2])
def test_what_was_counted_is_written_when_it_is_due(
    cache_seconds: float, make_services: MakeServices, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("auth.authenticator._REFUSALS_EVERY", "tenants.refusals.EVERY"):
        monkeypatch.setattr(f"service.{name}", 3.0)
    services = make_services(auth={"cache_seconds": cache_seconds})
    be_refused(services, full(services), 5)
    assert counts(database) == [[1], [1]]
    until = time.monotonic() + 15
    while counts(database) != [[1, 4], [1, 4]] and time.monotonic() < until:
        time.sleep(0.1)
    assert counts(database) == [[1, 4], [1, 4]]


def test_what_was_counted_is_written_before_the_end(database: Postgres, data_dir: Path) -> None:
    with ExitStack() as stack:
        services = open_on(database, data_dir, stack)
        be_refused(services, full(services), 5)
        assert counts(database) == [[1], [1]]
    assert counts(database) == [[1, 4], [1, 4]]


def test_what_the_trail_could_not_take_stays_counted(services: Services, database: Postgres) -> None:
    caller = full(services)
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("REVOKE INSERT ON audit FROM memvault_app")
        be_refused(services, caller, 3, errors=(RecordUnavailable, RecordUnavailable))
        connection.execute("GRANT INSERT ON audit TO memvault_app")
    be_refused(services, caller, 1)
    services.authenticator.flush(at_once=True)
    services.installation.refusals.flush(at_once=True)
    assert [sum(one) for one in counts(database)] == [4, 4]
