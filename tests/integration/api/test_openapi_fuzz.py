"""Requests made up from the OpenAPI document find no server error, no undeclared status and no undeclared shape."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.errors
import pytest
import schemathesis
from fastapi import FastAPI
from schemathesis import GenerationMode, checks

from service.scope import TenantId
from service.wiring import Services
from tests.clients.serving import serving
from tests.conftest import principal_of
from tests.integration.api import fuzz_hooks

pytestmark = [
    pytest.mark.integration,
    # The libraries under schemathesis use names that their own newer releases deprecate.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

ROOT = Path(__file__).parents[3]
EXAMPLES = 20
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
]


def test_in_the_process(app: FastAPI, services: Services, tenant: TenantId) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    # A made-up credential would not be sent, since the key takes its place, and so could not be refused.
    schema.config.generation.update(with_security_parameters=False)
    absent = not_offered(app)
    operations = [result.ok() for result in schema.get_all_operations()]
    operations = [one for one in operations if one.definition.raw["operationId"] not in absent]
    assert len(operations) > 20
    statuses: dict[str, set[int]] = {}
    broken = 0
    for operation in operations:
        # A key for each: one of them revokes keys.
        _, secret = principal_of(services, tenant)
        seen = statuses.setdefault(f"{operation.method.upper()} {operation.path}", set())
        fuzz(operation, GenerationMode.POSITIVE, secret, seen)
        if operation.body or operation.query or operation.path_parameters:
            # Of some there is nothing that breaks the document: any text is an id in a path.
            with contextlib.suppress(hypothesis.errors.Unsatisfiable):
                fuzz(operation, GenerationMode.NEGATIVE, secret, seen)
                broken += 1
    assert broken > len(operations) // 2
    assert all(seen != {401} for seen in statuses.values()), "the key was not taken: nothing was tested"
    # A made-up id of something is rarely one that there is, so those with an id in their path do not count.
    by_form = [statuses[f"{one.method.upper()} {one.path}"] for one in operations if not one.path_parameters]
    assert sum(bool({200, 201, 202} & seen) for seen in by_form) > len(by_form) // 2


def not_offered(app: FastAPI) -> list[str]:
    """The operations that answer 501 to everybody: their ids."""
    operations = [one for path in app.openapi()["paths"].values() for one in path.values()]
    return [one["operationId"] for one in operations if "501" in one["responses"]]


def fuzz(operation: Any, mode: GenerationMode, secret: str, seen: set[int]) -> None:
    """Send made-up requests to one operation, check the answers, and note their statuses."""
    wanted = checks.CHECKS.get_by_names(CHECKS)

    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        answer = case.call(headers={"Authorization": f"Token {secret}"})
        seen.add(answer.status_code)
        case.validate_response(answer, checks=wanted)

    run()


def test_over_http(app: FastAPI, services: Services, tenant: TenantId, tmp_path: Path) -> None:
    _, secret = principal_of(services, tenant)
    command = [
        os.path.join(os.path.dirname(sys.executable), "schemathesis"),
        "run",
        "--phases=coverage",
        # What a filter or an id may be is more than a JSON schema can say, so a 400 to valid JSON is no mistake.
        "--exclude-checks=positive_data_acceptance",
        # They would revoke or narrow the key that the run works with.
        "--exclude-operation-id=revoke_key_v1_keys__key_id___delete",
        "--exclude-operation-id=change_key_v1_keys__key_id___patch",
        "--exclude-operation-id=rotate_key_v1_keys__key_id__rotate__post",
        *(f"--exclude-operation-id={name}" for name in not_offered(app)),
        "--generation-database=none",
        "--no-color",
        f"--header=Authorization: Token {secret}",
    ]
    with serving(app) as url:
        done = subprocess.run(
            [*command, f"{url}/openapi.json"],
            env={**os.environ, "SCHEMATHESIS_HOOKS": fuzz_hooks.__name__, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            cwd=tmp_path,
        )
    assert done.returncode == 0, done.stdout[-6000:].replace(secret, "[key]") + done.stderr[-2000:]
    assert "returned only 401" not in done.stdout
