"""Runs Mem0's command line client with outside hosts unreachable; what it would have asked of one goes to a file.

Usage: python mem0_cli.py FILE ARGUMENTS…
"""

from __future__ import annotations

import importlib
import ipaddress
import sys
from typing import Any

_noted = sys.argv[1]


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    host: Any = None
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "subprocess.Popen":
        host = f"process {arguments[0]}"
    if isinstance(host, bytes):
        host = host.decode()
    if isinstance(host, str) and not _is_local(host):
        with open(_noted, "a", encoding="utf-8") as file:
            file.write(f"{event} {host}\n")
        raise OSError(f"outside hosts are unreachable in tests: {host}")


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


sys.addaudithook(_hear)
sys.path.pop(0)
sys.argv = ["mem0", *sys.argv[2:]]
importlib.import_module("mem0_cli.app").main()
