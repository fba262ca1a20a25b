"""Secrets from files: every secret setting can be one, what wins, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import SecretStr

from service.errors import ConfigurationError
from service.settings import ENV_PREFIX, load_settings, setting_names

pytestmark = pytest.mark.unit

SECRET = "Fx7-kR2mQ9vT4nW8-zL5hJ3pC6yB1dG0-sA"
SECRETS = [
    name for name, field in setting_names().items() if SecretStr in (field.annotation, *get_args(field.annotation))
]
Put = Callable[..., Path]


def variable(name: str) -> str:
    return f"{ENV_PREFIX}{name.upper().replace('.', '__')}"


def sample(name: str) -> str:
    """A value that the setting takes."""
    if name.endswith("url"):
        return f"postgresql://somebody:{SECRET}@db.example.com/{name.split('.')[0]}"
    if name.endswith("wrapping_key"):
        return base64.b64encode(hashlib.sha256(name.encode()).digest()).decode()
    return f"x-key={SECRET}" if name == "telemetry.headers" else SECRET


def companions(name: str) -> set[str]:
    """The secrets of the same section: some are taken together only."""
    section, _, _ = name.rpartition(".")
    return {one for one in SECRETS if section and one.rpartition(".")[0] == section} | {name}


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write a file into the folder of secrets."""
    (tmp_path / "secrets").mkdir(mode=0o700)

    def write(name: str, content: str | bytes, mode: int = 0o600) -> Path:
        path = tmp_path / "secrets" / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    return write


@pytest.fixture
def folder(put: Put, tmp_path: Path) -> Path:
    """The folder of secrets."""
    return tmp_path / "secrets"


def loaded(folder: Path, **more: Any) -> Any:
    return load_settings(environ={"MEMVAULT_SECRETS_DIR": str(folder), **more.pop("environ", {})}, **more)


def value(settings: Any, name: str) -> Any:
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings.get_secret_value() if isinstance(settings, SecretStr) else settings


def refusal(folder: Path, **more: Any) -> str:
    with pytest.raises(ConfigurationError) as refused:
        loaded(folder, **more)
    assert len(refused.value.detail.splitlines()) == 1
    assert SECRET not in refused.value.detail
    return refused.value.detail


def test_there_are_secret_settings() -> None:
    assert {"bootstrap_key", "database.url", "database.owner_url", "index.api_key", "llm.api_key"} <= set(SECRETS)


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("spelled", [str.upper, str.lower])
def test_every_secret_can_be_a_file(name: str, spelled: Callable[[str], str], put: Put, folder: Path) -> None:
    for one in companions(name):
        put(spelled(variable(one)), sample(one) + "\n")
    assert value(loaded(folder), name) == sample(name)


def test_other_settings_and_entries_of_a_mapping_can_be_files_too(put: Put, folder: Path) -> None:
    put("MEMVAULT_SERVER__PORT", "9000\n")
    put("MEMVAULT_LLM__CONFIG__AWS_SECRET_ACCESS_KEY", SECRET)
    put("MEMVAULT_EMBEDDINGS__CONFIG", f'{{"api_key": "{SECRET}"}}')
    settings = loaded(folder)
    assert settings.server.port == 9000
    assert settings.llm.config == {"aws_secret_access_key": SECRET}
    assert settings.embeddings.config == {"api_key": SECRET}
    assert SECRET not in repr(settings)


def test_a_file_wins_over_the_configuration_and_loses_to_environment_and_flags(
    put: Put, folder: Path, tmp_path: Path
) -> None:
    config = tmp_path / "memvault.yaml"
    config.write_text(f"secrets_dir: {folder}\nserver: {{port: 7001, threads: 7}}\n")
    put("MEMVAULT_SERVER__PORT", "7002")
    assert load_settings(config=config, environ={}).server.port == 7002
    assert load_settings(config=config, environ={}).server.threads == 7
    environ = {"MEMVAULT_SERVER__PORT": "7003"}
    assert load_settings(config=config, environ=environ).server.port == 7003
    assert load_settings(config=config, environ=environ, flags={"server": {"port": 7004}}).server.port == 7004


def test_without_a_folder_no_file_is_read(put: Put, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put("MEMVAULT_SERVER__PORT", "9000")
    monkeypatch.chdir(folder)
    assert load_settings(environ={}).server.port == 8080


def test_what_is_no_setting_by_its_name_is_left_alone(put: Put, folder: Path) -> None:
    put("audit-signing.pem", "no setting", 0o644)
    (folder / "kubernetes").mkdir()
    (folder / "..data").mkdir()
    real = put("..data/real", "9000")
    (folder / "MEMVAULT_SERVER__PORT").symlink_to(Path("..data") / real.name)
    assert loaded(folder).server.port == 9000


@pytest.mark.parametrize("name", ["DATABASE__URL", "MEMVAULT_DATABASE_URL", "memvault_databse__url", "password"])
def test_a_file_that_names_no_setting_is_refused(name: str, put: Put, folder: Path) -> None:
    path = put(name, SECRET)
    assert refusal(folder).startswith(f"{path}: there is no such setting")


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o666])
def test_a_file_for_everyone_is_refused(mode: int, put: Put, folder: Path) -> None:
    path = put("MEMVAULT_BOOTSTRAP_KEY", SECRET, mode)
    told = refusal(folder)
    assert told.startswith(f"{path}: everyone can read it")
    assert "0600" in told


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640])
def test_a_file_for_the_owner_or_a_group_is_taken(mode: int, put: Put, folder: Path) -> None:
    put("MEMVAULT_BOOTSTRAP_KEY", SECRET, mode)
    assert value(loaded(folder), "bootstrap_key") == SECRET


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "is empty"), (b" \n", "is empty"), (b"\xff\xfe", "is not text"), (b"x" * 70_000, "is larger than")],
)
def test_a_file_that_holds_no_secret_is_refused(content: bytes, told: str, put: Put, folder: Path) -> None:
    path = put("MEMVAULT_BOOTSTRAP_KEY", content)
    assert refusal(folder).startswith(f"{path}: {told}")


def test_two_files_of_one_setting_are_refused(put: Put, folder: Path) -> None:
    put("MEMVAULT_BOOTSTRAP_KEY", SECRET)
    put("memvault_bootstrap_key", SECRET)
    assert "in another file" in refusal(folder)


def test_a_wrong_value_names_setting_and_file(put: Put, folder: Path) -> None:
    put("memvault_database__url", f"mysql://{SECRET}@db/x")
    told = refusal(folder)
    assert told.startswith(f"database.url (file MEMVAULT_DATABASE__URL in {folder}): must be")
    put("memvault_database__url", sample("database.url"))
    put("MEMVAULT_LLM__CONFIG", f"{{{SECRET}")
    assert refusal(folder).startswith(f"secrets_dir {folder}: ")


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none").startswith(f"secrets_dir {tmp_path / 'none'}: cannot be read")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_file_that_this_user_cannot_read_names_the_user() -> None:
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from service.errors import ConfigurationError\n"
        "from service.settings.secret_files import read_secret_files\n"
        "os.setgid(10001)\n"
        "os.setuid(10001)\n"
        "try:\n"
        "    read_secret_files(Path(sys.argv[1]), lambda name: True)\n"
        "except ConfigurationError as error:\n"
        "    print(error.detail)\n"
    )
    # Not pytest's folder, which nobody else may pass through.
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o755)
        secret = Path(place, "MEMVAULT_BOOTSTRAP_KEY")
        secret.write_text(SECRET)
        secret.chmod(0o600)
        done = subprocess.run([sys.executable, "-c", script, place], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{secret}: cannot be read by the user 10001")
