"""What the chart renders is what the service takes: its own loader reads the files and the secrets of every pod."""

from __future__ import annotations

import base64
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from service.errors import ConfigurationError
from service.settings import Settings, load_settings, setting_names
from tests.deploy.chart import CHART, CI_FILES, Object, refusal, render

pytestmark = pytest.mark.deploy

KINDS = {
    "serve": "serve",
    "worker": "worker",
    "sweep": "job",
    "audit-verify": "verify",
    "migrate": "migrate",
    "restored": "restored",
}
#: What stands in the secrets, by the setting that it is for.
SAMPLES = {
    "MEMVAULT_DATABASE__URL": "postgresql://memvault_app:hX2mQ7vN4kT9@db.example.com/memvault",
    "MEMVAULT_DATABASE__OWNER_URL": "postgresql://memvault_owner:pW6rJ3zC8yL5@db.example.com/memvault",
    "MEMVAULT_DATABASE__MAINTENANCE_URL": "postgresql://memvault_maintenance:aR5tG8uM2xK7@db.example.com/memvault",
    "MEMVAULT_KEYRING__URL": "postgresql://memvault_keys:dF4jS9wB6nP3@keys.example.com/memvault_keys",
    "MEMVAULT_KEYRING__WRAPPING_KEY": "q6E0wW8mJ3Zs1vYp5Lk9Xn2RtB7cUdFhGiKoNjMeQaI=",
    "MEMVAULT_INDEX__API_KEY": "b7f0d2c94e1a4f6c8d3b5a7e9c1f2d4b",
    "MEMVAULT_BOOTSTRAP_KEY": "b7f0d2c94e1a4f6c8d3b5a7e9c1f2d4b",
    "MEMVAULT_METRICS__TOKEN": "b7f0d2c94e1a4f6c8d3b5a7e9c1f2d4b",
    "MEMVAULT_TELEMETRY__HEADERS": "authorization=abc",
}
#: What the image sets; the chart's files and secrets are read with it.
IMAGE = {"MEMVAULT_DATA_DIR": "/var/lib/memvault", "MEMVAULT_SERVER__HOST": "0.0.0.0"}


def test_a_term_of_the_trail_needs_who_may_keep_it() -> None:
    term = 'config={"audit": {"retention_days": 400}}'
    assert "database.maintenanceUrlKey: is needed" in refusal("external", term)
    assert "database.maintenanceUrlKey: is needed" in refusal("try", term)
    render("external", term, 'database.maintenanceUrlKey="maintenance-url"')


def loaded(ci: str, component: str, folder: Path, *sets: str) -> Settings:
    """The settings of a pod, from its config file, its folder of secrets and its variables."""
    rendered = render(ci, *sets)
    spec = rendered.pods()[component]
    (container,) = spec["containers"]
    kind = KINDS[component]
    assert container["args"][-2:] == ["--config", f"/etc/memvault/config/{kind}.yaml"]
    config = folder / f"{kind}.yaml"
    config.write_text(yaml.safe_dump(rendered.config(kind)), encoding="utf-8")
    secrets = folder / f"secrets-{component}"
    secrets.mkdir(mode=0o700)
    (volume,) = [one for one in spec["volumes"] if one["name"] == "secrets"]
    for source in volume["projected"]["sources"]:
        for item in source["secret"]["items"]:
            file = secrets / item["path"]
            file.write_text(SAMPLES.get(item["path"], "a-value-from-a-secret"), encoding="utf-8")
            file.chmod(0o440)
    environ = dict(IMAGE)
    for variable in container["env"]:
        environ[variable["name"]] = variable.get("value", "a-value-from-a-secret")
    assert environ.pop("MEMVAULT_SECRETS_DIR") == "/run/memvault/secrets"
    return load_settings(config=config, environ=environ | {"MEMVAULT_SECRETS_DIR": str(secrets)})


@pytest.mark.parametrize("ci", CI_FILES)
def test_every_pod_gets_settings_that_the_service_takes(ci: str, tmp_path: Path) -> None:
    for component in set(render(ci).pods()) & set(KINDS):
        settings = loaded(ci, component, tmp_path)
        assert not settings.embedded, component
        assert str(settings.data_dir) == "/var/lib/memvault"
        assert settings.log.format == "json"
        if component == "migrate":
            assert settings.database.owner_url is not None
            assert settings.database.app_role == "memvault_app"
        if component in {"serve", "worker"}:
            assert settings.index.url is not None
            assert settings.server.host == "0.0.0.0"
        if component == "serve":
            assert settings.worker_in_process == ("worker" not in render(ci).pods())
            signs = settings.audit.signing_key is not None
            assert signs == settings.worker_in_process, "a service without the worker has no key to sign with"
        if component == "audit-verify":
            mounted = "signing" in [volume["name"] for volume in render(ci).pods()[component]["volumes"]]
            assert (settings.audit.signing_key is not None) == mounted, "it needs a key to verify with"
            assert mounted or settings.audit.public_keys
            assert settings.audit.s3.bucket is None
        if component == "worker":
            assert settings.audit.signing_key == Path("/run/memvault/signing/key.pem")
            assert settings.metrics.port == 9464


