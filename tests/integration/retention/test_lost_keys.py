"""A keyring that comes back from an earlier copy: who came since is left out, can be erased, and holds up nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service.errors import KeyringUnavailable
from service.filters.ast import EVERYTHING
from service.filters.build import and_, subjects_filter
from service.filters.parse import parse_filter
from service.holds.rules import RuleBody
from service.holds.spans import Span
from service.memories.actions import Query
from service.portability.exports import Wanted
from service.records import SubjectNames
from service.retention.ledger import ErasureKind, ErasureStatus, Target
from service.scope import Caller, SubjectKind
from service.storage.keyring import KeyMissing
from service.wiring import Services
from tests.conftest import Postgres, caller_of, open_on
from tests.integration.portability.test_round_trip import exported
from tests.integration.retention.test_erasures import add, count, finish, ingested, keep_for, texts

pytestmark = pytest.mark.integration

BOB = Target(ErasureKind.USER, "bob")
#: Opens the services on a keyring without the keys of these subjects.
Without = Callable[..., Services]


@pytest.fixture
def opened(database: Postgres, data_dir: Path) -> Iterator[Callable[[], Services]]:
    """Open the services, closing those that were open before: nothing is remembered."""
    with ExitStack() as last:

        def open_again() -> Services:
            last.close()
            return open_on(database, data_dir, last)

        yield open_again


@pytest.fixture
def caller(opened: Callable[[], Services]) -> Caller:
    """Alice's memory of a run, and one of Bob."""
    services = opened()
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    add(services, caller, "I like figs", user_id="alice", run_id="r-1")
    add(services, caller, "Bob's secret", user_id="bob")
    return caller


@pytest.fixture
def without(opened: Callable[[], Services], caller: Caller, data_dir: Path) -> Without:
    """Lose keys as a copy of the keyring lacks them, then open the services."""

    def lose(*kinds: SubjectKind, name: str | None = None) -> Services:
        services = opened()
        subjects = services.installation.subjects
        with services.installation.database.transaction(caller.scope) as connection:
            ids = [
                one.id
                for one in subjects.list(connection, caller.scope)
                if one.kind in kinds and name in (None, one.name)
            ]
        assert ids
        for subject_id in ids:
            (path,) = (data_dir / "keys" / "subjects").rglob(f"{subject_id}.key")
            path.unlink()
        return opened()

    return lose


def test_a_run_whose_key_is_lost_hides_nothing_of_its_users(without: Without, caller: Caller) -> None:
    services = without(SubjectKind.RUN)
    found = services.memories.search(caller, caller.scope, Query("figs", parse_filter({"user_id": "alice"})))
    assert [(one.memory.text, one.memory.subjects) for one in found] == [("I like figs", SubjectNames(user_id="alice"))]
    assert texts(services, caller) == {"I like figs", "Bob's secret"}
    entities = services.entities.list(caller, caller.scope, page=1, size=10)
    assert {one.name for one in entities.items} == {"alice", "bob"}
    lines = exported(services, caller)
    told = [(one["text"], one["user_id"], one["run_id"]) for one in lines if one["type"] == "memory"]
    assert sorted(told) == [("Bob's secret", "bob", None), ("I like figs", "alice", None)]


def test_what_a_lost_key_sealed_is_left_out_of_what_is_read(without: Without, caller: Caller) -> None:
    services = without(SubjectKind.USER, name="bob")
    assert texts(services, caller) == {"I like figs"}
    for wanted in ({"text": {"icontains": "i"}}, {"keywords": {"contains": "figs"}}):
        where = and_(parse_filter(wanted), EVERYTHING)
        page = services.memories.list(caller, caller.scope, where, page=1, size=10, on=None)
        assert {memory.text for memory in page.items} <= {"I like figs"}
    whole = services.exports.memories(caller, caller.scope, Wanted())
    assert [memory.text for memory in whole] == ["I like figs"]
    lines = exported(services, caller)
    assert [one["text"] for one in lines if one["type"] == "memory"] == ["I like figs"]
    assert exported(services, caller, Wanted(SubjectNames(user_id="bob")))[-1]["type"] == "end"
    # Who asks for nothing else is told.
    bobs = subjects_filter(SubjectNames(user_id="bob"))
    with pytest.raises(KeyringUnavailable, match="lacks a key"):
        services.memories.list(caller, caller.scope, bobs, page=1, size=10, on=None)


