"""Drives one of Mem0's Python clients for a test in another process: JSON lines in, JSON lines out.

It runs in the client's own environment, so it knows the standard library and `mem0` and nothing of this repository.

    {"op": "connect", "client": "a", "host": …, "key": …}        makes a client, named for later calls
    {"op": "call", "client": "a", "method": "project.get", "args": […], "kwargs": {…}}
    {"op": "header", "client": "a", "name": …, "value": …}       sends a header with every call, null takes it back
    {"op": "methods"}                                            the public methods, by reflection

Usage: python python_client.py sync|async
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import ipaddress
import json
import os
import sys
import warnings
from typing import Any

warnings.simplefilter("ignore")
_outside: list[str] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse and note what would leave this machine."""
    host: Any = None
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    if isinstance(host, bytes):
        host = host.decode()
    if isinstance(host, str) and not _is_local(host):
        _outside.append(f"{event} {host}")
        raise OSError(f"outside hosts are unreachable in tests: {host}")


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


sys.addaudithook(_hear)
sys.path.pop(0)
assert os.environ["MEM0_TELEMETRY"] == "false"
mem0 = importlib.import_module("mem0")


class Driver:
    """Holds the clients of one kind."""

    def __init__(self, kind: str) -> None:
        self._is_async = kind == "async"
        self._class = mem0.AsyncMemoryClient if self._is_async else mem0.MemoryClient
        self._clients: dict[str, Any] = {}

    def methods(self) -> list[str]:
        """The client's public methods and those of its project."""
        project = importlib.import_module("mem0.client.project")
        of_project = project.AsyncProject if self._is_async else project.Project
        return sorted([*_public(self._class), *(f"project.{name}" for name in _public(of_project))])

    async def obey(self, order: dict[str, Any]) -> Any:
        """Do what an order says and return its result."""
        op, name = order["op"], order.get("client", "")
        if op == "methods":
            return self.methods()
        if op == "outside":
            return _outside
        if op == "connect":
            client = self._class(api_key=order["key"], host=order["host"])
            self._clients[name] = client
            return {"org_id": client.org_id, "project_id": client.project_id, "user_email": client.user_email}
        client = self._clients[name]
        if op == "header":
            headers = getattr(client, "async_client", None) or client.client
            if order["value"] is None:
                headers.headers.pop(order["name"], None)
            else:
                headers.headers[order["name"]] = order["value"]
            return None
        target = client
        for part in order["method"].split("."):
            target = getattr(target, part)
        args = [_typed(one) for one in order["args"]]
        kwargs = {key: _typed(value) for key, value in order["kwargs"].items()}
        result = target(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result


def _public(kind: type) -> list[str]:
    return [name for name, one in inspect.getmembers(kind, callable) if not name.startswith("_")]


def _typed(value: Any) -> Any:
    """Return an options object for `{"$options": [its class, its fields]}`, else the value."""
    if isinstance(value, dict) and set(value) == {"$options"}:
        name, fields = value["$options"]
        return getattr(importlib.import_module("mem0.client.types"), name)(**fields)
    return value


def _told(error: BaseException) -> dict[str, Any]:
    """Return an exception as the test sees it: its classes, and what Mem0's structured errors carry."""
    debug = getattr(error, "debug_info", None) or {}
    # The asynchronous clients of the older lines let the HTTP library's own error through.
    response = getattr(error, "response", None)
    return {
        "kinds": [one.__name__ for one in type(error).__mro__ if one not in (object, BaseException)],
        "message": str(error),
        "status": response.status_code if response is not None else debug.get("status_code"),
        "retry_after": debug.get("retry_after"),
        "details": response.json() if response is not None else getattr(error, "details", None),
        "debug": {key: value for key, value in debug.items() if isinstance(value, (str, int))},
    }


async def main(kind: str) -> None:
    """Read orders until the end of the input."""
    driver = Driver(kind)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            answer = {"result": await driver.obey(json.loads(line))}
        except Exception as error:
            answer = {"raised": _told(error)}
        print(json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
