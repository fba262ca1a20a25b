"""What a message of the protocol is about to do, read from its body before the protocol itself looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

from service.mcp.tools import TOOLS
from service.scope import Action

_CLIENT: Final = "io.modelcontextprotocol/clientInfo"


@dataclass(frozen=True, slots=True)
class Intent:
    """The action that a message asks for, its id, and what its client calls itself."""

    action: Action
    message_id: str | int | None
    client: str | None


def intent_of(body: bytes) -> Intent | None:
    """Return what a message asks for, or None when it takes no action or the protocol will refuse it anyway.

    A hint, never the decision: the action itself is authorised again when it is taken.
    """
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    params = message.get("params") if isinstance(message, dict) else None
    if not isinstance(params, dict):
        return None
    action = _action_of(message.get("method"), params)
    if action is None:
        return None
    number = message.get("id")
    return Intent(action, number if isinstance(number, str | int) else None, _client_of(params))


def _action_of(method: Any, params: dict[str, Any]) -> Action | None:
    if method == "resources/read":
        return Action.LIST
    name = params.get("name")
    if method != "tools/call" or not isinstance(name, str) or name not in TOOLS:
        return None
    return TOOLS[name].action


def _client_of(params: dict[str, Any]) -> str | None:
    meta = params.get("_meta")
    told = meta.get(_CLIENT) if isinstance(meta, dict) else None
    if not isinstance(told, dict):
        return None
    return f"{told.get('name')}/{told.get('version')}"