def test_a_declared_restore_gets_the_owner_and_what_the_worker_signs_with(tmp_path: Path) -> None:
    restored = loaded("checkpoints-folder", "restored", tmp_path, "restored.enabled=true")
    assert restored.database.owner_url is not None
    assert restored.audit.signing_key == Path("/run/memvault/signing/key.pem")
    assert restored.audit.checkpoint_folder == Path("/var/lib/memvault-checkpoints")
    assert restored.keyring.folder == Path("/var/lib/memvault-keys")
    (tmp_path / "s3").mkdir()
    stored = loaded("checkpoints-s3", "restored", tmp_path / "s3", "restored.enabled=true")
    assert stored.audit.s3.bucket == "memvault-checkpoints"
    assert stored.audit.s3.secret_access_key is not None
    assert stored.llm.provider is None


def test_the_features_of_the_ci_files_arrive(tmp_path: Path) -> None:
    def of(ci: str, component: str = "worker") -> Settings:
        folder = tmp_path / f"{ci}-{component}-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        return loaded(ci, component, folder)

    assert of("llm").llm.model == "qwen3:8b"
    assert of("llm", "serve").llm.api_key is not None
    assert of("embeddings").embeddings.config["api_key"] == "a-value-from-a-secret"
    oidc = of("oidc", "serve")
    assert oidc.server.public_url == "https://memory.example.com"
    assert oidc.auth.oidc.ca_file == Path("/etc/memvault/ca/ca.crt")
    s3 = of("checkpoints-s3")
    assert s3.audit.s3.bucket == "memvault-checkpoints"
    assert s3.audit.s3.secret_access_key is not None
    assert s3.audit.previous_signing_key == Path("/run/memvault/signing/previous.pem")
    assert of("checkpoints-s3", "serve").audit.s3.bucket is None
    folder = of("checkpoints-folder")
    assert folder.audit.checkpoint_folder == Path("/var/lib/memvault-checkpoints")
    assert of("checkpoints-folder", "audit-verify").audit.checkpoint_folder == folder.audit.checkpoint_folder
    assert of("checkpoints-folder", "sweep").audit.checkpoint_folder is None
    assert folder.keyring.folder == Path("/var/lib/memvault-keys")
    assert folder.database.maintenance_url is not None
    assert folder.audit.retention_days == 400
    assert of("syslog").audit.syslog.protocol == "tls"
    assert of("webhooks").webhooks.allowed_hosts == ["hooks.example.com"]
    assert of("try").index.trusted_network
    assert of("try").index.url == "http://mem-memvault-qdrant:6333"
    assert {"memory.example.com", "mem-memvault", "mem-memvault.apps.svc"} <= set(
        of("ingress", "serve").server.allowed_hosts
    )
    assert of("traces").telemetry.otlp_endpoint == "https://otel-collector.example.com:4318"
    assert of("monitoring").metrics.token is not None


def test_config_reaches_the_service_as_it_is_and_mistakes_are_told(tmp_path: Path) -> None:
    """Numbers stay whole, and a name that the service does not know is refused by it."""
    server = {"body_limit": 41943040, "allowed_hosts": ["x.example.com"]}
    given = f"config={json.dumps({'server': server, 'quotas': {'memories': 1000000}})}"
    settings = loaded("external", "serve", tmp_path, given)
    assert settings.server.body_limit == 41_943_040
    assert settings.quotas.memories == 1_000_000
    assert {"x.example.com", "mem-memvault"} <= set(settings.server.allowed_hosts)
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigurationError, match="there is no such setting"):
        loaded("external", "serve", tmp_path / "other", 'config={"server": {"body_limits": 1}}')


def test_the_migration_gets_the_settings_that_are_about_it(tmp_path: Path) -> None:
    """And none that it has no secret for."""
    change = {"migration": {"lock_timeout": 1.5}, "database": {"app_role": "memory_app"}, "log": {"level": "debug"}}
    given = f"config={json.dumps(change)}"
    settings = loaded("checkpoints-s3", "migrate", tmp_path, given)
    assert settings.migration.lock_timeout == 1.5
    assert settings.database.app_role == "memory_app"
    assert settings.log.level == "debug"
    assert set(render("checkpoints-s3", given).config("migrate")) == {"data_dir", "database", "log", "migration"}
    deadline = render("external").of("Job")["migrate"]["spec"]["activeDeadlineSeconds"]
    assert deadline > settings.migration.statement_timeout


def test_the_schema_knows_the_sections_of_the_settings() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    sections = {name.split(".")[0] for name in setting_names() if "." in name}
    assert set(schema["properties"]["config"]["properties"]) == sections


def secrets_of_the_service() -> set[str]:
    return {name for name, field in setting_names().items() if "SecretStr" in str(field.annotation)}


def nested(name: str, value: Any) -> str:
    for part in reversed(name.split(".")):
        value = {part: value}
    return f"config={json.dumps(value)}"


