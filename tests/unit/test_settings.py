"""Where settings come from, which source wins, and how a mistake is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.errors import ConfigurationError
from service.settings import ENV_PREFIX, Fallback, load_settings, setting_names

pytestmark = pytest.mark.unit


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A file with settings."""
    path = tmp_path / "memvault.yaml"
    path.write_text("server:\n  host: 10.0.0.1\n  port: 7001\n  threads: 5\nlog:\n  level: warning\n")
    return path


def refusal(**sources: Any) -> str:
    """Return what is said to a wrong setting: one line."""
    with pytest.raises(ConfigurationError) as refused:
        load_settings(**{"environ": {}, **sources})
    assert len(refused.value.detail.splitlines()) == 1
    return refused.value.detail


def test_defaults_are_the_embedded_mode_on_this_machine_only() -> None:
    settings = load_settings(environ={})
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8080)
    assert settings.embedded
    assert settings.worker_in_process
    assert settings.fallback is Fallback.VERBATIM
    assert settings.data_dir == Path(".memvault")
    assert settings.llm.provider is None


def test_with_a_server_the_defaults_are_the_careful_ones() -> None:
    settings = load_settings(environ={"MEMVAULT_DATABASE__URL": "postgresql://app@db/memvault"})
    assert not settings.embedded
    # The index is embedded all the same, and belongs to one process.
    assert settings.worker_in_process
    assert settings.fallback is Fallback.REFUSE


def test_a_later_source_wins_and_leaves_its_neighbours(config: Path) -> None:
    environ = {"MEMVAULT_SERVER__PORT": "7002", "MEMVAULT_LOG__LEVEL": "debug"}
    flags = {"server": {"port": 7003, "host": None}, "data_dir": None}
    default = load_settings(environ={}).server.body_limit
    assert load_settings(config=config, environ={}).server.port == 7001
    assert load_settings(config=config, environ=environ).server.port == 7002
    settings = load_settings(config=config, environ=environ, flags=flags)
    assert settings.server.port == 7003
    assert (settings.server.host, settings.server.threads) == ("10.0.0.1", 5)
    assert settings.server.body_limit == default
    assert settings.log.level == "debug"
    assert settings.data_dir == Path(".memvault")


def test_every_setting_can_be_given_by_its_variable() -> None:
    values: dict[str, str] = {
        "data_dir": "/srv/memvault",
        "server.port": "0",
        "server.body_limit": "2048",
        "llm.provider": "openai",
        "llm.config": '{"temperature": 0.5}',
        "llm.timeout": "7.5",
        "extraction.fallback": "refuse",
        "history.keep_deleted": "true",
        "queue.in_process": "false",
        "log.format": "json",
    }
    assert set(values) <= set(setting_names())
    environ = {f"{ENV_PREFIX}{name.upper().replace('.', '__')}": value for name, value in values.items()}
    settings = load_settings(environ=environ)
    assert settings.data_dir == Path("/srv/memvault")
    assert (settings.server.port, settings.server.body_limit) == (0, 2048)
    assert (settings.llm.provider, settings.llm.config, settings.llm.timeout) == ("openai", {"temperature": 0.5}, 7.5)
    assert settings.fallback is Fallback.REFUSE
    assert settings.history.keep_deleted is True
    assert settings.worker_in_process is False
    assert settings.log.format == "json"


def test_what_may_be_null_is_so_by_its_variable(tmp_path: Path) -> None:
    names = ["index.grpc_port", "retention.expired_days", "retention.event_days", "duplicates.similarity"]
    environ = {f"{ENV_PREFIX}{name.upper().replace('.', '__')}": "null" for name in names}
    assert set(names) <= set(setting_names())
    # Each is something else by default, and in the file, which the environment wins over.
    path = tmp_path / "memvault.yaml"
    path.write_text("index: {grpc_port: 7334}\n")
    for config in (None, path):
        settings = load_settings(environ=environ, config=config)
        assert settings.index.grpc_port is None
        assert (settings.retention.expired_days, settings.retention.event_days) == (None, None)
        assert settings.duplicates.similarity is None
    assert load_settings(environ={}).index.grpc_port == 6334
    # What is a text may be that word, and what may not be null is refused as before.
    assert load_settings(environ={"MEMVAULT_LLM__MODEL": "null"}).llm.model == "null"
    for name in ("MEMVAULT_SERVER__PORT", "MEMVAULT_QUEUE__CONCURRENCY"):
        assert name in refusal(environ={name: "null"})
    assert "MEMVAULT_INDEX__GRPC_PORT" in refusal(environ={"MEMVAULT_INDEX__GRPC_PORT": ""})


