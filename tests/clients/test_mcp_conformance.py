"""The official conformance suite for MCP servers against the whole served app, for both revisions of the protocol.

Every scenario that a revision requires is run; each either passes without a warning or is skipped with its reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.main import create_app
from service.records import Message, NewMemories, SubjectNames
from service.scope import Caller
from service.wiring import Services
from tests.clients.npm_packages import CONFORMANCE, NodePackages
from tests.clients.serving import serving, with_key
from tests.conftest import principal_of

# One run of the suite for all of them, so one worker.
pytestmark = pytest.mark.clients

OLDER, NEWER = "2025-11-25", "2026-07-28"

_SUBSCRIBING = "the service offers no subscriptions: it keeps no sessions and resources are read when they are needed"
_TASKS = "an extension that the service does not offer: what takes long answers with an event id (get_event_status)"
_SESSIONS = "the service keeps no sessions (no Mcp-Session-Id), so that any replica can answer any message"


def _tool(name: str) -> str:
    return f"needs the suite's own test tool {name}"


def _prompt(name: str) -> str:
    return f"needs the suite's own test prompt {name}"


def _resource(name: str) -> str:
    return f"needs the suite's own test resource {name}"


#: Scenarios of both revisions that say nothing about this server.
_EVERYWHERE: dict[str, str] = {
    "completion-complete": "the service offers no completions",
    "tools-call-simple-text": _tool("test_simple_text"),
    "tools-call-image": _tool("test_image_content"),
    "tools-call-audio": _tool("test_audio_content"),
    "tools-call-embedded-resource": _tool("test_embedded_resource"),
    "tools-call-mixed-content": _tool("test_multiple_content_types"),
    "tools-call-error": _tool("test_error_handling"),
    "tools-call-with-progress": _tool("test_tool_with_progress"),
    "resources-read-text": _resource("test://static-text"),
    "resources-read-binary": _resource("test://static-binary"),
    "resources-templates-read": _resource("test://template/{id}/data"),
    "prompts-get-simple": _prompt("test_simple_prompt"),
    "prompts-get-with-args": _prompt("test_prompt_with_arguments"),
    "prompts-get-embedded-resource": _prompt("test_prompt_with_embedded_resource"),
    "prompts-get-with-image": _prompt("test_prompt_with_image"),
    "json-schema-2020-12": _tool("json_schema_2020_12_tool"),
}
SKIPPED: dict[str, dict[str, str]] = {
    OLDER: _EVERYWHERE
    | {
        "logging-set-level": "the service offers no logging to clients, which the protocol has given up since",
        "tools-call-with-logging": _tool("test_tool_with_logging"),
        "tools-call-sampling": _tool("test_sampling"),
        "tools-call-elicitation": _tool("test_elicitation"),
        "elicitation-sep1034-defaults": _tool("test_elicitation_sep1034_defaults"),
        "elicitation-sep1330-enums": _tool("test_elicitation_sep1330_enums"),
        "resources-subscribe": _SUBSCRIBING,
        "resources-unsubscribe": _SUBSCRIBING,
        "server-sse-multiple-streams": _SESSIONS,
        "server-sse-polling": _SESSIONS,
        "server-session-lifecycle": _SESSIONS,
    },
    NEWER: _EVERYWHERE
    | {
        "http-custom-header-server-validation": "no tool mirrors an argument into a header (x-mcp-header)",
        "input-required-result-basic-elicitation": _tool("test_input_required_result_elicitation"),
        "input-required-result-basic-sampling": _tool("test_input_required_result_sampling"),
        "input-required-result-basic-list-roots": _tool("test_input_required_result_list_roots"),
        "input-required-result-request-state": _tool("test_input_required_result_request_state"),
        "input-required-result-multiple-input-requests": _tool("test_input_required_result_multiple_inputs"),
        "input-required-result-multi-round": _tool("test_input_required_result_multi_round"),
        "input-required-result-missing-input-response": _tool("test_input_required_result_elicitation"),
        "input-required-result-non-tool-request": _prompt("test_input_required_result_prompt"),
        "input-required-result-result-type": _tool("test_input_required_result_elicitation"),
        "input-required-result-tampered-state": _tool("test_input_required_result_tampered_state"),
        "input-required-result-capability-check": _tool("test_input_required_result_capabilities"),
        "input-required-result-ignore-extra-params": _tool("test_input_required_result_elicitation"),
        "input-required-result-validate-input": _tool("test_input_required_result_elicitation"),
        "tasks-lifecycle": _TASKS,
        "tasks-capability-negotiation": _TASKS,
        "tasks-wire-fields": _TASKS,
        "tasks-request-state-removal": _TASKS,
        "tasks-mrtr-input": _TASKS,
        "tasks-request-headers": _TASKS,
        "tasks-dispatch-and-envelope": _TASKS,
        "tasks-status-notifications": _TASKS,
        "tasks-required-task-error": _TASKS,
        "tasks-mrtr-composition": _TASKS,
    },
}
APPLICABLE: dict[str, list[str]] = {
    OLDER: ["server-initialize", "ping", "tools-list", "resources-list", "prompts-list", "dns-rebinding-protection"],
    NEWER: [
        "server-stateless",
        "tools-list",
        "server-sse-multiple-streams",
        "resources-list",
        "sep-2164-resource-not-found",
        "prompts-list",
        "dns-rebinding-protection",
        "caching",
        "input-required-result-unsupported-methods",
        "http-header-validation",
    ],
}
#: Single checks of applicable scenarios that say nothing about this server.
SKIPPED_CHECKS: dict[str, str] = {
    "sep-2575-server-rejects-undeclared-capability": _tool("test_missing_capability"),
    "sep-2575-missing-capability-http-400": _tool("test_missing_capability"),
    "sep-2575-http-server-no-independent-requests-on-stream": _tool("test_streaming_elicitation"),
    "sep-2575-server-no-log-without-loglevel": _tool("test_logging_tool"),
    "sep-2575-server-sends-subscription-ack": _SUBSCRIBING,
    "sep-2575-server-tags-subscription-id": _SUBSCRIBING,
    "sep-2575-server-honors-notification-filter": _SUBSCRIBING,
    "sep-2575-server-sends-prompts-list-changed-on-subscription": _SUBSCRIBING,
    "sep-2575-server-sends-tools-list-changed-on-subscription": _SUBSCRIBING,
}

#: Checks that also pass when what a scenario is about is missing: refusals, and the form of the messages.
PASS_WITHOUT = {
    "wire-schema-valid",
    "sep-2322-validate-input-responses",
    "sep-2322-error-on-protocol-error",
    "sep-2663-tasks-result-removed-method-not-found",
    "tasks-removed-tasks-list",
    "tasks-headers-reject-mismatched-method",
}

#: The checks of each scenario.
Results = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def kept() -> dict[str, Results]:
    """The results of the runs, by revision: each revision is run once."""
    return {}


@pytest.fixture
def run(
    request: pytest.FixtureRequest, node_packages: NodePackages, kept: dict[str, Results], tmp_path: Path
) -> Callable[[str], Results]:
    """Return the checks of every scenario of a revision, run against a served app that has a memory to list."""

    def results(revision: str) -> Results:
        if revision not in kept:
            services: Services = request.getfixturevalue("services")
            principal, key = principal_of(services, request.getfixturevalue("tenant"))
            told = NewMemories([Message("user", "I row")], SubjectNames(user_id="alice"), infer=False)
            caller = Caller(principal, request_id="conformance")
            services.adds.add(caller, caller.scope, told)
            with serving(with_key(create_app(services), key)) as url:
                done = node_packages.conformance(
                    "server", "--url", f"{url}/mcp", "--requirements", revision, "--output-dir", str(tmp_path)
                )
            kept[revision] = _read(tmp_path)
            assert kept[revision], done.stderr
        return kept[revision]

    return results


def _read(folder: Path) -> Results:
    found = {}
    for file in folder.glob("server-*/checks.json"):
        scenario = re.sub(r"-\d{4}-\d{2}-\d{2}T[\dZ-]+$", "", file.parent.name.removeprefix("server-"))
        found[scenario] = json.loads(file.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("revision", [OLDER, NEWER])
def test_every_scenario_is_judged(revision: str, node_packages: NodePackages, run: Callable[[str], Results]) -> None:
    file = node_packages.folder.joinpath(*CONFORMANCE, "requirements", f"{revision}.yaml")
    required = yaml.safe_load(file.read_text(encoding="utf-8"))
    listed = {*required["server"], *(one["scenario"] for one in required["not_scored"] if one["leg"] == "server")}
    assert not set(APPLICABLE[revision]) & set(SKIPPED[revision])
    assert set(APPLICABLE[revision]) | set(SKIPPED[revision]) == listed == set(run(revision))
    passed = sum(_passed(run(revision)[scenario]) for scenario in APPLICABLE[revision])
    print(
        f"conformance {revision}: {len(APPLICABLE[revision])} scenarios with {passed} checks apply, "
        f"{len(SKIPPED[revision])} of {len(listed)} do not"
    )


@pytest.mark.parametrize(
    ("revision", "scenario"), [(revision, one) for revision in APPLICABLE for one in APPLICABLE[revision]]
)
def test_a_scenario_passes(revision: str, scenario: str, run: Callable[[str], Results]) -> None:
    checks = run(revision)[scenario]
    bad = [check for check in checks if check["status"] not in ("SUCCESS", "INFO")]
    unexcused = [(check["id"], check.get("errorMessage")) for check in bad if check["id"] not in SKIPPED_CHECKS]
    assert not unexcused
    assert _passed(checks), "nothing was checked"


@pytest.mark.parametrize(
    ("revision", "scenario"), [(revision, one) for revision in SKIPPED for one in sorted(SKIPPED[revision])]
)
def test_a_scenario_does_not_apply(revision: str, scenario: str, run: Callable[[str], Results]) -> None:
    """A scenario that needs a part that is not here cannot pass by it; each is shown as skipped, with its reason."""
    checks = run(revision)[scenario]
    good = [check["id"] for check in checks if check["status"] == "SUCCESS" and check["id"] not in PASS_WITHOUT]
    assert not good, "it applies after all"
    pytest.skip(SKIPPED[revision][scenario])


def test_no_check_is_skipped_that_passes(run: Callable[[str], Results]) -> None:
    seen = {
        check["id"]: check["status"]
        for revision in APPLICABLE
        for scenario in APPLICABLE[revision]
        for check in run(revision)[scenario]
        if check["id"] in SKIPPED_CHECKS
    }
    assert set(seen) == set(SKIPPED_CHECKS)
    assert "SUCCESS" not in seen.values()


def _passed(checks: list[dict[str, Any]]) -> int:
    return sum(check["status"] == "SUCCESS" for check in checks)
