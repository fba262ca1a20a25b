"""The network policies: everything is denied but what is named, and a feature without its rule is not rendered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.deploy.chart import CI_FILES, Object, Rendered, refusal, render

pytestmark = pytest.mark.deploy

DNS = {("UDP", 53), ("TCP", 53)}


def policies(rendered: Rendered) -> dict[str, Object]:
    return {name: one["spec"] for name, one in rendered.of("NetworkPolicy").items()}


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def out(policy: Object) -> set[str]:
    """Where a policy lets traffic go, name servers left out: a network, a namespace or a component of the release."""
    found = set()
    for rule in policy.get("egress", []):
        assert rule["to"], "a rule for everywhere"
        if {(port.get("protocol", "TCP"), port["port"]) for port in rule["ports"]} == DNS:
            continue
        for peer in rule["to"]:
            if "ipBlock" in peer:
                found.add(peer["ipBlock"]["cidr"])
            elif "namespaceSelector" in peer:
                found.add(peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"])
            else:
                found.add(peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"])
    return found


@pytest.mark.parametrize("ci", [ci for ci in CI_FILES if ci != "no-policy"])
def test_everything_is_denied_for_every_pod_and_each_has_one_policy_of_its_own(ci: str) -> None:
    rendered = render(ci)
    found = policies(rendered)
    deny = found.pop("deny")
    assert sorted(deny["policyTypes"]) == ["Egress", "Ingress"]
    assert not {"ingress", "egress"} & set(deny)
    pods = rendered.pods()
    assert set(found) == set(pods)
    for component, spec in pods.items():
        assert selects(deny["podSelector"], spec["labels"])
        chosen = [name for name, policy in found.items() if selects(policy["podSelector"], spec["labels"])]
        assert chosen == [component]
        assert sorted(found[component]["policyTypes"]) == ["Egress", "Ingress"]


def test_each_kind_of_pod_reaches_what_it_needs_and_nothing_else() -> None:
    everything = {
        name: [{"to": [{"ipBlock": {"cidr": f"10.0.{number}.0/24"}}], "ports": [{"port": 443}]}]
        for number, name in enumerate(
            ("postgres", "qdrant", "keyring", "llm", "embeddings", "oidc", "checkpoints", "otlp", "syslog", "webhooks")
        )
    }
    found = policies(render("external", *(f"egress.{name}={json.dumps(rule)}" for name, rule in everything.items())))
    number = {name: rule[0]["to"][0]["ipBlock"]["cidr"] for name, rule in everything.items()}
    reached = {
        component: {name for name, cidr in number.items() if cidr in out(policy)} for component, policy in found.items()
    }
    stores = {"postgres", "qdrant", "keyring"}
    assert reached == {
        "deny": set(),
        "serve": stores | {"llm", "embeddings", "oidc", "otlp", "syslog"},
        "worker": stores | {"llm", "embeddings", "otlp", "syslog", "checkpoints", "webhooks"},
        "migrate": {"postgres", "keyring"},
        "sweep": {"postgres", "keyring"},
        "audit-verify": {"postgres", "keyring"},
        "test": set(),
    }
    assert out(found["test"]) == {"serve"}
    alone = policies(
        render(
            "external",
            "worker.enabled=false",
            *(f"egress.{name}={json.dumps(rule)}" for name, rule in everything.items()),
        )
    )
    assert {name for name, cidr in number.items() if cidr in out(alone["serve"])} == set(number)


def test_the_stores_of_the_release_are_reached_by_those_who_need_them_and_call_nobody() -> None:
    found = policies(render("try"))
    for name, callers in {
        "postgresql": {"serve", "worker", "migrate", "sweep", "audit-verify"},
        "qdrant": {"serve", "worker"},
    }.items():
        assert "egress" not in found[name]
        # A restore is declared by a hook, which runs before the upgrade that asks for it changes this policy.
        let_in = callers | {"restored"} if name == "postgresql" else callers
        (rule,) = found[name]["ingress"]
        assert {peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in rule["from"]} == let_in
        assert {component for component, policy in found.items() if name in out(policy)} == callers
    assert out(found["serve"]) == {"postgresql", "qdrant"}
    assert out(found["sweep"]) == {"postgresql"}


def test_a_declared_restore_reaches_the_record_the_keyring_and_the_checkpoints() -> None:
    found = policies(render("checkpoints-s3", "restored.enabled=true"))["restored"]
    wanted = policies(render("checkpoints-s3"))
    assert out(found) >= out(wanted["migrate"])
    assert out(found) < out(wanted["worker"])
    tried = policies(render("try", "restored.enabled=true"))
    assert out(tried["restored"]) == {"postgresql"}
    assert tried["postgresql"] == policies(render("try"))["postgresql"]


def test_only_the_service_is_called_and_only_by_those_who_are_named() -> None:
    plain = policies(render("external"))
    assert {name for name, policy in plain.items() if "ingress" in policy} == {"serve"}
    (rule,) = plain["serve"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": "http"}]
    assert rule["from"][1:] == [{"podSelector": {}}]
    assert rule["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"
    controller = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}
    assert controller in policies(render("ingress"))["serve"]["ingress"][0]["from"]
    scraper = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    watched = policies(render("monitoring"))
    assert scraper in watched["serve"]["ingress"][0]["from"]
    assert watched["worker"]["ingress"] == [{"from": [scraper], "ports": [{"protocol": "TCP", "port": "metrics"}]}]


def test_a_way_in_that_is_not_the_charts_has_its_peers_too() -> None:
    """A Prometheus without the operator, an ingress or a load balancer of one's own."""
    label = "kubernetes.io/metadata.name"
    named = [{"namespaceSelector": {"matchLabels": {label: name}}} for name in ("front", "eyes")]
    found = policies(
        render(
            "external",
            f"networkPolicy.gateways={json.dumps(named[:1])}",
            f"networkPolicy.monitoring={json.dumps(named[1:])}",
        )
    )
    (served,), (worked,) = found["serve"]["ingress"], found["worker"]["ingress"]
    assert served["from"][-2:] == named
    assert worked == {"from": named[1:], "ports": [{"protocol": "TCP", "port": "metrics"}]}