@pytest.mark.parametrize("times", ["17 * * * *", "*/10 * * * * *", "0 0 29 2 *", "@daily", "30 3 * * mon-fri"])
def test_times_are_given_as_cron_says_them(times: str) -> None:
    environ = {"MEMVAULT_RETENTION__SWEEP": times, "MEMVAULT_DUPLICATES__LOOK": times}
    settings = load_settings(environ=environ)
    assert (settings.retention.sweep, settings.duplicates.look) == (times, times)


@pytest.mark.parametrize(
    "times", ["17 * * *", "61 * * * *", "hourly", "0 0 31 2 *", "H * * * *", "0 0 1 1 * 0 2099", "@reboot"]
)
@pytest.mark.parametrize("name", ["retention.sweep", "duplicates.look"])
def test_times_that_are_none_or_never_come_do_not_start(name: str, times: str) -> None:
    told = refusal(environ={f"{ENV_PREFIX}{name.upper().replace('.', '__')}": times})
    assert told.startswith(f"{name} ")
    assert "cron" in told


@pytest.mark.parametrize("never", ["null", "off", ""])
def test_duplicates_may_never_be_looked_for(tmp_path: Path, never: str) -> None:
    path = tmp_path / "memvault.yaml"
    path.write_text("duplicates: {look: 30 3 * * *}\n")
    assert load_settings(config=path, environ={}).duplicates.look == "30 3 * * *"
    assert load_settings(config=path, environ={"MEMVAULT_DUPLICATES__LOOK": never}).duplicates.look is None
    path.write_text(f"duplicates: {{look: {never}}}\n")
    assert load_settings(config=path, environ={}).duplicates.look is None
    # The sweep has to come.
    assert refusal(environ={"MEMVAULT_RETENTION__SWEEP": never}).startswith("retention.sweep ")


def test_what_may_be_off_is_so_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "memvault.yaml"
    path.write_text("duplicates: {similarity: off, look: off}\n")
    duplicates = load_settings(config=path, environ={}).duplicates
    assert (duplicates.similarity, duplicates.look) == (None, None)


def test_a_variable_turns_the_bucket_off_that_a_file_names(tmp_path: Path) -> None:
    config = tmp_path / "memvault.yaml"
    config.write_text("audit: {s3: {bucket: trail}}\n")
    assert load_settings(config=config, environ={"MEMVAULT_AUDIT__S3__BUCKET": ""}).audit.s3.bucket is None


def test_a_free_form_entry_can_be_nested_in_the_environment() -> None:
    settings = load_settings(
        environ={"MEMVAULT_EMBEDDINGS__CONFIG__MODEL": "nomic", "MEMVAULT_LLM__CONFIG__TOP_P": "1"}
    )
    assert settings.embeddings.config == {"model": "nomic"}
    assert "top_p" in settings.llm.config


