"""Runs a whole session of an installation in a network namespace without a way out, and sees every packet to outside.

Run as a program by `run_closed`: it prints one JSON document with what was seen and how the session went. The kernel is
asked, not Python: compiled libraries send packets of which the interpreter knows nothing.
"""

from __future__ import annotations

import ipaddress
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.llm.scripted import ScriptedLLM
from tests.process.memvault import REPOSITORY, Memvault, add, eventually, search

_ALL_PROTOCOLS = 3
_IPV4, _IPV6 = 0x0800, 0x86DD
_DNS = 53
#: A documentation address, to show that the watch sees what it is there to see.
_CONTROL = ("192.0.2.1", 9)
#: Longer than the batches in which telemetry libraries send.
_AFTER_SECONDS = 6.0


class Watch:
    """Notes the destination of every packet that is not for this machine, and every question to a name server."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.ntohs(_ALL_PROTOCOLS))
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            packet, where = self._socket.recvfrom(65535)
            destination = _destination(packet, where[1])
            if destination is not None:
                self.seen.add(destination)


def _destination(packet: bytes, kind: int) -> str | None:
    if kind == _IPV4:
        address = ipaddress.ip_address(packet[16:20])
        protocol, payload = packet[9], packet[(packet[0] & 15) * 4 :]
    elif kind == _IPV6:
        address = ipaddress.ip_address(packet[24:40])
        protocol, payload = packet[6], packet[40:]
    else:
        return None
    port = int.from_bytes(payload[2:4], "big") if protocol in (6, 17) else 0
    # What the kernel itself says on a link (neighbour discovery) is nobody's egress.
    if address.is_multicast or (address.is_loopback and port != _DNS):
        return None
    return f"{address} port {port}"


def main(model_folder: str) -> None:
    """Open the loopback interface as the way to everywhere, watch it, and run the session."""
    for command in ("link set lo up", "route add default dev lo", "-6 route add default dev lo"):
        subprocess.run(["ip", *command.split()], check=command.startswith("-6") is False, capture_output=True)
    watch = Watch()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        control.sendto(b"x", _CONTROL)
    eventually(lambda: watch.seen or None)
    control_seen = sorted(watch.seen)
    watch.seen.clear()
    done = session(Path(model_folder))
    json.dump({"control": control_seen, "seen": sorted(watch.seen), **done}, sys.stdout)


def session(model_folder: Path) -> dict[str, Any]:
    """Start, add, extract, search, delete, run commands and stop; return how it went and which files it left."""
    with ScriptedLLM() as llm:
        memvault = Memvault(
            model_folder,
            MEMVAULT_LLM__PROVIDER="openai",
            MEMVAULT_LLM__MODEL="scripted",
            MEMVAULT_LLM__API_KEY="sk-scripted",
            MEMVAULT_LLM__BASE_URL=llm.url,
        )
        try:
            memvault.start()
            with memvault.client() as client:
                eventually(lambda: client.get("/readyz").json()["parts"]["extraction"]["status"] == "ok", seconds=90)
                (memory_id,) = add(client, "I love Italian food")
                body = {"messages": [{"role": "user", "content": "I live in Rome"}], "user_id": "alice"}
                event_id = client.post("/v3/memories/add/", json=body).json()["event_id"]
                event = f"/v1/event/{event_id}/"
                eventually(lambda: client.get(event).json()["status"] == "SUCCEEDED" or None, seconds=60)
                found = [hit["memory"] for hit in search(client, "food and home town")]
                client.delete(f"/v1/memories/{memory_id}/")
            memvault.json("key", "list", "--tenant", "default")
            process = memvault.process
            assert process is not None
            cwd = str(Path(f"/proc/{process.pid}/cwd").readlink())
            time.sleep(_AFTER_SECONDS)
            code = memvault.stop()
            folders = (memvault.home, memvault.temporary, memvault.cwd)
            left = sorted(str(path.relative_to(memvault.place)) for folder in folders for path in folder.rglob("*"))
            return {"found": sorted(found), "code": code, "left": left, "cwd": cwd == str(memvault.cwd)}
        finally:
            memvault.remove()


def run_closed(model_folder: Path) -> dict[str, Any]:
    """Run the session in a namespace of its own; skips the test where the kernel allows none."""
    enter = ["unshare", "-rn"] if _allowed("-rn") and not _allowed("-n") else ["unshare", "-n"]
    if not (_allowed(enter[1]) and shutil.which("ip")):
        pytest.skip("this kernel gives no network namespace, or the command `ip` is not installed")
    ended = subprocess.run(
        [*enter, sys.executable, "-m", "tests.process.closed_network", str(model_folder)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


def _allowed(option: str) -> bool:
    return (
        shutil.which("unshare") is not None
        and not subprocess.run(["unshare", option, "true"], capture_output=True, check=False).returncode
    )


if __name__ == "__main__":
    main(sys.argv[1])
