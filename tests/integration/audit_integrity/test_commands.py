"""`memvault audit …` as an administrator and an auditor run it, online and offline."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from typer.testing import CliRunner

from service import wiring
from service.audit.ledger import TrailChanged
from service.audit.signing import public_pem
from service.cli.app import commands
from service.errors import ConfigurationError, Conflict, MemvaultError
from service.wiring import Installation
from tests.integration.audit_integrity.conftest import House
from tests.integration.audit_integrity.test_restoring import ORDER

pytestmark = pytest.mark.integration


def run(*arguments: str, code: int = 0) -> Any:
    """Run a command and return its JSON document."""
    result = CliRunner().invoke(commands(), [*arguments, "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A signing key as the documentation makes one."""
    path = tmp_path / "signing.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)], check=True, capture_output=True)
    path.chmod(0o600)
    return path


@pytest.fixture
def config(house: House, key: Path, tmp_path: Path) -> str:
    """As below."""
    return configured(house, key, tmp_path)


def configured(house: House, key: Path, tmp_path: Path) -> str:
    """Settings of the server mode on a house's database, with the key that it signed with so far retired."""
    retired = tmp_path / "retired.pem"
    retired.write_text(public_pem(house.sealing.signer.public_keys()[0]))
    settings = {
        "data_dir": str(tmp_path / "server"),
        "database": house.postgres.urls,
        "audit": {
            "signing_key": str(key),
            "public_keys": [str(retired)],
            "checkpoint_folder": str(house.folder),
        },
    }
    # The keyring of the house, so that the trail can be written with its tenants' keys.
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "keys").symlink_to(house.installation.settings.data_dir / "keys")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def test_verify_online_and_offline(house: House, config: str, tmp_path: Path) -> None:
    tenant = str(house.tenants[0])
    house.write(house.tenants[0], 3)
    report = run("audit", "verify", "--config", config)
    assert report["ok"] is True
    assert report["unsealed"]["rows"] == 3
    assert run("audit", "checkpoint", "--config", config)["rows"] == 3
    report = run("audit", "verify", "--config", config, "--tenant", "tenant-0")
    assert (report["ok"], report["unsealed"]["rows"], report["tenants"]) == (True, 0, 1)

    export, public = tmp_path / "trail.jsonl", tmp_path / "public.pem"
    own = tmp_path / "own.jsonl"
    rows = run("audit", "export-trail", str(export), "--checkpoints", str(own), "--config", config)["rows"]
    (current,) = run("audit", "public-key", "--config", config)
    retired = yaml.safe_load(Path(config).read_text())["audit"]["public_keys"][0]
    public.write_text(Path(retired).read_text() + current["pem"])
    offline = ["audit", "verify", "--export", str(export), "--public-key", str(public), "--checkpoints"]
    for checkpoints in (house.folder, own):
        report = run(*offline, str(checkpoints))
        assert (report["ok"], report["rows"], report["unsealed"]["rows"]) == (True, rows, 0)

    lines = export.read_bytes().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if line.startswith(f'{{"_tenant":"{tenant}"'.encode())) + 2
    lines[place] = lines[place].replace(b'"cli"', b'"mcp"')
    export.write_bytes(b"".join(lines))
    first = run(*offline, str(house.folder), code=1)["first_bad"]
    assert (first["kind"], first["tenant_id"], first["position"]) == ("edited", tenant, 1)
    assert first["row_id"] == json.loads(lines[place])["id"]
    export.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(ConfigurationError, match="was not finished"):
        run(*offline, str(house.folder))


def test_a_place_for_checkpoints_that_is_not_there_is_no_verdict(house: House, config: str, tmp_path: Path) -> None:
    """What was cut off with its checkpoints is seen by the exported ones alone."""
    absent = tmp_path / "not-mounted"
    with pytest.raises(ConfigurationError, match="not-mounted: cannot be read"):
        run("audit", "verify", "--checkpoints", str(absent), "--config", config)
    settings = yaml.safe_load(Path(config).read_text())
    settings["audit"]["checkpoint_folder"] = str(absent)
    Path(config).write_text(yaml.safe_dump(settings))
    with pytest.raises(ConfigurationError, match="not-mounted: cannot be read"):
        run("audit", "verify", "--config", config)
    del settings["audit"]["checkpoint_folder"]
    Path(config).write_text(yaml.safe_dump(settings))
    report = run("audit", "verify", "--config", config)
    assert (report["ok"], report["checkpoints"]["exported"]) == (True, 0)


def test_an_export_writes_over_nothing(house: House, config: str, tmp_path: Path) -> None:
    evidence = next(house.folder.glob("*.jsonl"))
    whole = evidence.read_bytes()
    export = tmp_path / "trail.jsonl"
    with pytest.raises(ConfigurationError, match="is there already"):
        run("audit", "export-trail", str(export), "--checkpoints", str(evidence), "--config", config)
    assert evidence.read_bytes() == whole
    assert not export.exists(), "what was not finished is removed"
    with pytest.raises(ConfigurationError, match="is there already"):
        run("audit", "export-trail", str(evidence), "--config", config)
    assert evidence.read_bytes() == whole
    with pytest.raises(ConfigurationError, match="cannot be written"):
        run("audit", "export-trail", str(tmp_path / "missing" / "trail.jsonl"), "--config", config)


