"""The alert rules and the dashboard ask for metrics that exist, and each alert has its runbook."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml

from tests.docs.metric_names import metrics, series
from tests.docs.pages import ROOT, anchors, prose

pytestmark = pytest.mark.unit

FILES = ROOT / "deploy" / "helm" / "memvault" / "files"
RUNBOOKS = "docs/operate/alerts.md"
#: What Prometheus adds to every series of a target, and what a bucket has.
GIVEN = {"job", "instance", "le"}
_SUFFIX = re.compile(r"_(bucket|sum|count)$")


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((FILES / "alerts.yaml").read_text(encoding="utf-8"))
    assert set(document) == {"groups"}
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FILES / "dashboard.json").read_text(encoding="utf-8"))
    return document


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> dict[str, str]:
    """Return every expression by where it stands; Grafana's own variables are filled in."""
    found = {f"alert {rule['alert']}": str(rule["expr"]) for rule in rules()}
    for panel in panels():
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", "5m").replace("$job", ".*")
            assert "$" not in query, query
            found[f"panel {panel['title']} {target['refId']}"] = query
    return found


@pytest.mark.parametrize("where", queries())
def test_a_query_can_be_read_and_asks_for_what_exists(where: str) -> None:
    parsed = promql_parser.parse(queries()[where])
    asked = list(_selectors(parsed))
    assert asked
    known, labels = series(), {name: labels for name, (_, labels) in metrics().items()}
    for name, matched in asked:
        assert name in known, f"{where}: there is no {name}"
        own = labels.get(_SUFFIX.sub("", name) if name not in labels else name, [])
        assert set(matched) <= {*own, *GIVEN}, f"{where}: {name} has no such label"


def test_the_labels_of_a_sum_exist() -> None:
    """What a query is summed by is a label of a metric in it; else all would be one series, and no alert would say."""
    for where, query in queries().items():
        own = {label for name, _ in _selectors(promql_parser.parse(query)) for label in _labels(name)}
        for told in re.findall(r"\bby \(([^)]*)\)", query):
            assert {one.strip() for one in told.split(",")} <= own | GIVEN, where


def test_the_labels_that_an_alert_names_are_there() -> None:
    for rule in rules():
        told = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        kept = {one.strip() for some in re.findall(r"\bby \(([^)]*)\)", rule["expr"]) for one in some.split(",")}
        assert told <= kept, rule["alert"]


def test_every_alert_has_its_runbook_and_every_runbook_its_alert() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    sections = re.findall(r"^### (\w+)$", prose(RUNBOOKS), flags=re.MULTILINE)
    assert sorted(sections) == sorted(names)
    for rule in rules():
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (page, anchor) == (RUNBOOKS, rule["alert"].lower())
        assert anchor in anchors(RUNBOOKS)
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"].endswith(".")


def test_the_dashboard_has_no_two_panels_in_one_place() -> None:
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_what_the_dashboard_leaves_out_is_little() -> None:
    shown = {
        _SUFFIX.sub("", name) for query in queries().values() for name, _ in _selectors(promql_parser.parse(query))
    }
    assert set(metrics()) <= shown


def _labels(name: str) -> list[str]:
    known = metrics()
    return known[name][1] if name in known else known.get(_SUFFIX.sub("", name), ("", []))[1]


def _selectors(parsed: Any) -> Iterator[tuple[str, list[str]]]:
    """Return the metrics that an expression asks for, each with the labels that it is matched by."""
    if isinstance(parsed, promql_parser.VectorSelector):
        yield parsed.name, [matcher.name for matcher in parsed.matchers.matchers]
        return
    for name in ("lhs", "rhs", "expr", "vector_selector", "args", "vs"):
        below = getattr(parsed, name, None)
        for one in below if isinstance(below, list) else [below]:
            if one is not None and type(one).__module__.startswith("promql_parser"):
                yield from _selectors(one)
