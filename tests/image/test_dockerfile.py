"""What the Dockerfile says of the image: its user, its commands, where it comes from and what gets into it."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest

from service.settings import load_settings
from tests.image.dockerfile import REPOSITORY, Stage, read

pytestmark = pytest.mark.unit

FILE = read()
IMAGE = FILE.stages["runtime"]
EVERY_STEP = [
    pytest.param(step, id=f"{name}-{step.name}-{number}")
    for name, stage in FILE.stages.items()
    for number, step in enumerate(stage.steps)
]
#: A host is something with a dot that a name of a file, a tag or a version is not.
_HOST = re.compile(r"(?:https?://|\b)([a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?:io|com|org|net|dev|cloud))\b")


def test_the_stages() -> None:
    """Several, the image last, so that a build without a target makes it."""
    assert list(FILE.stages) == ["build", "inventory", "sbom", "runtime"]


def test_the_user_is_a_fixed_number_without_rights() -> None:
    assert IMAGE.last("USER").value == "10001:10001"
    after = IMAGE.steps[IMAGE.steps.index(IMAGE.last("USER")) :]
    assert not [step for step in after if step.name in {"RUN", "COPY", "ADD"}], "nothing is made after the user is set"


def test_no_step_needs_a_shell() -> None:
    commands = [
        step
        for stage in FILE.stages.values()
        for name in ("RUN", "CMD", "ENTRYPOINT", "HEALTHCHECK")
        for step in stage.all(name)
    ]
    assert len(commands) > 8
    for step in commands:
        argv = step.argv
        assert argv, f"{step.name} {step.value}: is not in exec form"
        assert not Path(argv[0]).name.endswith("sh")
    assert not [step for stage in FILE.stages.values() for step in stage.all("SHELL")]


def test_what_runs() -> None:
    assert IMAGE.last("ENTRYPOINT").argv == ["memvault"]
    assert IMAGE.last("CMD").argv == ["serve"]
    assert IMAGE.last("STOPSIGNAL").value == "SIGTERM"
    health = IMAGE.last("HEALTHCHECK")
    assert health.argv == ["memvault", "health"]
    assert {flag.split("=")[0] for flag in health.flags} == {"--interval", "--timeout", "--start-period", "--retries"}


def test_images_come_from_arguments() -> None:
    """Registry and base image are arguments; the base has a tag of its own, never the newest of all."""
    bases = {stage.base for stage in FILE.stages.values()}
    assert bases == {"${REGISTRY}/${BASE_IMAGE}", "build", "scratch"}
    assert set(FILE.arguments) == {"REGISTRY", "BASE_IMAGE"}
    tag = FILE.arguments["BASE_IMAGE"].rpartition(":")[2]
    assert re.fullmatch(r"\d+\.\d+[\w.-]*", tag)


def test_no_host_is_named_but_the_default_registry() -> None:
    """Neither an index of packages nor another registry; no image is pulled for the syntax either."""
    text = (REPOSITORY / "Dockerfile").read_text()
    assert set(_HOST.findall(text)) <= {"docker.io"}
    assert text.count("docker.io") == 1
    assert not re.search(r"^#\s*syntax=", text, re.MULTILINE)


@pytest.mark.parametrize("step", EVERY_STEP)
def test_nothing_is_fetched_by_address_and_no_secret_stays(step: object) -> None:
    assert step.name != "ADD"  # type: ignore[attr-defined]
    assert "://" not in step.value  # type: ignore[attr-defined]
    assert step.name != "ARG" or not re.search(r"(?i)pass|token|secret|index", step.value)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("stage", "file"), [("build", "runtime.txt"), ("inventory", "sbom.txt")])
def test_packages_are_wheels_with_hashes_from_the_index_that_a_secret_names(stage: str, file: str) -> None:
    (step,) = [one for one in FILE.stages[stage].all("RUN") if one.argv and "-r" in one.argv]
    assert step.argv
    assert step.argv[-1] == file
    assert {"--no-deps", "--require-hashes", "--only-binary"} <= set(step.argv)
    assert step.flags == ("--mount=type=secret,id=pip-conf,target=/etc/pip.conf",)
    assert (REPOSITORY / "config" / "requirements" / file).is_file()


def test_model_and_database_template_are_made_at_build_time() -> None:
    made = [
        step.argv[:2] for step in FILE.stages["build"].all("RUN") if step.argv and step.argv[0].endswith("memvault")
    ]
    assert [Path(command).name + " " + verb for command, verb in made] == [
        "memvault model",
        "memvault postgres-template",
    ]


def test_the_environment_is_one_of_settings() -> None:
    environment = IMAGE.environment
    settings = load_settings(environ=environment)
    assert settings.data_dir == Path("/var/lib/memvault")
    assert settings.server.host == "0.0.0.0"
    assert str(settings.embeddings.folder) in built_paths(FILE.stages["build"])
    assert str(settings.database.embedded_template) in built_paths(FILE.stages["build"])
    assert IMAGE.last("VOLUME").argv == [environment["MEMVAULT_DATA_DIR"]]
    assert IMAGE.last("EXPOSE").value == str(settings.server.port)


def built_paths(stage: Stage) -> set[str]:
    return {step.argv[-1] for step in stage.all("RUN") if step.argv}


def test_the_sbom_is_of_the_environment_that_is_shipped() -> None:
    (step,) = [one for one in FILE.stages["inventory"].all("RUN") if one.argv and one.argv[0].endswith("cyclonedx-py")]
    assert step.argv
    assert step.argv[1:3] == ["environment", "/opt/memvault/bin/python"]
    (copy,) = FILE.stages["sbom"].steps
    assert copy.flags == ("--from=inventory",)
    assert [one.value.split()[0] for one in IMAGE.all("COPY")] == ["/opt/memvault"]


def test_only_what_is_named_gets_into_the_build() -> None:
    """All is left out and what the Dockerfile copies is let in: no data, no keys, no environment."""
    lines = [
        line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert lines[0] == "*"
    admitted = [line[1:] for line in lines if line.startswith("!")]
    copied = {
        word
        for stage in ("build", "inventory")
        for step in FILE.stages[stage].all("COPY")
        for word in step.value.split()[:-1]
    }
    assert all(any(fnmatch.fnmatch(word.split("/")[0], one) for one in admitted) for word in copied)
    assert not {".venv", ".memvault", ".git", "tests", "deploy"} & set(admitted)
    assert "**/__pycache__" in lines


def test_the_labels() -> None:
    labels = " ".join(step.value for step in IMAGE.all("LABEL"))
    for name in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{name}=" in labels
    version = re.search(r'^version = "(.+)"', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert f"VERSION={version[1]}" in [step.value for step in IMAGE.all("ARG")]


def test_a_worse_file_is_recognised(tmp_path: Path) -> None:
    """The reader tells exec form from shell form, and flags from values."""
    path = tmp_path / "Dockerfile"
    path.write_text(
        "ARG X=1\nFROM a:1 AS runtime\nRUN --mount=type=secret,id=a echo hi\nHEALTHCHECK CMD curl x\nUSER root\n"
    )
    stage = read(path).stages["runtime"]
    assert [step.argv for step in stage.steps] == [None, None, None]
    assert stage.steps[0].flags == ("--mount=type=secret,id=a",)
    assert stage.steps[0].value == "echo hi"
