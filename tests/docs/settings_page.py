"""Writes docs/settings.md from the settings themselves: `python -m tests.docs.settings_page > docs/settings.md`."""

from __future__ import annotations

import sys
import types
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, IPvAnyNetwork, SecretStr
from pydantic.fields import FieldInfo

from service.settings import ENV_PREFIX, Settings, setting_names

_HEAD = """\
# Settings

Every setting has a default, so a laptop needs none. Later sources win:

1. the default,
2. the YAML file of `--config`,
3. the files in the folder that `secrets_dir` (`{prefix}SECRETS_DIR`) names,
4. the environment: `{prefix}` and the name in capitals, `__` for each dot,
5. the flags of the command (`--host`, `--port`, `--data-dir`).

A name that does not exist is an error that names it, in the file as in the environment; so is a value of the wrong
kind, and in the file a name that stands twice. No `.env` file is read.
[`config/memvault.yaml`](../config/memvault.yaml) is an example to copy.

In the environment a list or a mapping is written as JSON, a mapping also entry by entry
(`{prefix}LLM__CONFIG__<entry>`), and a number or a yes or no that may be `null` is so by that word
(`{prefix}INDEX__GRPC_PORT=null`).

Secrets belong in the environment, or each into a file of its own: in the folder `secrets_dir`, named as the
environment variable (`{prefix}DATABASE__URL`, capitals or not), holding the value and nothing else but a line end.
Folders, hidden files and files with a dot in their name (`audit-signing.pem`) are left alone there; any other file that
names no setting is an error. So is one that everyone on the machine can read: mode 0600 for a file of yours, 0440 or
0400 for one that Docker or Kubernetes mounts.

*This page is generated: `.venv/bin/python -m tests.docs.settings_page > docs/settings.md`.*
"""

_COLUMNS = "| name | environment | kind | default | meaning |\n|---|---|---|---|---|\n"


def settings_page() -> str:
    """Return the whole page."""
    parts = [_HEAD.format(prefix=ENV_PREFIX)]
    general = {name: field for name, field in setting_names().items() if "." not in name}
    parts.append(_section("General", "What belongs to the whole installation.", general))
    for section, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            parts.append(_section(f"`{section}`", kind.__doc__ or "", setting_names(kind, f"{section}.")))
    return "\n".join(parts)


def _section(title: str, about: str, fields: dict[str, FieldInfo]) -> str:
    rows = "".join(
        f"| `{name}` | `{ENV_PREFIX}{name.upper().replace('.', '__')}` | {_kind(field.annotation)}{_bounds(field)} "
        f"| {_default(field)} | {_cell(field.description or '')} |\n"
        for name, field in fields.items()
    )
    return f"## {title}\n\n{about.strip()}\n\n{_COLUMNS}{rows}"


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_kind(one) for one in get_args(annotation) if one is not type(None))
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{one}`" for one in get_args(annotation))
    if get_origin(annotation) is dict:
        return "mapping"
    if get_origin(annotation) in (list, tuple, frozenset):
        return f"list of {_kind(get_args(annotation)[0])}"
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return ", ".join(f"`{one.value}`" for one in annotation)
    names = {bool: "yes or no", int: "whole number", float: "number", str: "text", Path: "path", SecretStr: "secret"}
    names[IPvAnyNetwork] = "network"
    return names[annotation]


def _bounds(field: FieldInfo) -> str:
    found = {
        sign: getattr(one, name)
        for one in field.metadata
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if getattr(one, name, None) is not None
    }
    return "".join(f", {sign} {value:g}" if value < 10_000 else f", {sign} {value}" for sign, value in found.items())


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if isinstance(value, tuple):
        value = list(value)
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{value}`" if str(value) else "empty"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.stdout.write(settings_page())