def test_whose_key_is_lost_is_erased_with_a_receipt(
    without: Without, caller: Caller, admin: psycopg.Connection[Any]
) -> None:
    services = without(SubjectKind.USER, name="bob")
    erasure = services.erasures.request(caller, caller.scope, BOB)
    assert erasure.status is ErasureStatus.RUNNING
    done = finish(services, caller, erasure.id)
    assert (done.status, done.removed["memories"]) == (ErasureStatus.COMPLETED, 1)
    assert done.receipt["receipt"]["checked"]["key"] == "destroyed"
    assert (texts(services, caller), count(admin, "memories")) == ({"I like figs"}, 1)
    # The name is another person's by now.
    add(services, caller, "another Bob", user_id="bob")
    assert texts(services, caller) == {"I like figs", "another Bob"}


def test_a_tenant_of_lost_keys_is_deleted(without: Without, caller: Caller, admin: psycopg.Connection[Any]) -> None:
    services = without(SubjectKind.USER, SubjectKind.RUN)
    target = Target(ErasureKind.TENANT)
    erasure = services.erasures.request_for_installation(caller.principal.tenant_id, target)
    services.erasing.finish(caller.principal.tenant_id, erasure.id)
    assert services.erasures.look(caller.principal.tenant_id, erasure.id).status is ErasureStatus.COMPLETED
    assert count(admin, "memories") == 0


def test_what_cannot_be_read_is_kept_as_long_as_any_rule_keeps_anything(
    without: Without, caller: Caller, admin: psycopg.Connection[Any]
) -> None:
    services = without(SubjectKind.USER, name="bob")
    row = admin.execute("SELECT m.id FROM memories m WHERE run_id IS NULL").fetchone()
    assert row is not None
    stored_at = ingested(admin, row[0])
    keep_for(services, caller, "P10D")
    body = RuleBody("figs", where=parse_filter({"text": {"icontains": "figs"}}), age=Span("P10Y"), minimum=Span("P30D"))
    services.installation.retention_rules.create(caller, caller.scope, body)
    erasure = services.erasures.request(caller, caller.scope, BOB)
    assert (erasure.status, erasure.due_at) == (ErasureStatus.SCHEDULED, stored_at + timedelta(days=30))


def test_a_retention_run_passes_by_what_is_lost_and_goes_on(
    without: Without, caller: Caller, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.execute(
        "UPDATE memories SET created_at = now() - interval '2 years', updated_at = now() - interval '2 years'"
    )
    services = without(SubjectKind.USER, name="bob")
    body = RuleBody("old", age=Span("P1Y"))
    services.installation.retention_rules.create(caller, caller.scope, body)
    monkeypatch.setattr("service.retention.runs.STEP", 1)
    runs = services.installation.retention_runs
    report = runs.go_on(caller.scope, runs.start(caller, caller.scope, dry=False).id)
    assert (report.run.is_done, report.run.seen, report.run.deleted) == (True, 2, 1)
    assert count(admin, "memories") == 1


@pytest.mark.parametrize("doing", ["erase", "retain"])
def test_a_keyring_that_is_away_has_lost_nothing(
    doing: str, without: Without, caller: Caller, data_dir: Path, admin: psycopg.Connection[Any]
) -> None:
    services = without(SubjectKind.USER, name="bob")
    keep_for(services, caller, "P30D")
    keys = data_dir / "keys"
    runs = services.installation.retention_runs
    begun = runs.start(caller, caller.scope, dry=False)
    keys.rename(data_dir / "away")
    keys.mkdir()
    erase = partial(services.erasures.request, caller, caller.scope, BOB)
    work = erase if doing == "erase" else partial(runs.go_on, caller.scope, begun.id)
    with pytest.raises(KeyMissing, match="is not there"):
        work()
    assert count(admin, "memories") == 2
    assert count(admin, "erasures") == 0
