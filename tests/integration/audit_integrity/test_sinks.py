"""Checkpoints reach every configured place at least once, in order, and go on where they were."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from service import clock
from service.audit.chain import read_chain
from service.audit.checkpoints import Checkpoint
from service.audit.sinks import SinkUnavailable
from service.audit.sinks.folder import CheckpointFiles, FolderSink
from service.audit.sinks.stdout import StdoutSink
from service.errors import ConfigurationError
from service.settings import AuditS3
from tests.integration.audit_integrity.conftest import House, MakeHouse

pytestmark = pytest.mark.integration


def numbers(path: Path) -> list[int]:
    return [one.body.number for _, one in CheckpointFiles(path).places()]


def test_a_folder_holds_each_checkpoint_once_over_restarts(house: House, make_house: MakeHouse) -> None:
    again = make_house()
    again.write(again.tenants[0])
    again.seal()
    house.superuser("DELETE FROM audit_deliveries")
    again.seal()
    assert numbers(house.folder) == list(range(1, len(numbers(house.folder)) + 1))
    assert again.verify().problems == []


def test_a_line_that_a_killed_process_left_unfinished_is_written_again(house: House) -> None:
    path = next(house.folder.glob("*.jsonl"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    house.superuser("DELETE FROM audit_deliveries")
    assert len(numbers(house.folder)) == len(whole.splitlines()) - 1
    house.sealing.keeper.deliver()
    assert path.read_bytes() == whole


def test_another_checkpoint_of_the_same_number_is_told_and_nothing_is_appended(house: House) -> None:
    (path,) = house.folder.glob("*.jsonl")
    whole = path.read_bytes()
    sink, last = FolderSink(house.folder), list(house.sealing.ledger.all())[-1]
    others = [replace(last.body, rows=last.body.rows + 1), replace(last.body, number=last.body.number + 1)]
    other, after = (Checkpoint(body, body.encoded(), last.signatures) for body in others)
    sink.deliver([last])
    with pytest.raises(SinkUnavailable, match=f"another checkpoint {last.body.number}"):
        sink.deliver([other, after])
    assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written_is_told_and_caught_up(make_house: MakeHouse, tmp_path: Path) -> None:
    place = tmp_path / "mounted"
    place.write_text("not a folder yet")
    house = make_house(audit={"checkpoint_folder": place})
    house.write(house.tenants[0])
    house.sealing.keeper.round(full=True)
    assert house.sealing.keeper.deliver() == {}
    state, reason = house.sealing.keeper.state()
    assert state == "failed"
    assert reason is not None
    assert "cannot be written" in reason
    place.unlink()
    house.write(house.tenants[0])
    house.sealing.keeper.round()
    assert house.sealing.keeper.deliver() == {f"folder:{place}": 2}
    assert house.sealing.keeper.state() == ("ok", None)
    assert numbers(place) == [1, 2]


def test_a_folder_whose_disk_is_not_mounted_gets_nothing_and_is_caught_up(house: House, make_house: MakeHouse) -> None:
    """What is written into the empty folder below a mount would be missing in the place, and no one would be told."""
    away = house.folder.with_name("away")
    before = numbers(house.folder)
    house.folder.rename(away)
    for keeper in (house.sealing.keeper, make_house().sealing.keeper):
        house.write(house.tenants[0])
        keeper.round(full=True)
        assert keeper.deliver() == {}
        state, reason = keeper.state()
        assert state == "failed"
        assert reason is not None
        assert "is it mounted?" in reason
        house.folder.mkdir(exist_ok=True)
    assert list(house.folder.glob("*.jsonl")) == []
    house.folder.rmdir()
    away.rename(house.folder)
    assert house.seal() == before[-1] + 2
    assert numbers(house.folder) == [*before, before[-1] + 1, before[-1] + 2]
    assert house.verify().problems == []


def test_standard_output_gets_what_is_signed_one_line_each(house: House) -> None:
    stream = io.StringIO()
    stored = list(house.sealing.ledger.all())
    StdoutSink(stream).deliver(stored)
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(stored)
    assert max(map(len, lines)) < 2000
    # With the seals of the database it verifies; what the database says of them has to fit what was signed.
    path = house.folder.parent / "captured.jsonl"
    path.write_text(stream.getvalue())
    captured = [one for _, one in CheckpointFiles(path).places()]
    assert read_chain(captured, stored, house.sealing.trusted).problems == []
    closed = io.StringIO()
    closed.close()
    with pytest.raises(SinkUnavailable):
        StdoutSink(closed).deliver(stored)


def test_object_storage_holds_locked_objects(storage: tuple[str, Any], make_house: MakeHouse, tmp_path: Path) -> None:
    url, client = storage
    s3 = {"bucket": "trail", "endpoint": url, "access_key_id": "key", "secret_access_key": "secret", "retain_days": 200}
    house = make_house(audit={"s3": s3})
    for _ in range(3):
        house.write(house.tenants[0], 2)
        house.seal()
    listed = client.list_objects_v2(Bucket="trail")["Contents"]
    assert [entry["Key"] for entry in listed] == [f"memvault/checkpoints/{number:012}.json" for number in (1, 2, 3)]
    head = client.head_object(Bucket="trail", Key=listed[0]["Key"])
    assert head["ObjectLockMode"] == "COMPLIANCE"
    assert timedelta(days=199) < head["ObjectLockRetainUntilDate"] - clock.now() < timedelta(days=201)
    version = client.list_object_versions(Bucket="trail", Prefix=listed[0]["Key"])["Versions"][0]["VersionId"]
    with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
        client.delete_object(Bucket="trail", Key=listed[0]["Key"], VersionId=version)

    # What is downloaded is what `--checkpoints` takes.
    folder = tmp_path / "downloaded"
    folder.mkdir()
    for entry in listed:
        body = client.get_object(Bucket="trail", Key=entry["Key"])["Body"].read()
        (folder / os.path.basename(entry["Key"])).write_bytes(body)
    assert numbers(folder) == [1, 2, 3]
    house.sealing.keeper.compare_heads()
    # Delivered again is no error: another version with the same content.
    house.superuser("DELETE FROM audit_deliveries")
    assert house.sealing.keeper.deliver()["s3://trail/memvault/checkpoints/"] == 3

    other = make_house(audit={"s3": {**s3, "bucket": "absent"}})
    other.sealing.keeper.deliver()
    state, reason = other.sealing.keeper.state()
    assert state == "failed"
    assert reason is not None
    assert "audit.s3: the bucket absent" in reason


def test_the_folder_s_newest_line_is_found_however_long_it_is(house: House) -> None:
    newest = FolderSink(house.folder).newest(beyond=0)
    assert newest is not None
    assert newest.hash == list(house.sealing.ledger.all())[-1].hash
    assert FolderSink(house.folder).newest(beyond=newest.body.number) is None
    # 4,000 rows in one seal: a line of over 100 kB.
    house.superuser(
        "INSERT INTO audit (tenant_id, id, at, event, outcome, subject_ids, client, face, request_id, target_ids,"
        " result_ids, detail, xid) SELECT %(tenant)s, gen_random_uuid(), now(), 'service:pinged', 'done', '{}', '',"
        " 'cli', 'many', '{}', '{}', '{}', pg_current_xact_id()::text::bigint FROM generate_series(1, 4000)",
        parameters={"tenant": house.tenants[0]},
    )
    house.seal()
    newest = FolderSink(house.folder).newest(beyond=0)
    assert newest is not None
    assert len(newest.line()) > 100_000
    assert newest.hash == list(house.sealing.ledger.all())[-1].hash


def test_the_folder_s_newest_line_is_found_after_a_clock_that_was_years_ahead(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.now
    for days in (700, 800, 900):
        with monkeypatch.context() as patch:
            patch.setattr(clock, "now", lambda days=days: now() + timedelta(days=days))
            house.write(house.tenants[0])
            house.seal()
    house.write(house.tenants[0])
    house.seal()
    newest = FolderSink(house.folder).newest(beyond=0)
    assert newest is not None
    assert newest.hash == list(house.sealing.ledger.all())[-1].hash
    assert numbers(house.folder) == list(range(1, newest.body.number + 1))


def test_a_folder_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no checkpoints"):
        CheckpointFiles(tmp_path)


def test_the_s3_settings_have_no_secret_in_their_text() -> None:
    assert "hush" not in repr(AuditS3(bucket="b", access_key_id="a", secret_access_key="hush"))  # type: ignore[arg-type]
