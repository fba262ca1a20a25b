"""The suites for servers on each version of PostgreSQL and Qdrant, in containers, where a Docker engine answers.

Each version is a test of its own, so that `.ci/run` lists one by one what did not run here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from tests.conftest import TEST_DATABASE_URL
from tests.qdrant.serving import GRPC_PORT, KEY, URL

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
POSTGRES = ("15", "16", "17", "18")
#: The oldest that is taken, the last without rarity per tenant, and the first with it.
QDRANT = ("v1.16.3", "v1.18.0", "v1.19.0")
PASSWORD = "superuser-of-a-container-of-the-tests"
API_KEY = "key-of-a-container-of-the-tests-0123456789"


@pytest.fixture(scope="module")
def engine() -> bool:
    """Whether a Docker engine answers here. Asked once, by a process of its own: the client leaves sockets open."""
    ask = "from testcontainers.core.docker_client import DockerClient; assert DockerClient().client.ping()"
    asked = subprocess.run([sys.executable, "-c", ask], capture_output=True, check=False, timeout=60)
    return asked.returncode == 0


@contextmanager
def container(
    image: str, *ports: int, environment: Mapping[str, str], ready: LogMessageWaitStrategy
) -> Iterator[DockerContainer]:
    """Run an image until the block ends."""
    made = DockerContainer(image).with_exposed_ports(*ports)
    for name, value in environment.items():
        made = made.with_env(name, value)
    with made.waiting_for(ready.with_startup_timeout(120)) as running:
        yield running


def run(marker: str, environment: Mapping[str, str]) -> str:
    """Run what is marked in a process of its own, and return what it said."""
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-m", marker, "tests/integration", "tests/isolation"]
    options = {"PYTEST_ADDOPTS": ""}
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment | options,
        capture_output=True,
        text=True,
        check=False,
        timeout=1100,
    )
    assert ended.returncode == 0, ended.stdout[-4000:]
    return ended.stdout


@pytest.mark.parametrize("version", POSTGRES)
def test_the_postgres_suite_passes_on(version: str, engine: bool) -> None:
    if not engine:
        pytest.skip(f"Docker engine absent: not run on PostgreSQL {version}")
    environment = {"POSTGRES_PASSWORD": PASSWORD}
    # Once while it is being made, once when it is.
    ready = LogMessageWaitStrategy("database system is ready to accept connections", times=2)
    with container(f"postgres:{version}", 5432, environment=environment, ready=ready) as running:
        host, port = running.get_container_host_ip(), running.get_exposed_port(5432)
        url = f"postgresql://postgres:{PASSWORD}@{host}:{port}/postgres"
        assert " passed" in run("postgres_suite", {TEST_DATABASE_URL: url})


@pytest.mark.parametrize("version", QDRANT)
def test_the_qdrant_suite_passes_on(version: str, engine: bool) -> None:
    if not engine:
        pytest.skip(f"Docker engine absent: not run on Qdrant {version.removeprefix('v')}")
    environment = {"QDRANT__SERVICE__API_KEY": API_KEY, "QDRANT__TELEMETRY_DISABLED": "true"}
    ready = LogMessageWaitStrategy("Qdrant gRPC listening")
    with container(f"qdrant/qdrant:{version}", 6333, 6334, environment=environment, ready=ready) as running:
        host = running.get_container_host_ip()
        named = {
            URL: f"http://{host}:{running.get_exposed_port(6333)}",
            KEY: API_KEY,
            GRPC_PORT: str(running.get_exposed_port(6334)),
        }
        assert " passed" in run("qdrant_suite", named)
