"""Every official Mem0 client works with nothing changed but the host."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.main import create_app
from service.wiring import Services
from tests.clients import driving, npm_packages, python_clients
from tests.clients.serving import serving
from tests.clients.test_cli import Mem0
from tests.conftest import principal_of

pytestmark = pytest.mark.promises

DRIVERS = Path(python_clients.__file__).parent / "drivers"
SAID = [{"role": "user", "content": "I like tea with lemon"}]


@pytest.fixture
def served(services: Services) -> Iterator[tuple[str, str]]:
    """The address of a served instance and a key: all that a client is told."""
    _, secret = principal_of(services, services.installation.tenants.create("acme").id)
    with serving(create_app(services)) as url:
        yield url, secret


def test_every_official_client_works(served: tuple[str, str], tmp_path: Path) -> None:
    """Every official Mem0 client (Python 0.1, 1.0 and 2.x, TypeScript, CLI) works with nothing changed but the host."""
    url, secret = served
    try:
        pythons = [sys.executable, *(str(python_clients.find(one).python) for one in python_clients.NAMES[:2])]
        command = python_clients.find(python_clients.NAMES[2])
        node = npm_packages.find()
    except (python_clients.NotInstalled, npm_packages.NotInstalled) as reason:
        pytest.skip(str(reason))
    for number, python in enumerate(pythons):
        with driving.driving([python, str(DRIVERS / "python_client.py"), "sync"], tmp_path / str(number)) as driver:
            client = driver.connect(url, secret)
            [added] = client("add", SAID, user_id=f"python {number}", infer=False)["results"]
            assert client("get", added["id"])["memory"] == SAID[0]["content"]
            found = client("search", "drinks", filters={"user_id": f"python {number}"}, **FORMS[number])
            assert [one["id"] for one in (found if isinstance(found, list) else found["results"])] == [added["id"]]
    with driving.driving(
        [node.node, str(node.folder / "memory_client.mjs")], tmp_path / "ts", folder=node.folder
    ) as driver:
        client = driver.connect(url, secret)
        [added] = client("add", SAID, {"userId": "typescript", "infer": False})["results"]
        found = client("search", "drinks", {"filters": {"user_id": "typescript"}})["results"]
        assert [one["id"] for one in found] == [added["id"]]
    (tmp_path / "cli").mkdir()
    mem0 = Mem0(command, tmp_path / "cli", url, secret)
    [added] = mem0.data("add", SAID[0]["content"], "--user-id", "cli", "--no-infer")
    found = mem0.data("search", "drinks", "--user-id", "cli", "--threshold", "0.1")
    assert [one["id"] for one in found] == [added["id"]]


#: The first line of clients chooses the route of a search by an argument.
FORMS: list[dict[str, str]] = [{}, {}, {"version": "v2"}]
