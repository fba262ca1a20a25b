"""docker-compose.yml: what it says of its containers, and that no service refuses what it is given."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from service.settings import load_settings
from tests.image.compose import FILE, Service, services, whole
from tests.image.dockerfile import REPOSITORY, read

pytestmark = pytest.mark.unit

ALL = services()
OURS = [name for name, one in ALL.items() if one.is_ours]
SETTLED = ["migrate", "restored", "service", "worker"]
IMAGE = read().stages["runtime"]
MAKE = REPOSITORY / "deploy" / "compose" / "make_secrets.py"
EGRESS = REPOSITORY / "deploy" / "compose" / "egress.yaml"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The secrets of a first start."""
    out = tmp_path_factory.mktemp("out")
    make_secrets(out, "make")
    return out


def make_secrets(out: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, MAKE, *arguments],
        env={**os.environ, "OUT": str(out)},
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def contents(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): path.read_text() for path in sorted(out.rglob("*")) if path.is_file()}


def environ(service: Service, made: Path) -> dict[str, str]:
    """What a container of our image finds in its environment, its secrets where they are here."""
    given = {**IMAGE.environment, **service.environment}
    (volume,) = [source for path, source in service.mounts.items() if path == given["MEMVAULT_SECRETS_DIR"]]
    folder = str(made / volume.removeprefix("secrets-"))
    return {name: value.replace(given["MEMVAULT_SECRETS_DIR"], folder) for name, value in given.items()}


