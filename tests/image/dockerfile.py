"""Reads the Dockerfile by stages, with what is said of the image at the end of the last one."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from dockerfile_parse import DockerfileParser

REPOSITORY = Path(__file__).parents[2]
_FLAG = re.compile(r"^--[a-z-]+=\S+\s+")


@dataclass(frozen=True)
class Step:
    """One instruction: its name, its flags and what follows them."""

    name: str
    flags: tuple[str, ...]
    value: str

    @property
    def argv(self) -> list[str] | None:
        """The command of an exec form; None for one that a shell would read."""
        text = self.value.removeprefix("CMD ") if self.name == "HEALTHCHECK" else self.value
        try:
            found = json.loads(text)
        except ValueError:
            return None
        return [str(word) for word in found] if isinstance(found, list) else None


@dataclass(frozen=True)
class Stage:
    """A stage: what it is made from, its name, its steps."""

    base: str
    name: str
    steps: list[Step] = field(default_factory=list)

    def all(self, name: str) -> list[Step]:
        """The steps of one instruction."""
        return [step for step in self.steps if step.name == name]

    def last(self, name: str) -> Step:
        """The step of an instruction that counts."""
        return self.all(name)[-1]

    @property
    def environment(self) -> dict[str, str]:
        """What ENV sets."""
        return dict(pair.split("=", 1) for step in self.all("ENV") for pair in shlex.split(step.value))


@dataclass(frozen=True)
class Dockerfile:
    """All of it: the arguments before the first stage, and the stages."""

    arguments: dict[str, str]
    stages: dict[str, Stage]


def read(path: Path = REPOSITORY / "Dockerfile") -> Dockerfile:
    """Read a Dockerfile."""
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    current: Stage | None = None
    for instruction in DockerfileParser(fileobj=BytesIO(path.read_bytes())).structure:
        name, value = instruction["instruction"], instruction["value"]
        if name == "COMMENT":
            continue
        if name == "FROM":
            base, _, own = value.partition(" AS ")
            current = stages[own] = Stage(base, own)
        elif current is None:
            key, _, default = value.partition("=")
            arguments[key] = default
        else:
            flags = []
            while found := _FLAG.match(value):
                flags.append(found.group().strip())
                value = value[found.end() :]
            current.steps.append(Step(name, tuple(flags), value))
    return Dockerfile(arguments, stages)
