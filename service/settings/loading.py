"""Reads the settings: defaults < `--config` file < files of `secrets_dir` < environment (`MEMVAULT_…`) < flags."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings.sources import EnvSettingsSource

from service.errors import ConfigurationError
from service.settings.secret_files import read_secret_files
from service.settings.tree import ENV_PREFIX, Settings

#: Read by the test fixtures only, never by the service.
TEST_ENV_PREFIX: Final = "MEMVAULT_TEST_"

#: What a key may be for YAML: a text, or `<<`, which merges another mapping.
_KEYS: Final = frozenset({"tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"})

Overrides = Annotated[Mapping[str, Any], "nested like the settings"]


class _BadKey(yaml.MarkedYAMLError):
    """A key of a mapping that cannot be meant; `problem` says which, and where."""


class _Loader(yaml.SafeLoader):
    """Refuses what the safe loader of YAML lets pass: a key that stands twice, of which the last would win."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return the node of a mapping; raises _BadKey for a key that stands twice in it or is no text."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            line = f"line {key.start_mark.line + 1}"
            if key.tag not in _KEYS:
                raise _BadKey(
                    problem=f"{line}: a key is no text; `on`, `off`, `yes`, `no`, `null` and numbers need quotes"
                )
            if key.value in seen:
                raise _BadKey(problem=f"{line}: the key {key.value!r} stands twice, and one of the two would be lost")
            seen.add(key.value)
        return node


def load_settings(
    *, config: Path | None = None, environ: Mapping[str, str] | None = None, flags: Overrides | None = None
) -> Settings:
    """Build the settings from a file, a folder of secrets, the environment and flags, the later ones winning.

    Raises:
        ConfigurationError: naming the setting that is unknown or wrong and where it was given.
    """
    environ = os.environ if environ is None else environ
    below = _from_file(config) if config else {}
    above = _merged(_from_environment(environ), _pruned(flags or {}))
    folder = _merged(below, above).get("secrets_dir")
    files = read_secret_files(Path(folder), is_setting) if isinstance(folder, str | Path) else {}
    merged = _merged(_merged(below, _read_variables(files, f"secrets_dir {folder}")), above)
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise ConfigurationError(_one_line(error, config, environ, dict.fromkeys(files, folder))) from None


def setting_names(section: type[BaseModel] = Settings, prefix: str = "") -> dict[str, Any]:
    """Return every setting by its dotted name with its pydantic field, for the docs and for error messages."""
    names: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            names.update(setting_names(annotation, f"{prefix}{name}."))
        else:
            names[f"{prefix}{name}"] = field
    return names


def _from_file(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigurationError(f"--config {path}: cannot be read ({error.strerror})") from None
    except _BadKey as error:
        raise ConfigurationError(f"--config {path}: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigurationError(f"--config {path}: is not valid YAML") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigurationError(f"--config {path}: must be a mapping of settings")
    return raw


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Read `MEMVAULT_…` variables; one that names no setting is an error, since a typing mistake must not pass."""
    for name in environ:
        if name.startswith(ENV_PREFIX) and not name.startswith(TEST_ENV_PREFIX) and not is_setting(name):
            raise ConfigurationError(f"{name}: there is no such setting; see docs/settings.md")
    return _read_variables(environ, "environment")


def _read_variables(variables: Mapping[str, str], where: str) -> dict[str, Any]:
    source = EnvSettingsSource(Settings, case_sensitive=False)
    source.env_vars = {key.lower(): value for key, value in variables.items()}
    try:
        found = source()
    except Exception as error:
        raise ConfigurationError(f"{where}: {_first_line(error)}") from None
    for name, field in setting_names().items():
        if _may_be_null(field.annotation):
            _null(found, name.split("."))
    return found


def _may_be_null(annotation: Any) -> bool:
    """Whether a setting is a number, or yes or no, that can be left out; a text may be `null` itself."""
    kinds = set(get_args(annotation))
    return NoneType in kinds and kinds <= {NoneType, int, float, bool}


def _null(found: Any, path: list[str]) -> None:
    """Let a setting be null where its variable says so."""
    for part in path[:-1]:
        found = found.get(part) if isinstance(found, dict) else None
    if isinstance(found, dict) and str(found.get(path[-1])).lower() == "null":
        found[path[-1]] = None


def is_setting(variable: str) -> bool:
    """Whether a variable gives a setting, a whole section as JSON, or an entry of a free-form mapping."""
    return variable in {_variable(name) for name in [*setting_names(), *Settings.model_fields]} or variable.startswith(
        (f"{ENV_PREFIX}LLM__CONFIG__", f"{ENV_PREFIX}EMBEDDINGS__CONFIG__")
    )


def _variable(name: str) -> str:
    return f"{ENV_PREFIX}{name.upper().replace('.', '__')}"


def _pruned(flags: Overrides) -> dict[str, Any]:
    pruned: dict[str, Any] = {}
    for key, value in flags.items():
        if isinstance(value, Mapping):
            if inner := _pruned(value):
                pruned[key] = inner
        elif value is not None:
            pruned[key] = value
    return pruned


def _merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _one_line(error: ValidationError, config: Path | None, environ: Mapping[str, str], files: Mapping[str, Any]) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    variable = _variable(name)
    if variable in environ:
        where = f"environment variable {variable}"
    elif variable in files:
        where = f"file {variable} in {files[variable]}"
    else:
        where = f"in {config}" if config else "flag"
    if first["type"] == "extra_forbidden":
        return f"{name} ({where}): there is no such setting; see docs/settings.md"
    return f"{name} ({where}): {first['msg'].removeprefix('Value error, ')}"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