FEATURES = [
    ("llm", 'config={"llm": {"provider": "ollama"}}', "llm.provider"),
    ("embeddings", 'config={"embeddings": {"provider": "openai"}}', "embeddings.provider"),
    ("oidc", 'config={"auth": {"oidc": {"issuer": "https://id.example.com"}}}', "auth.oidc.issuer"),
    ("checkpoints", 'config={"audit": {"s3": {"bucket": "b"}}}', "audit.s3.bucket"),
    ("otlp", 'config={"telemetry": {"otlp_endpoint": "http://127.0.0.1:4318"}}', "telemetry.otlp_endpoint"),
    ("syslog", 'config={"audit": {"syslog": {"address": "siem"}}}', "audit.syslog.address"),
    ("webhooks", 'config={"webhooks": {"allowed_hosts": ["a.example.com"]}}', "webhooks.allowed_hosts"),
]


@pytest.mark.parametrize(("rule", "value", "setting"), FEATURES, ids=[one[0] for one in FEATURES])
def test_a_feature_without_its_rule_is_not_rendered(rule: str, value: str, setting: str) -> None:
    wanted = f"egress.{rule}: is needed: {setting} is set, and the network policy would deny its traffic"
    assert wanted in refusal("external", value)
    given = f'egress.{rule}=[{{"to": [{{"ipBlock": {{"cidr": "192.0.2.0/24"}}}}], "ports": [{{"port": 443}}]}}]'
    assert "192.0.2.0/24" in {
        one for policy in policies(render("external", value, given)).values() for one in out(policy)
    }
    assert not policies(render("external", value, "networkPolicy.enabled=false"))


@pytest.mark.parametrize("store", ["postgres", "qdrant", "keyring"])
def test_a_store_of_yours_without_its_rule_is_not_rendered(store: str) -> None:
    assert f"egress.{store}: is needed" in refusal("external", f"egress.{store}=[]")


def test_a_way_in_without_its_peers_is_not_rendered() -> None:
    assert "networkPolicy.gateways: is needed" in refusal("ingress", "networkPolicy.gateways=[]")
    assert "networkPolicy.gateways: is needed" in refusal("gateway", "networkPolicy.gateways=[]")
    assert "networkPolicy.monitoring: is needed" in refusal("monitoring", "networkPolicy.monitoring=[]")


def test_a_rule_for_everywhere_must_say_so() -> None:
    assert "to" in refusal("external", 'egress.llm=[{"ports": [{"port": 443}]}]')
    assert "to" in refusal("external", 'egress.llm=[{"to": [], "ports": [{"port": 443}]}]')
    assert "egress.dns: is needed" in refusal("external", "egress.dns=[]")


def test_without_policies_there_are_none() -> None:
    assert not policies(render("no-policy"))
