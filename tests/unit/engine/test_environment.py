"""Environment variables that would redirect the LLM are refused at start."""

from __future__ import annotations

import pytest

from service.engine import LlmSettings, refuse_environment
from service.errors import ConfigurationError

pytestmark = pytest.mark.unit

PLAIN = LlmSettings("openai", {"api_key": "k"})
WITH_URL = LlmSettings("openai", {"api_key": "k", "openai_base_url": "http://llm.internal/v1"})


@pytest.mark.parametrize("llm", [None, PLAIN, WITH_URL])
def test_openrouter_is_refused_always(llm: LlmSettings | None) -> None:
    with pytest.raises(ConfigurationError, match="OPENROUTER_API_KEY") as caught:
        refuse_environment({"OPENROUTER_API_KEY": "sk-secret"}, llm)
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("variable", ["OPENAI_BASE_URL", "OPENAI_API_BASE"])
def test_a_base_url_comes_from_the_settings(variable: str) -> None:
    with pytest.raises(ConfigurationError, match=variable):
        refuse_environment({variable: "http://elsewhere"}, PLAIN)
    refuse_environment({variable: "http://elsewhere"}, WITH_URL)
    refuse_environment({variable: "http://elsewhere"}, None)


def test_a_plain_environment_passes() -> None:
    refuse_environment({"PATH": "/bin", "OPENAI_API_KEY": "k", "OPENROUTER_API_KEY": ""}, PLAIN)


def test_the_config_does_not_show_in_a_repr() -> None:
    assert "secret" not in repr(LlmSettings("openai", {"api_key": "secret"}))