def test_a_person_is_told_in_words(house: House, config: str) -> None:
    house.superuser("DELETE FROM audit WHERE seq = 2")
    result = CliRunner().invoke(commands(), ["audit", "verify", "--config", config])
    assert result.exit_code == 1
    assert "BAD removed: checkpoint 1, tenant" in result.stdout
    told = r"unverified: \d+ rows of tenant [-0-9a-f]{36}, from the first bad one on \(position \d+\)"
    assert re.search(told, result.stdout)
    assert "1 problems were found" in result.stdout


def test_prove(house: House, config: str) -> None:
    row = json.loads(house.lines(house.tenants[2])[0])["id"]
    assert run("audit", "prove", row, "--tenant", "tenant-2", "--config", config)["position"] == 0


def test_during_a_rotation_either_public_key_verifies(house: House, config: str, key: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load(Path(config).read_text())
    old = house.installation.settings.data_dir / "keys" / "audit-signing.pem"
    settings["audit"]["previous_signing_key"] = str(old)
    Path(config).write_text(yaml.safe_dump(settings))
    house.write(house.tenants[0])
    run("audit", "checkpoint", "--config", config)
    keys = run("audit", "public-key", "--config", config)
    assert len(keys) == 2
    for one in keys:
        public = tmp_path / "one.pem"
        public.write_text(one["pem"])
        assert run("audit", "verify", "--config", config, "--public-key", str(public))["ok"] is True
    # After the overlap the old checkpoints hang on the new signatures by their hashes.
    del settings["audit"]["previous_signing_key"]
    Path(config).write_text(yaml.safe_dump(settings))
    house.write(house.tenants[0])
    run("audit", "checkpoint", "--config", config)
    public.write_text(run("audit", "public-key", "--config", config)[0]["pem"])
    assert run("audit", "verify", "--config", config, "--public-key", str(public))["ok"] is True


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"signing_key": None}, r"audit\.signing_key: is needed"),
        ({"signing_key": "inside"}, r"must not lie in the data folder"),
        ({"signing_key": "absent"}, r"cannot be read"),
        ({"signing_key": "readable"}, r"everyone can read it"),
        ({"signing_key": "rsa"}, r"is not an Ed25519 key"),
        ({"signing_key": "garbage"}, r"is not a PEM file"),
    ],
)
def test_a_signing_key_in_the_wrong_place_is_refused(
    change: dict[str, str | None], told: str, house: House, config: str, key: Path, tmp_path: Path
) -> None:
    places = {name: tmp_path / f"{name}.pem" for name in ("absent", "readable", "rsa", "garbage")}
    places["inside"] = tmp_path / "server" / "signing.pem"
    for name in ("inside", "readable"):
        places[name].write_bytes(key.read_bytes())
        places[name].chmod(0o600 if name == "inside" else 0o644)
    places["garbage"].write_text("garbage")
    subprocess.run(["openssl", "genrsa", "-out", str(places["rsa"]), "2048"], check=True, capture_output=True)
    settings = yaml.safe_load(Path(config).read_text())
    value = change["signing_key"]
    settings["audit"]["signing_key"] = None if value is None else str(places[value])
    Path(config).write_text(yaml.safe_dump(settings))
    with pytest.raises(MemvaultError, match=told):
        run("audit", "public-key", "--config", config)


def test_retention_that_is_not_set_drops_nothing(house: House, config: str) -> None:
    with pytest.raises(ConfigurationError, match="kept for ever"):
        run("audit", "drop-old", "--config", config)
    settings = yaml.safe_load(Path(config).read_text())
    settings["audit"]["retention_days"] = 183
    Path(config).write_text(yaml.safe_dump(settings))
    assert run("audit", "drop-old", "--dry-run", "--config", config) == {"dry_run": True, "dropped": []}


def test_a_restore_is_declared_by_what_the_configured_places_have(house: House, config: str) -> None:
    """As in the jobs of the chart and of Compose: no exported file is named, and the owner's URL is given once."""
    house.superuser(ORDER.format(offset=1_000_000))
    house.write(house.tenants[0], 3)
    assert run("audit", "checkpoint", "--config", config)["rows"] == 3
    # As after a restore from a dump into a new cluster, with a worker that lacks the owner's URL.
    house.superuser(ORDER.format(offset=0))
    settings = yaml.safe_load(Path(config).read_text())
    poor = Path(config).with_name("worker.yaml")
    poor.write_text(yaml.safe_dump(settings | {"database": {"url": settings["database"]["url"]}}))
    with pytest.raises(Conflict, match="docker compose run --rm restored"):
        run("audit", "restored", "--config", str(poor))
    declared = run("audit", "restored", "--config", config)
    assert declared["number"] == declared["last"] + 1
    house.write(house.tenants[0], 2)
    assert run("audit", "checkpoint", "--config", str(poor))["state"] == "ok"
    assert run("audit", "verify", "--config", str(poor))["ok"]
    with pytest.raises(Conflict, match="nothing to declare"):
        run("audit", "restored", "--config", config)


