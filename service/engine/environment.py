"""Refuses environment variables that would send what people said to another place than the settings name."""

from __future__ import annotations

from collections.abc import Mapping

from service.engine.shapes import LlmSettings
from service.errors import ConfigurationError

#: Providers whose client falls back to these variables when the config has no base URL.
_BASE_URL_VARIABLES = ("OPENAI_BASE_URL", "OPENAI_API_BASE")


def refuse_environment(environ: Mapping[str, str], llm: LlmSettings | None) -> None:
    """Raise ConfigurationError if a variable would redirect the LLM behind the settings' back.

    `OPENROUTER_API_KEY` overrides any configured endpoint inside Mem0, so it is refused always, also without an LLM: it
    would take effect unseen on the day one is configured.
    """
    if environ.get("OPENROUTER_API_KEY"):
        raise ConfigurationError(
            "OPENROUTER_API_KEY is set: Mem0 would send all messages to OpenRouter whatever the settings say. "
            "Unset it; to use OpenRouter, set the LLM's config to its base URL and key."
        )
    if llm is None or llm.base_url:
        return
    for variable in _BASE_URL_VARIABLES:
        if environ.get(variable):
            raise ConfigurationError(
                f"{variable} is set and the LLM's config names no base URL: the environment would decide where "
                f"messages go. Put the URL into the LLM's config (openai_base_url, say) or unset {variable}."
            )
