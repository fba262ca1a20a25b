"""What is exported and imported in parts ends with the credential that asked for it, and the trail says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import psycopg
import pytest

from service import clock
from service.audit import reading as reading_module
from service.audit.details import ExportFormat
from service.audit.moves import ImportSource
from service.audit.selection import Selection
from service.errors import Forbidden, InvalidToken, MemvaultError, Unauthenticated
from service.portability import exports as exports_module
from service.portability import imports as imports_module
from service.portability.exports import Wanted
from service.portability.lines import read_lines
from service.portability.records import Placed
from service.records import SubjectNames
from service.scope import Action, Caller, Permission, PrincipalKind, TenantId, installation_caller
from service.wiring import Services
from tests.conftest import Postgres, caller_of
from tests.integration.memories.adding import add

pytestmark = pytest.mark.integration

End = Callable[[Services, Postgres, Caller], object]
#: What ends a credential, and how it is told.
ENDS: dict[str, tuple[End, type[MemvaultError], str]] = {
    "revoked": (
        lambda services, _, caller: services.installation.keys.revoke_for_installation(
            caller.principal.tenant_id, caller.principal.id
        ),
        Unauthenticated,
        "revoked",
    ),
    "expired": (
        lambda services, database, caller: _expire(database, caller),
        Unauthenticated,
        "revoked",
    ),
    "suspended": (
        lambda services, _, caller: services.installation.tenants.suspend("acme"),
        Unauthenticated,
        "revoked",
    ),
    "permission": (
        lambda services, _, caller: services.installation.key_changes.change_for_installation(
            caller.principal.tenant_id, caller.principal.id, frozenset({Permission.MEMORY_READ})
        ),
        Forbidden,
        "permission",
    ),
}


@pytest.fixture(autouse=True)
def short_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many transactions for few rows."""
    monkeypatch.setattr(exports_module, "_BATCH", 1)
    monkeypatch.setattr(reading_module, "_EXPORT_BATCH", 1)


@pytest.fixture
def told(services: Services, caller: Caller) -> Caller:
    """A caller whose tenant has memories."""
    add(services, caller, "tea", "coffee", "rain")
    return caller


def _expire(database: Postgres, caller: Caller) -> None:
    with psycopg.connect(database.admin) as connection:
        connection.execute("UPDATE api_keys SET expires_at = now() WHERE id = %s", [caller.principal.id])


def _trail(database: Postgres) -> list[tuple[Any, ...]]:
    with psycopg.connect(database.admin) as connection:
        return connection.execute("SELECT event, outcome, detail FROM audit ORDER BY seq").fetchall()


def _memories(services: Services, caller: Caller) -> Iterator[object]:
    for batch in services.exports.read(caller, caller.scope, Wanted(SubjectNames(user_id="alice"))):
        assert not any(orjson.loads(line)["type"] == "end" for line in batch.lines)
        yield batch


def _audit(services: Services, caller: Caller) -> Iterator[object]:
    return services.installation.reading.export(caller, caller.scope, Selection(), ExportFormat.JSONL)


@pytest.mark.parametrize("export", [_memories, _audit])
@pytest.mark.parametrize("end", ENDS)
def test_an_export_ends_with_its_credential(
    services: Services,
    database: Postgres,
    told: Caller,
    end: str,
    export: Callable[[Services, Caller], Iterator[object]],
) -> None:
    ends, error, reason = ENDS[end]
    parts = export(services, told)
    next(parts)
    next(parts)
    ends(services, database, told)
    known = len(_trail(database))
    with pytest.raises(error):
        next(parts)
    assert next(parts, None) is None
    (row,) = [row for row in _trail(database)[known:] if row[0] != "audit:read"]
    action = Action.READ_EXPORT if export is _memories else Action.EXPORT_AUDIT
    assert row[:2] == ("access:denied", "refused")
    assert (row[2]["action"], row[2]["reason"]) == (action.value, reason)


def test_an_export_ends_with_its_token(services: Services, told: Caller) -> None:
    token = replace(told.principal, kind=PrincipalKind.TOKEN, id=clock.new_id(), expires_at=clock.now())
    # Within the leeway of the issuer's clock, as where it is presented.
    late = replace(told, principal=token)
    assert len(list(services.exports.read(late, late.scope, Wanted()))) > 3
    leeway = timedelta(seconds=services.settings.auth.oidc.leeway)
    over = replace(told, principal=replace(token, expires_at=clock.now() - leeway))
    with pytest.raises(InvalidToken, match="expired"):
        next(services.exports.read(over, over.scope, Wanted()))


def test_an_import_ends_with_its_credential(
    services: Services, told: Caller, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports_module, "_BATCH", 1)
    rival = caller_of(services, services.installation.tenants.create("rival").id)
    batches = services.exports.read(told, told.scope, Wanted(SubjectNames(user_id="alice")))
    lines = [line for batch in batches for line in batch.lines if orjson.loads(line)["type"] == "memory"]
    readings = 0

    def source() -> Iterator[Placed]:
        nonlocal readings
        readings += 1
        for number, line in enumerate(lines, 1):
            if (readings, number) == (2, 3):
                services.installation.keys.revoke_for_installation(rival.principal.tenant_id, rival.principal.id)
            yield from read_lines([(f"line {number}", line)])

    with pytest.raises(Unauthenticated):
        services.imports.run(rival, rival.scope, source, origin=ImportSource.EXPORT)
    event, _, detail = _trail(database)[-1]
    assert (event, detail["action"], detail["reason"]) == ("access:denied", Action.IMPORT_MEMORIES.value, "revoked")
    with psycopg.connect(database.admin) as connection:
        count = "SELECT count(*) FROM memories WHERE tenant_id = %s"
        assert connection.execute(count, [rival.principal.tenant_id]).fetchone() == (2,)


def test_the_operator_exports_a_tenant_that_is_suspended(services: Services, tenant: TenantId, told: Caller) -> None:
    operator = installation_caller(tenant, frozenset({Permission.MEMORY_EXPORT}))
    batches = services.exports.read(operator, operator.scope, Wanted())
    next(batches)
    services.installation.tenants.suspend("acme")
    assert orjson.loads([*batches][-1].lines[-1])["type"] == "end"


def test_what_another_key_exports_goes_on(services: Services, tenant: TenantId, told: Caller) -> None:
    other = caller_of(services, tenant)
    batches = services.exports.read(other, other.scope, Wanted())
    next(batches)
    services.installation.keys.revoke_for_installation(tenant, told.principal.id)
    assert orjson.loads([*batches][-1].lines[-1])["type"] == "end"