def test_a_restore_without_a_checkpoint_outside_is_not_declared(house: House, config: str) -> None:
    settings = yaml.safe_load(Path(config).read_text())
    nowhere = Path(config).with_name("nowhere.yaml")
    empty = Path(config).with_name("empty")
    empty.mkdir()
    nowhere.write_text(yaml.safe_dump(settings | {"audit": settings["audit"] | {"checkpoint_folder": str(empty)}}))
    with pytest.raises(ConfigurationError, match="--checkpoints: is needed"):
        run("audit", "restored", "--config", str(nowhere))


def test_a_restore_is_declared_where_no_place_for_checkpoints_is_configured(house: House, config: str) -> None:
    """As in the job of the chart with its defaults, or with checkpoints on standard output alone: none can be asked."""
    settings = yaml.safe_load(Path(config).read_text())
    del settings["audit"]["checkpoint_folder"]
    Path(config).write_text(yaml.safe_dump(settings))
    printed = Path(config).with_name("printed.yaml")
    printed.write_text(yaml.safe_dump(settings | {"audit": settings["audit"] | {"checkpoint_stdout": True}}))
    house.superuser(ORDER.format(offset=1_000_000))
    house.write(house.tenants[0], 3)
    assert run("audit", "checkpoint", "--config", config)["rows"] == 3
    for one in (config, str(printed)):
        with pytest.raises(ConfigurationError, match="--checkpoints: is needed"):
            run("audit", "restored", "--config", one)
    house.superuser(ORDER.format(offset=0))
    # A place that is configured and empty has lost what was in it, or is the wrong one.
    empty = Path(config).with_name("empty")
    empty.mkdir()
    lost = Path(config).with_name("lost.yaml")
    lost.write_text(yaml.safe_dump(settings | {"audit": settings["audit"] | {"checkpoint_folder": str(empty)}}))
    with pytest.raises(ConfigurationError, match="--checkpoints: is needed"):
        run("audit", "restored", "--config", str(lost))
    declared = run("audit", "restored", "--config", config)
    assert declared["number"] == declared["last"] + 1
    assert declared["resumes"] == declared["last"]
    house.write(house.tenants[0], 2)
    assert run("audit", "checkpoint", "--config", config)["state"] == "ok"
    assert run("audit", "verify", "--config", config)["ok"]


def test_no_place_takes_a_head_that_nobody_signed(house: House, config: str) -> None:
    house.superuser(ORDER.format(offset=1_000_000))
    house.write(house.tenants[0], 3)
    run("audit", "checkpoint", "--config", config)
    house.superuser(
        ORDER.format(offset=0),
        "UPDATE audit_checkpoints SET body = replace(body, '\"rows\":', '\"rows\": ') WHERE number = "
        "(SELECT max(number) FROM audit_checkpoints)",
    )
    settings = yaml.safe_load(Path(config).read_text())
    del settings["audit"]["checkpoint_folder"]
    Path(config).write_text(yaml.safe_dump(settings))
    with pytest.raises(ConfigurationError, match="--checkpoints: is needed"):
        run("audit", "restored", "--config", config)


def test_a_database_that_goes_away_in_the_middle_is_no_verdict(
    house: House, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1 is for what was found; that nothing could be found out is 2."""
    house.write(house.tenants[0], 3)
    name = conninfo_to_dict(house.postgres.admin)["dbname"]
    found = wiring.audited_tenants

    def cut(installation: Installation) -> Any:
        tenants = found(installation)
        admit(allowed=False)
        return tenants

    def admit(*, allowed: bool) -> None:
        elsewhere = make_conninfo(house.postgres.admin, dbname="template1")
        with psycopg.connect(elsewhere, autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {allowed}')  # type: ignore[call-overload]
            if not allowed:
                connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    monkeypatch.setattr(wiring, "audited_tenants", cut)
    try:
        result = CliRunner().invoke(commands(), ["audit", "verify", "--config", config])
    finally:
        admit(allowed=True)
    assert result.exit_code == 2, result.output
    assert "could not be told" in result.stderr


def test_a_stored_checkpoint_that_is_none_any_more_is_told_by_each_command(
    house: House, config: str, tmp_path: Path
) -> None:
    house.superuser("UPDATE audit_checkpoints SET body = '{}' WHERE number = 2")
    (problem,) = run("audit", "verify", "--config", config, code=1)["problems"]
    assert (problem["kind"], problem["checkpoint"]) == ("checkpoint_unreadable", 2)
    own = str(tmp_path / "own.jsonl")
    with pytest.raises(TrailChanged, match="checkpoint 2 in the database"):
        run("audit", "export-trail", str(tmp_path / "trail.jsonl"), "--checkpoints", own, "--config", config)