def test_variables_of_others_and_of_the_tests_are_not_ours() -> None:
    load_settings(environ={"PATH": "/bin", "MEMVAULTX": "1", "MEMVAULT_TEST_DATABASE_URL": "postgresql://x"})


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("sever:\n  port: 1\n", "sever"),
        ("server:\n  prot: 1\n", "server.prot"),
        ("server:\n  port: eighty\n", "server.port"),
        ("server:\n  port: 65536\n", "server.port"),
        ("server: 8080\n", "server"),
        ("llm:\n  base_url: ftp://llm\n", "llm.base_url"),
        ("llm:\n  timeout: 0\n", "llm.timeout"),
        ("log:\n  level: loud\n", "log.level"),
        ("extraction:\n  fallback: guess\n", "extraction.fallback"),
        ("bootstrap_key: short\n", "bootstrap_key"),
        ("database:\n  url: mysql://db\n", "database.url"),
        ("database:\n  app_role: 'a; drop'\n", "database.app_role"),
        ("auth:\n  cache_seconds: 6\n", "auth.cache_seconds"),
    ],
)
def test_a_mistake_in_the_file_names_setting_and_file(tmp_path: Path, content: str, names: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(content)
    told = refusal(config=path)
    assert told.startswith(f"{names} ")
    assert str(path) in told


@pytest.mark.parametrize(
    "content", [b"- a\n- b\n", b"a: [b\n", b"just text\n", b"\xff\xfe\x00", b"a: !!python/name:os\n"]
)
def test_a_file_that_is_none_of_ours_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_bytes(content)
    assert refusal(config=path).startswith(f"--config {path}: ")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("quotas: {memories: 5}\nlog: {level: info}\nquotas: {bytes: 7}\n", "line 3: the key 'quotas' stands twice"),
        ('quotas: {memories: 5}\n"quotas": {bytes: 7}\n', "line 2: the key 'quotas' stands twice"),
        ("server:\n  port: 1\n  port: 2\n", "line 3: the key 'port' stands twice"),
        ("llm: {config: {a: [{b: 1, b: 2}]}}\n", "line 1: the key 'b' stands twice"),
        ("log: {level: info}\non: true\n", "line 2: a key is no text"),
        ("1: 2\n", "line 1: a key is no text"),
        ("llm:\n  config:\n    null: 2\n", "line 3: a key is no text"),
        ("? [a, b]\n: 1\n", "line 1: a key is no text"),
    ],
)
def test_a_key_that_cannot_be_meant_is_told_with_its_line(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(content)
    assert refusal(config=path).startswith(f"--config {path}: {told}")


def test_what_a_file_merges_may_be_said_again(tmp_path: Path) -> None:
    path = tmp_path / "memvault.yaml"
    path.write_text("embeddings: {config: &base {a: 1, b: 2}}\nllm: {config: &more {<<: *base, b: 3}}\n")
    assert load_settings(config=path, environ={}).llm.config == {"a": 1, "b": 3}
    path.write_text(f"{path.read_text()}log: {{level: info}}\n")
    assert load_settings(config=path, environ={}).log.level == "info"


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        assert refusal(config=path).startswith(f"--config {path}: cannot be read")


def test_an_empty_file_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing yet\n")
    assert load_settings(config=path, environ={}) == load_settings(environ={})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MEMVAULT_SEVER__PORT", "1"),
        ("MEMVAULT_SERVER__PROT", "1"),
        ("MEMVAULT_SERVER_PORT", "1"),
        ("MEMVAULT_SERVER__PORT__X", "1"),
        ("MEMVAULT_LOG__LEVEL", "loud"),
        ("MEMVAULT_SERVER__THREADS", "many"),
        ("MEMVAULT_BOOTSTRAP_KEY", "short"),
        ("MEMVAULT_LLM__BASE_URL", "llm.local"),
        ("MEMVAULT_DATABASE__OWNER_URL", "not a url"),
        ("MEMVAULT_ERASURE__BACKUP_DAYS", "4000000"),
        ("MEMVAULT_ERASURE__KEYRING_BACKUP_DAYS", "4000000"),
        ("MEMVAULT_AUDIT__RETENTION_DAYS", "4000000"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(variable: str, value: str) -> None:
    assert variable in refusal(environ={variable: value})


def test_a_variable_that_is_not_the_json_it_must_be_is_refused() -> None:
    assert "environment" in refusal(environ={"MEMVAULT_LLM__CONFIG": "{not json"})


def test_a_mistake_in_a_flag_names_the_setting() -> None:
    assert refusal(flags={"server": {"port": -1}}).startswith("server.port (flag)")


def test_secrets_are_neither_shown_nor_repeated() -> None:
    secret = "s3cret-words-of-a-length-that-will-do"
    settings = load_settings(
        environ={
            "MEMVAULT_BOOTSTRAP_KEY": secret,
            "MEMVAULT_DATABASE__URL": f"postgresql://app:{secret}@db/x",
            "MEMVAULT_DATABASE__OWNER_URL": f"postgresql://owner:{secret}@db/x",
            "MEMVAULT_LLM__API_KEY": secret,
            "MEMVAULT_LLM__CONFIG__API_KEY": secret,
            "MEMVAULT_EMBEDDINGS__CONFIG__API_KEY": secret,
        }
    )
    for shown in (repr(settings), str(settings), repr(settings.llm)):
        assert "s3cret" not in shown
    assert "s3cret" not in refusal(environ={"MEMVAULT_DATABASE__URL": f"mysql://app:{secret}@db/x"})
    assert "s3cret" not in refusal(environ={"MEMVAULT_BOOTSTRAP_KEY": "s3cret"})


@pytest.mark.parametrize(
    "key",
    [
        "0123456789abcdef" * 33,
        "0123456789abcdefghijklmnopqrstuvwxyé",
        "0123456789abcdefghijklmnopqrstuvwxy\n",
        " 0123456789abcdefghijklmnopqrstuvwxyz",
    ],
    ids=["too long", "not ASCII", "a line end", "a space before it"],
)
def test_a_bootstrap_key_that_no_request_could_carry_is_refused(key: str) -> None:
    told = refusal(environ={"MEMVAULT_BOOTSTRAP_KEY": key})
    assert told.startswith("bootstrap_key ")
    assert "printable ASCII" in told
    assert key.strip() not in told


def test_settings_do_not_change_after_they_were_read() -> None:
    settings = load_settings(environ={})
    with pytest.raises(ValueError, match="frozen"):
        settings.server.port = 1  # type: ignore[misc]


def test_no_file_is_read_that_nobody_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("MEMVAULT_SERVER__PORT=1\n")
    monkeypatch.chdir(tmp_path)
    assert load_settings(environ={}).server.port == 8080
