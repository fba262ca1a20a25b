"""An export in the shape of a schema is arranged by the language model when there is one."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from fastapi.testclient import TestClient

from service.auth.keys import Grant
from service.engine.errors import EngineError
from service.main import create_app
from service.policy.table import ROLES
from service.portability import projections
from service.portability.exports import Wanted
from service.portability.projection import plain
from service.records import Memory, SubjectNames
from tests.conftest import MakeServices, caller_of
from tests.integration.memories.adding import add
from tests.llm.scripted import ScriptedLLM

pytestmark = pytest.mark.integration

SCHEMA = {"type": "object", "properties": {"drinks": {"type": "array"}, "mood": {"type": "string"}}}


def test_the_model_arranges_and_nothing_beyond_the_schema_comes(make_services: MakeServices, llm: ScriptedLLM) -> None:
    services = make_services(
        llm={"provider": "openai", "model": "scripted", "api_key": "sk-x", "base_url": llm.url, "attempts": 1}
    )
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    add(services, caller, "I like tea")
    wanted = Wanted(SubjectNames(user_id="alice"), schema=SCHEMA, instructions="in French")
    export_id = services.exports.request(caller, caller.scope, wanted)
    llm.answer(json.dumps({"drinks": ["thé"], "mood": None, "invented": 1}))
    found = services.projections.read(caller, caller.scope, export_id, Wanted())
    assert found == {"drinks": ["thé"], "mood": None}
    (request,) = llm.requests
    assert "in French" in request.system
    assert "I like tea" in request.prompt
    llm.answer("[]")
    with pytest.raises(EngineError, match="JSON object"):
        services.projections.read(caller, caller.scope, export_id, Wanted())
    # Without a schema, and without memories, nobody is asked.
    plain = services.exports.request(caller, caller.scope, Wanted(SubjectNames(user_id="alice")))
    assert services.projections.read(caller, caller.scope, plain, Wanted())["memories"][0]["memory"] == "I like tea"
    empty = services.exports.request(caller, caller.scope, Wanted(SubjectNames(user_id="bob"), schema=SCHEMA))
    assert services.projections.read(caller, caller.scope, empty, Wanted()) == {"drinks": [], "mood": None}
    assert len(llm.requests) == 2


@pytest.mark.parametrize(
    "answer",
    [
        '```json\n{"drinks": ["tea"], "mood": null}\n```',
        '<think>Is {"drinks": []} right?</think>{"drinks": ["tea"], "mood": null}',
        'Here it is: {"drinks": ["tea"], "mood": null} As you asked.',
    ],
)
def test_thoughts_and_fences_around_the_object_are_taken_away(
    make_services: MakeServices, llm: ScriptedLLM, answer: str
) -> None:
    services = make_services(
        llm={"provider": "openai", "model": "scripted", "api_key": "sk-x", "base_url": llm.url, "attempts": 1}
    )
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    add(services, caller, "I like tea")
    wanted = Wanted(SubjectNames(user_id="alice"), schema=SCHEMA)
    export_id = services.exports.request(caller, caller.scope, wanted)
    llm.answer(answer)
    found = services.projections.read(caller, caller.scope, export_id, Wanted())
    assert found == {"drinks": ["tea"], "mood": None}


def test_what_no_answer_can_hold_is_malformed(make_services: MakeServices, llm: ScriptedLLM) -> None:
    services = make_services(
        llm={"provider": "openai", "model": "scripted", "api_key": "sk-x", "base_url": llm.url, "attempts": 1}
    )
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    add(services, caller, "I like tea")
    minted = services.keys.mint_for_installation(caller.principal.tenant_id, Grant(ROLES["admin"]))
    headers = {"Authorization": f"Token {minted.secret}"}
    answers = ['{"mood": 12345678901234567890123}', '{"mood": "\\ud83d"}', '{"mood": ' + "[" * 300 + "]" * 300 + "}"]
    with TestClient(create_app(services), headers=headers) as client:
        asked = client.post("/v1/exports/", json={"user_id": "alice", "schema": SCHEMA})
        export_id = asked.json()["id"]
        for answer in [*answers, '{"mood": "' + "x" * 1_000_000 + '"}']:
            llm.answer(answer)
            response = client.post("/v1/exports/get/", json={"memory_export_id": export_id})
            assert (response.status_code, response.json()["code"]) == (503, "llm_answer_malformed")


def test_what_is_too_long_for_the_model_is_filled_by_name(
    make_services: MakeServices, llm: ScriptedLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = make_services(
        llm={"provider": "openai", "model": "scripted", "api_key": "sk-x", "base_url": llm.url, "attempts": 1}
    )
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    for text in ("I like tea", "I like coffee", "I like milk"):
        add(services, caller, text)
    plain_id = services.exports.request(caller, caller.scope, Wanted(SubjectNames(user_id="alice")))
    whole = services.projections.read(caller, caller.scope, plain_id, Wanted())
    told = orjson.dumps(whole).decode()
    export_id = services.exports.request(caller, caller.scope, Wanted(SubjectNames(user_id="alice"), schema=SCHEMA))
    monkeypatch.setattr(projections, "_MOST_CHARS", len(told))
    llm.answer(json.dumps({"drinks": ["tea"], "mood": None}))
    assert services.projections.read(caller, caller.scope, export_id, Wanted())["drinks"] == ["tea"]
    (request,) = llm.requests
    assert told in request.prompt
    # One character less, and it is not written to its end.
    monkeypatch.setattr(projections, "_MOST_CHARS", len(told) - 1)
    by_name = services.projections.read(caller, caller.scope, export_id, Wanted())
    assert by_name["drinks"] == ["I like tea", "I like coffee", "I like milk"]
    written: list[Memory] = []

    def counted(memory: Memory) -> dict[str, Any]:
        written.append(memory)
        return plain(memory)

    monkeypatch.setattr(projections, "_MOST_CHARS", 100)
    monkeypatch.setattr(projections, "plain", counted)
    assert services.projections.read(caller, caller.scope, export_id, Wanted()) == by_name
    assert len(written) == 1
    assert len(llm.requests) == 1
