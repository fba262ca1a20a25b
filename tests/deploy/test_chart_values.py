"""values.yaml, its schema, its table and the notes agree with each other."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.chart import CHART, CI_FILES, helm, refusal, render
from tests.docs.chart_page import chart_page, values

pytestmark = pytest.mark.deploy

DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_the_readme_is_the_generated_one() -> None:
    """Else run: .venv/bin/python -m tests.docs.chart_page > deploy/helm/memvault/README.md"""
    assert (CHART / "README.md").read_text(encoding="utf-8") == chart_page()


def test_every_value_is_in_the_table() -> None:
    rows = {value.name for value in values()}
    assert len(rows) > 150
    missing = [leaf for leaf in leaves(DEFAULTS) if not any(leaf == row or leaf.startswith(f"{row}.") for row in rows)]
    assert not missing
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    assert [row for row in rows if f"| `{row}` |" not in readme] == []


def test_every_value_is_used() -> None:
    """A value that no template reads would promise what is not done."""
    read = "".join(path.read_text(encoding="utf-8") for path in (CHART / "templates").rglob("*.*"))
    last_words = {value.name.split(".")[-1] for value in values()}
    egress = {name for name in DEFAULTS["egress"] if f'"{name}"' in read or f"egress.{name}" in read}
    assert {word for word in last_words if not re.search(rf"\.{word}\b", read)} <= egress


def test_the_schema_knows_every_value_and_no_other() -> None:
    def same(values: dict[str, Any], schema: dict[str, Any], path: str) -> None:
        known = schema.get("properties", {})
        if path == "":
            known = {name: one for name, one in known.items() if name != "global"}
        if schema.get("additionalProperties") is False:
            assert set(known) >= set(values), path
        for name, value in values.items():
            if isinstance(value, dict) and known.get(name, {}).get("additionalProperties") is False and value:
                same(value, known[name], f"{path}.{name}".strip("."))
        if not path or path.split(".")[0] not in {"config"}:
            assert set(known) <= set(values), f"{path}: {set(known) - set(values)}"

    same(DEFAULTS, SCHEMA, "")
    assert SCHEMA["additionalProperties"] is False


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("serve.replica=3", "replica"),
        ('serve.replicas="3"', "replicas"),
        ('image.digest="sha256:abc"', "digest"),
        ('image.pullPolicy="Sometimes"', "pullPolicy"),
        ('publicUrl="http://memory.example.com"', "publicUrl"),
        ("podSecurity.runAsUser=0", "runAsUser"),
        ('config={"llm": null}', "llm"),
        ('networkPolicy.clients=[{"ipblock": {"cidr": "10.0.0.0/8"}}]', "clients"),
        ("metrics.port=0", "port"),
    ],
)
def test_the_schema_refuses_mistakes(value: str, said: str) -> None:
    told = refusal("external", value)
    assert "values don't meet the specifications of the schema" in told
    assert said in told


def test_there_is_a_ci_file_for_every_feature_that_calls_somebody() -> None:
    """And for each way to run it; every one of them is linted, rendered and validated."""
    text = "".join((CHART / "ci" / f"{name}-values.yaml").read_text(encoding="utf-8") for name in CI_FILES)
    assert [rule for rule in DEFAULTS["egress"] if rule != "dns" and f"  {rule}: [" not in text] == []
    kinds = {one["kind"] for name in CI_FILES for one in render(name).objects}
    wanted = {
        *("Deployment", "Job", "CronJob", "Service", "Ingress", "HTTPRoute", "HorizontalPodAutoscaler"),
        *("PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor", "ConfigMap", "Secret", "ServiceAccount"),
        *("StatefulSet", "Pod"),
    }
    assert wanted <= kinds <= wanted | {"PrometheusRule"}


@pytest.mark.parametrize(
    ("ci", "key"),
    [
        ("try", "get secret mem-memvault-generated -o"),
        ("external", "get secret memvault-bootstrap -o"),
        ("air-gapped", "exec deploy/mem-memvault-serve -- memvault key create"),
    ],
)
def test_the_notes_have_the_next_three_commands(ci: str, key: str, tmp_path: Path) -> None:
    """Helm shows them only where there is a cluster; so a copy of the chart renders them into an object."""
    chart = tmp_path / "memvault"
    shutil.copytree(CHART, chart)
    text = (CHART / "templates" / "NOTES.txt").read_text(encoding="utf-8")
    (chart / "templates" / "notes.yaml").write_text(
        f'{{{{- define "notes" -}}}}{text}{{{{- end -}}}}\n'
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata:\n"
        '  text: |-\n    {{- include "notes" . | nindent 4 }}\n',
        encoding="utf-8",
    )
    values = ["--values", str(CHART / "ci" / f"{ci}-values.yaml"), "--show-only", "templates/notes.yaml"]
    done = helm("template", "mem", str(chart), "--namespace", "apps", *values)
    assert done.returncode == 0, done.stderr
    notes = yaml.safe_load(done.stdout)["data"]["text"]
    steps = re.split(r"^\d\. ", notes, flags=re.MULTILINE)[1:]
    assert len(steps) == 3
    names = {one["metadata"]["name"] for one in render(ci).objects}
    commands = [line.strip() for line in notes.splitlines() if line.startswith("   ") and line.strip()]
    assert commands[0] == ("kubectl -n apps rollout status deployment/mem-memvault-serve && helm -n apps test mem")
    assert key in commands[1]
    assert "base64decode }}'" in commands[1] or ci == "air-gapped"
    assert commands[2].startswith("curl -sS http://127.0.0.1:8080/v3/memories/add/")
    assert "port-forward service/mem-memvault 8080:8080" in steps[2]
    assert {"mem-memvault-serve", "mem-memvault"} <= names
    assert ("networkPolicy.enabled is off" in notes) == (ci == "no-policy")
    assert ("one pod, no backup" in notes) == (ci == "try")
