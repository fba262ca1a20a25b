"""A restored database goes on behind the newest checkpoint of all places, and no place loses one to another."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from service.audit.chain import read_chain
from service.audit.checkpoints import Checkpoint, parse_line
from service.audit.ledger import TrailChanged
from service.audit.restoring import Restoring
from service.audit.sinks import SinkUnavailable
from service.audit.sinks.folder import FolderSink
from service.audit.sinks.s3 import S3Sink
from service.errors import ConfigurationError
from service.settings import AuditS3
from tests.integration.audit_integrity.conftest import House, MakeHouse
from tests.integration.audit_integrity.test_restoring import TABLES

pytestmark = pytest.mark.integration

Storage = tuple[str, Any]


def bucket(url: str, **more: str) -> dict[str, Any]:
    """The settings of object storage."""
    return {"bucket": "trail", "endpoint": url, "access_key_id": "key", "secret_access_key": "secret", **more}


def stored(storage: Storage) -> list[Checkpoint]:
    """Every version of every object: a place loses none."""
    client = storage[1]
    versions = client.list_object_versions(Bucket="trail")["Versions"]
    return [
        parse_line(client.get_object(Bucket="trail", Key=one["Key"], VersionId=one["VersionId"])["Body"].read())
        for one in versions
    ]


@pytest.fixture
def restored(storage: Storage, make_house: MakeHouse) -> House:
    """A house whose database is at checkpoint 2, its folder, which came back with the keyring, at 3, its S3 at 6."""
    house = make_house(audit={"s3": bucket(storage[0])})
    for _ in range(2):
        house.write(house.tenants[0], 4)
        house.seal()
    house.superuser(*(f"CREATE TABLE kept_{table} AS TABLE {table}" for table in TABLES))
    house.write(house.tenants[0], 4)
    house.seal()
    archived = house.folder.with_name("archived")
    shutil.copytree(house.folder, archived)
    for _ in range(3):
        house.write(house.tenants[0], 4)
        house.seal()
    shutil.rmtree(house.folder)
    archived.rename(house.folder)
    house.superuser(
        *(f"DELETE FROM {table}" for table in TABLES),
        *(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM kept_{table}" for table in TABLES),
    )
    return house


def declared(house: House) -> Restoring:
    sealing, installation = house.sealing, house.installation
    return Restoring(installation.database, sealing.ledger, installation.trail, sealing.keeper, sealing.trusted)


def test_the_newest_of_all_places_is_the_last_one(restored: House, storage: Storage, make_house: MakeHouse) -> None:
    again = make_house(audit={"s3": bucket(storage[0])})
    keeper = again.sealing.keeper
    last = keeper.find_restored(certain=True)
    assert last is not None
    assert last.body.number == 6
    assert keeper.find_newest() == last
    # What somebody vouches for is no reason to pass over what a place has.
    assert keeper.find_newest(list(again.sealing.ledger.all())) == last
    epoch = declared(again).declare(last, None)
    assert (epoch.checkpoint.body.number, epoch.resumes, epoch.last) == (7, 2, 6)
    keeper.compare_heads()
    again.write(again.tenants[0], 3)
    assert again.seal() == 8
    assert keeper.state() == ("ok", None)
    objects = stored(storage)
    assert sorted(one.body.number for one in objects) == list(range(1, 9))
    assert read_chain(objects, (), again.sealing.trusted).problems == []


@pytest.mark.parametrize("lost", ["s3", "folder"])
def test_a_restore_is_not_declared_while_a_place_cannot_be_read(
    lost: str, restored: House, storage: Storage, make_house: MakeHouse, tmp_path: Path
) -> None:
    s3 = bucket(storage[0])
    if lost == "s3":
        s3["bucket"] = "absent"
    else:
        (line,) = restored.folder.glob("*.jsonl")
        line.write_bytes(line.read_bytes() + b"{}\n")
    keeper = make_house(audit={"s3": s3}).sealing.keeper
    named = "the bucket absent" if lost == "s3" else "the last line is no checkpoint"
    for ask in (lambda: keeper.find_restored(certain=True), keeper.find_newest):
        with pytest.raises(ConfigurationError, match=named) as refused:
            ask()
        assert "memvault audit restored" in refused.value.detail
        assert "audit.s3.bucket" in refused.value.detail


def test_a_place_that_is_away_stops_no_start_of_a_database_that_did_not_go_back(
    house: House, make_house: MakeHouse, storage: Storage
) -> None:
    keeper = make_house(audit={"s3": bucket(storage[0], bucket="absent")}).sealing.keeper
    assert keeper.find_restored() is None
    keeper.compare_heads()


def test_a_database_that_stands_elsewhere_is_not_sealed_while_a_place_cannot_be_read(
    house: House, make_house: MakeHouse, storage: Storage
) -> None:
    house.superuser(
        "CREATE OR REPLACE FUNCTION audit_order(xid8) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE"
        " AS $$ SELECT $1::text::bigint - 100 $$"
    )
    keeper = make_house(audit={"s3": bucket(storage[0], bucket="absent")}).sealing.keeper
    with pytest.raises(ConfigurationError, match="the bucket absent"):
        keeper.find_restored()
    with pytest.raises(SinkUnavailable, match="nothing is sealed"):
        keeper.compare_heads()


def test_an_undeclared_restore_overwrites_nothing(restored: House, storage: Storage, make_house: MakeHouse) -> None:
    before = {one.hash for one in stored(storage)}
    again = make_house(audit={"s3": bucket(storage[0])})
    with pytest.raises(TrailChanged):
        again.sealing.keeper.compare_heads()
    # As by a process that could not read the places when it began to seal.
    again.write(again.tenants[0], 2)
    again.sealing.keeper.round(full=True)
    again.sealing.keeper.deliver()
    state, reason = again.sealing.keeper.state()
    assert state == "failed"
    assert reason is not None
    assert "has another trail than the database" in reason
    assert {one.hash for one in stored(storage)} == before


def test_a_place_keeps_the_first_checkpoint_of_a_number(
    house: House, storage: Storage, make_house: MakeHouse, tmp_path: Path
) -> None:
    one, two = list(house.sealing.ledger.all())[:2]
    other = Checkpoint(one.body, two.encoded, two.signatures, two.seals)
    folder = tmp_path / "place"
    FolderSink(folder).deliver([one])
    s3 = S3Sink(AuditS3.model_validate(bucket(storage[0])))
    s3.deliver([one])
    s3.deliver([one])
    for sink in (FolderSink(folder), s3):
        with pytest.raises(SinkUnavailable, match="stays"):
            sink.deliver([other])
        newest = sink.newest(beyond=0)
        assert newest is not None
        assert newest.hash == one.hash
    assert [each.hash for each in stored(storage)] == [one.hash]


def test_a_place_without_what_it_took_cannot_be_read(house: House, make_house: MakeHouse) -> None:
    """Its disk is not mounted: what is on that may be newer than a database that went back."""
    house.superuser(
        "CREATE OR REPLACE FUNCTION audit_order(xid8) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE"
        " AS $$ SELECT $1::text::bigint - 100 $$"
    )
    house.folder.rename(house.folder.with_name("away"))
    keeper = make_house().sealing.keeper
    with pytest.raises(ConfigurationError, match="is it mounted"):
        keeper.find_restored()
    with pytest.raises(SinkUnavailable, match="nothing is sealed"):
        keeper.compare_heads()
