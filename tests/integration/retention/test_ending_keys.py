"""Keys that are made while what they hang on is removed end with it, and the journal says so."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from service.auth import keys as keys_module
from service.auth.keys import Grant
from service.policy.table import ROLES
from service.scope import Caller, Permission
from service.storage.tombstones import TombstoneKind
from service.wiring import Services
from tests.conftest import Postgres

pytestmark = pytest.mark.integration

_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def test_a_key_that_is_made_while_its_connector_is_removed_ends_too(
    services: Services, caller: Caller, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, tenant_id = services.installation.keys, caller.principal.tenant_id
    managing = Grant(ROLES["agent"] | {Permission.KEY_MANAGE}, connector="crm")
    principal = keys.find_principal(keys.mint_for_installation(tenant_id, managing).secret)
    assert principal is not None
    through = Caller(principal, request_id="test")
    made, go_on = threading.Event(), threading.Event()
    insert = keys_module.Keys.insert

    def slow(*given: Any, **named: Any) -> Any:
        minted = insert(*given, **named)
        made.set()
        assert go_on.wait(60)
        return minted

    monkeypatch.setattr(keys_module.Keys, "insert", slow)
    erasure = services.erasures.remove_connector(caller, caller.scope, "crm")
    with ThreadPoolExecutor() as threads, psycopg.connect(database.admin, autocommit=True) as looker:
        minting = threads.submit(keys.mint, through, through.scope, Grant(ROLES["agent"], connector="crm"))
        assert made.wait(60)
        removing = threads.submit(services.erasing.finish, tenant_id, erasure.id)
        for _ in range(3000):
            if looker.execute(_WAITING).fetchone() == (1,):
                break
            looker.execute("SELECT pg_sleep(0.01)")
        else:
            pytest.fail("the removal does not wait for the key that is being made")
        go_on.set()
        minted = minting.result(60)
        removing.result(60)
    assert keys.find_principal(minted.secret) is None
    ended = [one for one in services.installation.tombstones.all() if one.kind is TombstoneKind.KEY_REVOKED]
    assert {key_id for one in ended for key_id in one.ids} == {principal.id, minted.id}
