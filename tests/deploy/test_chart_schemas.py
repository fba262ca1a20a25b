"""The chart is sound for Helm, and what it renders is what Kubernetes takes, for every file in `ci/`."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils

from tests.deploy.chart import CHART, CI_FILES, NAMESPACE, NEWEST, OLDEST, RELEASE, helm, refusal, render

pytestmark = pytest.mark.deploy

VERSIONS = [f"1.{minor}.0" for minor in range(25, 38)]
#: Resources of operators: kubernetes-validate has no schemas of them, so their shape is looked at below.
CUSTOM = {"ServiceMonitor", "PrometheusRule", "HTTPRoute"}


@pytest.fixture(autouse=True)
def _read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schema of a megabyte is not parsed anew for each object."""
    monkeypatch.setattr(utils, "schema_contents", _contents)


_contents = cache(utils.schema_contents)


def check(ci: str, version: str) -> None:
    for one in render(ci, version=version).objects:
        if one["kind"] in CUSTOM:
            continue
        assert kubernetes_validate.validate(one, version, strict=True) == version.removesuffix(".0")


@pytest.mark.parametrize("ci", CI_FILES)
def test_helm_lints_it_strictly(ci: str) -> None:
    done = helm("lint", "--strict", str(CHART), "--values", str(CHART / "ci" / f"{ci}-values.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout
    assert "Fail:" not in done.stderr, "values that would not render"


def test_helm_lints_the_defaults_strictly() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("ci", CI_FILES)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_ci_file_is_valid_at_both_ends_of_the_range(ci: str, version: str) -> None:
    check(ci, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_of_the_range_takes_the_two_usual_installs(version: str) -> None:
    check("external", version)
    check("try", version)


def test_the_schemas_are_strict() -> None:
    """What is not in a schema is told, so that the tests above mean something."""
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"prots": []}}
    with pytest.raises(kubernetes_validate.ValidationError, match="prots"):
        kubernetes_validate.validate(service, NEWEST, strict=True)


def test_the_stated_range_is_the_one_that_was_validated() -> None:
    stated = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["kubeVersion"]
    last = int(VERSIONS[-1].split(".")[1])
    assert stated == f">={VERSIONS[0]}-0 <1.{last + 1}.0-0"
    assert (VERSIONS[0], VERSIONS[-1]) == (OLDEST, NEWEST)
    assert {one.removesuffix(".0") for one in VERSIONS} <= {utils.major_minor(one) for one in utils.all_versions()}


@pytest.mark.parametrize("version", ["1.24.17", "1.38.0"])
def test_versions_outside_the_range_are_refused(version: str) -> None:
    assert "incompatible with Kubernetes" in refusal("try", version=version)


@pytest.mark.parametrize("ci", CI_FILES)
def test_every_object_is_the_releases_and_named_once(ci: str) -> None:
    objects = render(ci).objects
    names = [(one["apiVersion"], one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(names) == len(set(names))
    for one in objects:
        assert one["metadata"]["namespace"] == NAMESPACE, one["metadata"]["name"]
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == RELEASE
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", one["metadata"]["name"])


def test_service_monitors_scrape_services_and_workers_with_the_token() -> None:
    monitors = render("monitoring").of("ServiceMonitor")
    services = render("monitoring").of("Service")
    assert set(monitors) == {"serve", "worker"}
    for component, monitor in monitors.items():
        assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
        assert monitor["metadata"]["labels"]["release"] == "prometheus"
        spec = monitor["spec"]
        assert spec["namespaceSelector"] == {"matchNames": [NAMESPACE]}
        (endpoint,) = spec["endpoints"]
        assert endpoint["path"] == "/metrics"
        assert endpoint["authorization"]["credentials"] == {"name": "memvault-metrics", "key": "metrics-token"}
        chosen = [
            one
            for one in services.values()
            if spec["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
        ]
        assert [port["name"] for one in chosen for port in one["spec"]["ports"]] == [endpoint["port"]], component


def test_the_rule_and_the_dashboard_are_the_files_as_they_are() -> None:
    """Prometheus' own `{{ $labels.x }}` is not Helm's; without the files there is nothing to give."""
    rules, boards = render("monitoring").of("PrometheusRule"), render("monitoring").of("ConfigMap")
    alerts, dashboard = CHART / "files" / "alerts.yaml", CHART / "files" / "dashboard.json"
    assert bool(rules) == alerts.exists()
    assert ("dashboard" in boards) == dashboard.exists()
    for rule in rules.values():
        assert rule["apiVersion"] == "monitoring.coreos.com/v1"
        assert rule["metadata"]["labels"]["release"] == "prometheus"
        assert rule["spec"] == yaml.safe_load(alerts.read_text(encoding="utf-8"))
        assert rule["spec"]["groups"]
    if dashboard.exists():
        assert boards["dashboard"]["metadata"]["labels"]["grafana_dashboard"] == "1"
        shown: Any = json.loads(boards["dashboard"]["data"]["memvault.json"])
        assert shown == json.loads(dashboard.read_text(encoding="utf-8"))


def test_the_route_leads_to_the_service() -> None:
    (route,) = render("gateway").of("HTTPRoute").values()
    (service,) = [one for name, one in render("gateway").of("Service").items() if name == ""]
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    spec = route["spec"]
    assert spec["parentRefs"] == [{"name": "public", "namespace": "gateways", "sectionName": "https"}]
    assert spec["hostnames"] == ["memory.example.com"]
    (rule,) = spec["rules"]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]
    assert rule["backendRefs"] == [{"name": service["metadata"]["name"], "port": service["spec"]["ports"][0]["port"]}]


def test_the_ingress_leads_to_the_service() -> None:
    (ingress,) = render("ingress").of("Ingress").values()
    assert ingress["spec"]["ingressClassName"] == "nginx"
    assert ingress["spec"]["tls"] == [{"secretName": "memvault-tls", "hosts": ["memory.example.com"]}]
    (rule,) = ingress["spec"]["rules"]
    assert rule["host"] == "memory.example.com"
    assert rule["http"]["paths"][0]["backend"] == {"service": {"name": "mem-memvault", "port": {"name": "http"}}}