def test_it_is_what_compose_reads() -> None:
    """By the schema of the specification, and by Compose itself where it is installed."""
    tool = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run([tool, "--builtin-schema", "vendor.compose-spec", FILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_accepts_it() -> None:
    if not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("Docker Compose absent")
    done = subprocess.run(["docker", "compose", "--file", FILE, "config", "--quiet"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", SETTLED)
def test_no_service_refuses_what_it_is_given(name: str, made: Path) -> None:
    settings = load_settings(environ=environ(ALL[name], made))
    assert settings.database.url is not None
    assert "memvault_app" in settings.database.url.get_secret_value()
    assert not settings.embedded


def test_each_knows_only_what_it_needs(made: Path) -> None:
    """The owner of the database is known to the migration, the key of the trail to the worker, both after a restore."""
    loaded = {name: load_settings(environ=environ(ALL[name], made)) for name in SETTLED}
    assert [name for name, one in loaded.items() if one.database.owner_url] == ["migrate", "restored"]
    assert [name for name, one in loaded.items() if one.audit.signing_key] == ["restored", "worker"]
    assert [name for name, one in loaded.items() if one.bootstrap_key] == ["service"]
    assert [name for name, one in loaded.items() if one.index.api_key] == ["service", "worker"]
    assert [name for name, one in loaded.items() if not one.worker_in_process] == ["service"]
    owners = {source: name for name, one in ALL.items() if name != "secrets" for source in one.mounts.values()}
    for volume in (one for one in whole()["volumes"] if one.startswith("secrets-")):
        users = [name for name, one in ALL.items() if volume in one.mounts.values() and name != "secrets"]
        assert users == [owners[volume]] == [volume.removeprefix("secrets-")]


def test_no_secret_is_in_the_file_or_in_an_environment(made: Path) -> None:
    secrets = [value for value in json.loads((made / "all" / "secrets.json").read_text()).values() if "\n" not in value]
    assert len(secrets) == len(set(secrets)) == 5
    assert not [
        name
        for one in ALL.values()
        for name in one.environment
        if name.endswith(("PASSWORD", "KEY", "_URL")) and not name.endswith(("INDEX__URL", "SIGNING_KEY"))
    ]


@pytest.mark.parametrize("name", list(ALL))
def test_containers_may_little(name: str) -> None:
    told = ALL[name].told
    assert told["cap_drop"] == ["ALL"]
    assert told["security_opt"] == ["no-new-privileges:true"]
    assert told.get("read_only") is True or name == "ollama", "a model is written where Ollama wants it"
    assert "privileged" not in told
    if name in OURS and name != "secrets":
        assert told["user"] == "10001:10001"
    if name == "secrets":
        # Gives files to others, and sees no network.
        assert (told["network_mode"], told["cap_add"]) == ("none", ["CHOWN", "DAC_OVERRIDE"])
    else:
        assert "cap_add" not in told


def test_only_the_service_is_reached_and_only_from_this_machine() -> None:
    assert whole()["networks"]["backend"] == {"internal": True}
    assert {name: one.told["ports"] for name, one in ALL.items() if "ports" in one.told} == {
        "service": ["127.0.0.1:8080:8080"]
    }
    for name in ("postgres", "qdrant", "migrate", "restored", "worker"):
        assert ALL[name].told["networks"] == ["backend"]


def test_a_way_out_is_for_the_worker_and_for_who_asks_for_it() -> None:
    """What it calls is elsewhere (a language model, webhooks, object storage); the stores stay where they are."""
    done = subprocess.run(
        [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", EGRESS],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    more = yaml.safe_load(EGRESS.read_text())
    assert set(more) == {"services", "networks"}
    assert more["networks"] == {"egress": {}}
    # `restored` reads the checkpoints where the worker puts them.
    assert more["services"] == {name: {"networks": {"egress": {}}} for name in ("worker", "restored")}
    assert "egress" not in whole()["networks"]
    page = (REPOSITORY / "docs" / "operate" / "compose.md").read_text()
    assert "COMPOSE_FILE=docker-compose.yml:deploy/compose/egress.yaml" in page


def test_a_restore_is_declared_by_a_container_of_its_own_that_no_start_runs(made: Path) -> None:
    """With the owner's URL and all that the worker signs with; the pages and the error name it."""
    restored, worker = ALL["restored"], ALL["worker"]
    assert restored.told["profiles"] == ["restored"]
    assert restored.told["command"] == ["audit", "restored"]
    folders = ("/var/lib/memvault-keys", "/var/lib/memvault-checkpoints")
    assert {path: restored.mounts[path] for path in folders} == {path: worker.mounts[path] for path in folders}
    one, other = (load_settings(environ=environ(service, made)).audit for service in (restored, worker))
    assert one.checkpoint_folder == other.checkpoint_folder
    assert one.signing_key is not None
    assert other.signing_key is not None
    assert one.signing_key.read_text() == other.signing_key.read_text()
    assert one.model_copy(update={"signing_key": other.signing_key}) == other
    page = (REPOSITORY / "docs" / "operate" / "compose.md").read_text()
    assert "docker compose run --rm restored" in page.split("## Restore")[1]


def test_a_restore_is_declared_by_who_knows_every_place_that_has_checkpoints(tmp_path: Path, made: Path) -> None:
    """Set as the page says, below `x-environment` and over standard input, object storage is known to it too."""
    shutil.copytree(made, tmp_path / "out")
    out = tmp_path / "out"
    for name in ("MEMVAULT_AUDIT__S3__ACCESS_KEY_ID", "MEMVAULT_AUDIT__S3__SECRET_ACCESS_KEY"):
        assert make_secrets(out, "set", name, given="an-access-key").returncode == 0
    assert make_secrets(out, "set", "MEMVAULT_LLM__API_KEY", given="sk-of-mine").returncode == 0
    assert "MEMVAULT_LLM__API_KEY" not in os.listdir(out / "restored")
    told = services(FILE.read_text().replace("&environment\n", "&environment\n  MEMVAULT_AUDIT__S3__BUCKET: acme\n"))
    restored, worker = (load_settings(environ=environ(told[name], out)).audit for name in ("restored", "worker"))
    assert restored.s3.bucket == "acme"
    assert restored.s3.secret_access_key is not None
    assert restored.model_copy(update={"signing_key": worker.signing_key}) == worker
    # What was given to the worker by an earlier release comes with the next start.
    (out / "restored" / "MEMVAULT_AUDIT__S3__SECRET_ACCESS_KEY").unlink()
    assert make_secrets(out, "make").returncode == 0
    assert load_settings(environ=environ(told["restored"], out)).audit.s3 == worker.s3
    for name in ("MEMVAULT_AUDIT__S3__ACCESS_KEY_ID", "MEMVAULT_AUDIT__S3__SECRET_ACCESS_KEY", "MEMVAULT_LLM__API_KEY"):
        assert make_secrets(out, "unset", name).returncode == 0
    assert contents(out) == contents(made)


def test_the_order_of_the_start() -> None:
    done, healthy = "service_completed_successfully", "service_healthy"
    assert {name: one.waits_for for name, one in ALL.items()} == {
        "secrets": {},
        "postgres": {"secrets": done},
        "qdrant": {"secrets": done},
        "migrate": {"postgres": healthy},
        "service": {"migrate": done, "qdrant": healthy},
        "worker": {"migrate": done, "qdrant": healthy},
        "first-key": {"service": healthy},
        "restored": {"migrate": done},
        "ollama": {},
    }
    for name in ("postgres", "qdrant", "worker"):
        assert ALL[name].told["healthcheck"]["test"][0] == "CMD"
    # The service's is the image's own; those that do not listen have none.
    assert "healthcheck" not in ALL["service"].told


@pytest.mark.parametrize("name", ["service", "worker"])
def test_there_is_time_to_end(name: str, made: Path) -> None:
    """More than the settings give it, and ten seconds for closing the stores."""
    settings = load_settings(environ=environ(ALL[name], made))
    needed = settings.server.drain_seconds + settings.server.grace_seconds + settings.queue.stop_seconds + 10
    assert int(ALL[name].told["stop_grace_period"].removesuffix("s")) > needed


def test_qdrant_has_a_key_and_reports_nothing(made: Path) -> None:
    assert ALL["qdrant"].environment["QDRANT__TELEMETRY_DISABLED"] == "true"
    assert "api_key: " in (made / "qdrant" / "config.yaml").read_text()
    (path,) = [path for path, source in ALL["qdrant"].mounts.items() if source == "secrets-qdrant"]
    assert f"{path}/config.yaml" in ALL["qdrant"].told["entrypoint"]


def test_images_are_named_with_a_version_and_can_be_others() -> None:
    text = FILE.read_text()
    for name, one in ALL.items():
        image = one.told["image"]
        tag = image.rpartition(":")[2]
        assert tag[:1].isdigit() or tag[1:2].isdigit(), f"{name}: {image}"
    for variable in ("SERVICE_IMAGE", "POSTGRES_IMAGE", "QDRANT_IMAGE", "OLLAMA_IMAGE", "REGISTRY", "BASE_IMAGE"):
        assert f"${{{variable}:-" in text
    assert ALL["ollama"].told["profiles"] == ["ollama"]


def test_what_is_made_stays(tmp_path: Path) -> None:
    """A second start changes nothing, and writes what is missing as it was."""
    assert make_secrets(tmp_path, "make").returncode == 0
    first = contents(tmp_path)
    (tmp_path / "service" / "MEMVAULT_DATABASE__URL").unlink()
    assert make_secrets(tmp_path, "make").returncode == 0
    assert contents(tmp_path) == first
    # The file of the roles has verifiers; the passwords are in none that PostgreSQL is given.
    passwords = json.loads(first["all/secrets.json"])
    assert passwords["app"] not in first["postgres/roles.sql"]
    assert "SCRAM-SHA-256$" in first["postgres/roles.sql"]


def test_a_secret_of_yours(tmp_path: Path, made: Path) -> None:
    shutil.copytree(made, tmp_path / "out")
    out = tmp_path / "out"
    assert make_secrets(out, "set", "MEMVAULT_LLM__API_KEY", given="sk-of-mine-0123456789\n").returncode == 0
    for name in ("service", "worker"):
        settings = load_settings(environ=environ(ALL[name], out))
        assert settings.llm.api_key is not None
        assert settings.llm.api_key.get_secret_value() == "sk-of-mine-0123456789"
    assert make_secrets(out, "set", "MEMVAULT_LLM__API_KEY", given="\n").returncode != 0
    assert make_secrets(out, "set", "../x", given="x").returncode != 0
    assert make_secrets(out, "drop").returncode != 0


def test_a_mistyped_secret_is_refused_and_one_that_is_there_is_taken_back(tmp_path: Path, made: Path) -> None:
    shutil.copytree(made, tmp_path / "out")
    out = tmp_path / "out"
    assert make_secrets(out, "set", "MEMVAULT_LLM__APIKEY", given="sk-of-mine").returncode != 0
    assert contents(out) == contents(made)
    assert make_secrets(out, "set", "MEMVAULT_LLM__API_KEY", given="sk-of-mine").returncode == 0
    # One that an earlier release let in stops the service, so that it must go whatever it is called.
    (out / "worker" / "MEMVAULT_LLM__APIKEY").write_text("sk-of-mine")
    for name in ("MEMVAULT_LLM__API_KEY", "MEMVAULT_LLM__APIKEY"):
        assert make_secrets(out, "unset", name).returncode == 0
    assert contents(out) == contents(made)
    for name in ("MEMVAULT_DATABASE__URL", "../all/secrets.json", "audit-signing.pem"):
        assert make_secrets(out, "unset", name).returncode != 0
    assert contents(out) == contents(made)
