"""What a process remembers of subjects is bounded, also of those that are gone."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from service.scope import Scope, TenantId, service_principal
from service.storage.keyring import FileKeyring
from service.tenants import subjects

pytestmark = pytest.mark.unit


def test_of_many_erased_ones_the_latest_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "_CACHED", 3)
    known = subjects.Subjects(FileKeyring(tmp_path))
    scope = Scope.of(service_principal(TenantId(UUID(int=1))))
    for number in range(10):
        known.forget(scope, UUID(int=number))
    assert list(known._erased) == [UUID(int=number) for number in (7, 8, 9)]
