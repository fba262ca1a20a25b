"""Consolidation: what says the same is proposed, linked when accepted, left alone when dismissed or held."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import yaml
from typer.testing import CliRunner

from service import clock
from service.audit.moves import ImportSource
from service.cli.app import commands
from service.errors import ConfigurationError
from service.memories import consolidating
from service.portability.records import IncomingMemory, Placed
from service.records import SubjectNames
from service.retention.holds import NewHold
from service.scope import Caller
from service.storage.superseding import Link
from service.wiring import Services
from tests.conftest import Postgres, caller_of
from tests.integration.memories.test_latest_only import listed

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]

ALIKE = ("User likes tea", "The user likes tea.", "user LIKES tea")


def brought(services: Services, caller: Caller, texts: Sequence[str], user: str = "alice") -> list[UUID]:
    """Import texts, which keeps what an add would not, each newer than the one before; return their ids."""
    first = IncomingMemory(clock.new_id(), texts[0], SubjectNames(user_id=user), clock.now(), clock.now())
    memories = [replace(first, id=clock.new_id(), text=text, created_at=clock.now()) for text in texts]
    placed = [Placed(str(number), memory) for number, memory in enumerate(memories)]
    services.imports.run(caller, caller.scope, lambda: placed, origin=ImportSource.EXPORT)
    return [memory.id for memory in memories]


def test_what_says_the_same_is_proposed_and_linked_only_when_accepted(
    services: Services, caller: Caller, database: Postgres
) -> None:
    one, two, newest = brought(services, caller, ALIKE)
    brought(services, caller, ["User likes tea in 2019", "User likes tea in 2020", "User does not like tea"])
    brought(services, caller, ALIKE[:1], user="bob")
    stranger = caller_of(services, services.installation.tenants.create("other").id)
    brought(services, stranger, ALIKE[:1])
    consolidations = services.installation.consolidations
    everything = listed(services, caller)
    links = {Link(one, newest), Link(two, newest)}
    assert set(consolidations.run(caller, caller.scope, dry=True)) == links
    assert consolidations.proposed(caller.scope) == []
    assert set(consolidations.run(caller, caller.scope)) == links
    # A proposal hides nothing, and a second look adds nothing.
    assert listed(services, caller) == everything
    assert (
        set(consolidations.run(caller, caller.scope))
        == set(consolidations.run(caller, caller.scope, dry=True))
        == links
    )
    assert consolidations.run(stranger, stranger.scope) == []
    assert consolidations.decide(caller, caller.scope, [one], accept=True) == [Link(one, newest)]
    assert len(listed(services, caller)) == len(everything) - 1
    assert listed(services, caller, {"user_id": "alice"}).count(ALIKE[0]) == 0
    assert listed(services, caller, latest=False) == everything
    assert services.memories.history(caller, caller.scope, one)[0].new_text == ALIKE[0]
    assert consolidations.decide(caller, caller.scope, None, accept=False) == [Link(two, newest)]
    assert consolidations.run(caller, caller.scope) == []
    assert listed(services, caller, {"user_id": "alice"}).count(ALIKE[1]) == 1
    # Without the newest the older ones are what there is.
    services.memories.delete(caller, caller.scope, newest)
    assert listed(services, caller, {"user_id": "alice"}).count(ALIKE[0]) == 1
    with psycopg.connect(database.admin) as connection:
        query = "SELECT detail, target_ids, result_ids FROM audit WHERE event = 'memories:consolidated' ORDER BY seq"
        rows = connection.execute(query).fetchall()
    told = [({name: count for name, count in row[0].items() if count}, row[1], set(row[2])) for row in rows]
    # Dry runs and looks at nothing leave a row too.
    look, nothing = ({"listed": 2}, [newest], {one, two}), ({}, [], set())
    assert told == [
        look,
        ({"proposed": 2}, [newest], {one, two}),
        look,
        look,
        look,
        nothing,
        ({"accepted": 1}, [newest], {one}),
        ({"dismissed": 1}, [newest], {two}),
        nothing,
    ]


def test_the_newest_stands_for_all_however_many_there_are(
    services: Services, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    spelled = [
        "User likes tea",
        "user likes tea",
        "User Likes tea",
        "User likes Tea",
        "USER likes tea",
        "User LIKES tea",
    ]
    *older, newest = brought(services, caller, spelled)
    before, after = brought(services, caller, ["User likes milk", "user likes milk"])
    *of_bob, latest = brought(services, caller, spelled, user="bob")
    monkeypatch.setattr(consolidating, "_MOST", 3)
    consolidations = services.installation.consolidations
    links = {Link(one, newest) for one in older} | {Link(before, after)} | {Link(one, latest) for one in of_bob}
    assert set(consolidations.run(caller, caller.scope, dry=True)) == links
    found = consolidations.run(caller, caller.scope)
    assert (set(found), len(found)) == (links, len(links))


def test_what_a_hold_covers_is_left_alone(services: Services, caller: Caller) -> None:
    brought(services, caller, ALIKE[:2])
    ben = caller_of(services, caller.principal.tenant_id, owner="ben@example.org")
    consolidations = services.installation.consolidations
    (link,) = consolidations.run(caller, caller.scope)
    services.installation.holds.place(ben, ben.scope, NewHold("case", "why", subjects=SubjectNames(user_id="alice")))
    # Proposed before, held since: it stays proposed.
    assert consolidations.decide(caller, caller.scope, None, accept=True) == []
    assert consolidations.run(caller, caller.scope) == [link]
    assert len(listed(services, caller)) == 2
    brought(services, caller, [*ALIKE])
    assert consolidations.run(caller, caller.scope) == [link]


def test_what_an_earlier_release_stored_is_found_too(services: Services, caller: Caller, database: Postgres) -> None:
    brought(services, caller, ALIKE[:2])
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("UPDATE memories SET likeness = NULL")
    # What is held is not written to, not even this.
    held = brought(services, caller, ALIKE, user="bob")
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("UPDATE memories SET likeness = NULL WHERE id = ANY(%s)", [held])
    ben = caller_of(services, caller.principal.tenant_id, owner="ben@example.org")
    services.installation.holds.place(ben, ben.scope, NewHold("case", "why", subjects=SubjectNames(user_id="bob")))
    assert len(services.installation.consolidations.run(caller, caller.scope)) == 1


def test_workers_look_only_when_told_to_and_at_every_tenant(services: Services, caller: Caller) -> None:
    brought(services, caller, ALIKE[:2])
    consolidations = services.installation.consolidations
    assert services.settings.duplicates.look is None
    assert consolidations.periodic(None, services.installation.tenants.living_ids) == {}
    ((name, (cron, work)),) = consolidations.periodic("30 3 * * *", services.installation.tenants.living_ids).items()
    assert (name, cron) == ("consolidate", "30 3 * * *")
    work(0)
    assert len(consolidations.proposed(caller.scope)) == 1


def test_the_command_line(services: Services, caller: Caller, database: Postgres, tmp_path: Path) -> None:
    older, newer = (str(one) for one in brought(services, caller, ALIKE[:2]))
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"data_dir": str(services.settings.data_dir), "database": database.urls}))

    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(commands(), ["consolidate", *arguments, "--config", str(config), "--json"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return next(one for one in json.loads(result.stdout)["tenants"] if one["tenant"] == "acme")

    links = [{"older_id": older, "newer_id": newer, "kind": "same"}]
    for arguments in (["--dry-run"], ["--tenant", "acme"]):
        assert (run(*arguments)["proposed"], run(*arguments)["decided"]) == (links, [])
    with pytest.raises(ConfigurationError, match="ids of memories"):
        run("--accept", "no-id")
    with pytest.raises(ConfigurationError, match=f"nothing is proposed of {newer}"):
        run("--accept", older, "--accept", newer)
    with pytest.raises(ConfigurationError, match="give one of"):
        run("--accept-all", "--dry-run")
    done = run("--accept", older)
    assert (done["proposed"], done["decided"]) == ([], links)
    assert listed(services, caller) == [ALIKE[1]]
