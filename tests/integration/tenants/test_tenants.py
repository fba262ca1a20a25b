"""Renaming tenants, and what the trail says of it and of their limits."""

from __future__ import annotations

import psycopg
import pytest

from service.cli.credentials import first_key
from service.errors import Conflict, InvalidInput, NotFound
from service.scope import Limit, TenantId
from service.wiring import Services
from tests.conftest import Postgres, principal_of

pytestmark = pytest.mark.integration


def test_a_renamed_tenant_keeps_its_id_and_its_keys(services: Services, tenant: TenantId, database: Postgres) -> None:
    tenants = services.installation.tenants
    _, secret = principal_of(services, tenant)
    renamed = tenants.rename("acme", "acme-europe")
    assert (renamed.id, renamed.name) == (tenant, "acme-europe")
    assert tenants.find("acme") is None
    assert tenants.get("acme-europe").id == tenants.get(str(tenant)).id == tenant
    principal = services.keys.find_principal(secret)
    assert principal is not None
    assert principal.tenant_id == tenant
    assert tenants.create("acme").id != tenant, "the old name is free"
    with psycopg.connect(database.admin) as connection:
        rows = connection.execute("SELECT detail FROM audit WHERE event = 'tenant:renamed'").fetchall()
    assert rows == [({},)], "the trail holds no names"


def test_a_name_that_is_taken_wrong_or_the_installation_s_own_is_refused(services: Services, tenant: TenantId) -> None:
    tenants = services.installation.tenants
    tenants.create("rival")
    tenants.create("default")
    with pytest.raises(Conflict):
        tenants.rename("acme", "rival")
    for name in ("", "Acme", "-a", str(tenant)):
        with pytest.raises(InvalidInput):
            tenants.rename("acme", name)
    with pytest.raises(InvalidInput, match="keeps its name"):
        tenants.rename("default", "other")
    with pytest.raises(NotFound):
        tenants.rename("nobody", "other")
    assert tenants.rename("acme", "acme").name == "acme"


def test_the_trail_says_which_limits_a_tenant_has(services: Services, tenant: TenantId, database: Postgres) -> None:
    services.installation.tenants.set_limits("acme", {Limit.MEMORIES: 5, Limit.BYTES: None})
    services.installation.tenants.set_limits("acme", {Limit.EVENTS_WAITING: 0}, [Limit.MEMORIES])
    with psycopg.connect(database.admin) as connection:
        rows = connection.execute("SELECT detail FROM audit WHERE event = 'tenant:limited' ORDER BY seq").fetchall()
    assert [row[0]["limits"] for row in rows] == [
        {"memories": 5, "bytes": None},
        {"bytes": None, "events_waiting": 0},
    ]


def test_two_services_that_start_on_an_empty_database_share_the_first_tenant(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one made it after this one had looked for it in vain."""
    installation = services.installation
    made = installation.tenants.create("default")
    with monkeypatch.context() as patch:
        patch.setattr(type(installation.tenants), "find", lambda self, name: None)
        kept = first_key(installation, "http://127.0.0.1:8080")
    assert kept.credentials["tenant_id"] == str(made.id)