@pytest.mark.parametrize("name", sorted(secrets_of_the_service()))
def test_a_secret_in_config_is_refused(name: str) -> None:
    """Every secret setting that the service has: config is a ConfigMap."""
    assert f"config.{name}: is a secret, which does not belong in config" in refusal("external", nested(name, "x"))


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("data_dir", "emptyDir"),
        ("server.host", "probes"),
        ("server.port", "serve.port"),
        ("server.public_url", "publicUrl"),
        ("queue.in_process", "worker.enabled"),
        ("index.url", "index.url"),
        ("keyring.folder", "keyring.existingClaim"),
        ("audit.signing_key", "audit.existingSecret"),
        ("audit.checkpoint_folder", "audit.checkpointsClaim"),
    ],
)
def test_what_the_chart_sets_is_not_set_twice(name: str, instead: str) -> None:
    assert name in setting_names()
    said = refusal("external", nested(name, "x"))
    assert f"config.{name}: is set by the chart" in said
    assert instead in said


def test_secrets_of_models_are_variables_from_secrets() -> None:
    assert "config.llm.config.api_key: is a secret" in refusal("llm", 'config={"llm": {"config": {"api_key": "x"}}}')
    inside = 'config={"embeddings": {"config": {"azure": {"client_secret": "x"}}}}'
    assert "config.embeddings.config.client_secret: is a secret" in refusal("embeddings", inside)
    plain_number = render("llm", 'config={"llm": {"config": {"max_tokens": 1000}}}').config("serve")
    assert plain_number["llm"]["config"] == {"max_tokens": 1000}
    for name in ("MEMVAULT_LLM__PROVIDER", "MEMVAULT_DATABASE__URL", "memvault_llm__provider"):
        assert "a setting belongs in config" in refusal(
            "external", f'serve.extraEnv=[{{"name": "{name}", "value": "x"}}]'
        )
    plain = '[{"name": "MEMVAULT_LLM__CONFIG__API_KEY", "value": "x"}]'
    assert "give it by valueFrom.secretKeyRef" in refusal("external", f"worker.extraEnv={plain}")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("database.existingSecret", 'database.existingSecret=""'),
        ("index.url", 'index.url=""'),
        ("index.existingSecret", 'index.existingSecret=""'),
        ("keyring.existingSecret", 'keyring.existingSecret=""'),
        ("bootstrap.existingSecret", 'bootstrap.existingSecret=""'),
        ("audit.existingSecret", 'audit.existingSecret=""'),
    ],
)
def test_what_is_needed_is_named(name: str, change: str) -> None:
    assert f"{name}: is needed" in refusal("external", change)


@pytest.mark.parametrize(("way", "hosts"), [("ingress", "hosts"), ("gateway", "hostnames")])
def test_a_host_with_a_wildcard_needs_the_names_that_mcp_answers_to(way: str, hosts: str) -> None:
    """The service compares whole names; `*.example.com` would be one that nobody has."""
    wild = f'{way}.{hosts}=["*.example.com"]'
    assert f"{way}.{hosts}: *.example.com: MCP answers to whole names only" in refusal(way, wild, 'publicUrl=""')
    named = (
        'publicUrl="https://memory.example.com"',
        'config.server={"allowed_hosts": ["memory.example.com"]}',
    )
    for name in named:
        told = render(way, 'publicUrl=""', wild, name).config("serve")["server"]["allowed_hosts"]
        assert "memory.example.com" in told
        assert "*.example.com" not in told


def test_without_any_values_the_first_thing_that_is_needed_is_named() -> None:
    assert "database.existingSecret: is needed" in refusal(None)


def test_stores_are_in_one_place() -> None:
    assert "cannot be used together" in refusal("try", 'database.existingSecret="x"')
    assert "cannot be used together" in refusal("try", 'index.existingSecret="x"')
    assert "cannot be used together" in refusal("external", 'keyring.existingClaim="x"')


def test_generated_secrets_satisfy_the_service() -> None:
    data: Object = render("try").of("Secret")["generated"]["data"]
    values = {key: base64.b64decode(value).decode() for key, value in data.items()}
    settings = load_settings(
        environ={
            "MEMVAULT_DATABASE__URL": values["url"],
            "MEMVAULT_DATABASE__OWNER_URL": values["owner-url"],
            "MEMVAULT_BOOTSTRAP_KEY": values["bootstrap-key"],
            "MEMVAULT_INDEX__URL": "http://mem-memvault-qdrant:6333",
            "MEMVAULT_INDEX__TRUSTED_NETWORK": "true",
            "MEMVAULT_INDEX__API_KEY": values["qdrant-api-key"],
        }
    )
    assert isinstance(settings.database.url, SecretStr)
    assert values["url"].startswith("postgresql://memvault_app:")
    assert values["owner-url"].startswith("postgresql://memvault_owner:")
    assert values["audit-signing.pem"].startswith("-----BEGIN PRIVATE KEY-----")


def test_the_chart_is_of_the_services_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = tomllib.loads((CHART.parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == project["project"]["version"]
