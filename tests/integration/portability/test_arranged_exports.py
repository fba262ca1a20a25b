"""An export in the shape of a schema is arranged by the language model when there is one."""

from __future__ import annotations

import json

import pytest

from service.engine.errors import EngineError
from service.portability.exports import Wanted
from service.records import SubjectNames
from tests.conftest import MakeServices, caller_of
from tests.integration.memories.test_adding_and_finding import add
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
