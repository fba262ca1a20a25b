"""Commands in odd surroundings: an output that nobody reads or that is full, another encoding, files of no use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence

import httpx
import pytest

from tests.process.fixtures import MakeMemvault
from tests.process.memvault import Memvault, command, eventually, free_port

pytestmark = pytest.mark.integration

#: A name that no file can have: whoever looks for it gets an error, root too.
IMPOSSIBLE = "/tmp/" + "x" * 300


def ended(
    memvault: Memvault,
    *arguments: str,
    output: int | None = None,
    complaints: int | None = None,
    given: int = subprocess.DEVNULL,
    **environ: str,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command with other standard streams."""
    return subprocess.run(
        [*command(), *arguments, "--data-dir", str(memvault.data_dir)],
        stdin=given,
        stdout=subprocess.PIPE if output is None else output,
        stderr=subprocess.PIPE if complaints is None else complaints,
        cwd=memvault.cwd,
        env=memvault.environment(**environ),
        timeout=180,
        check=False,
    )


def closing(closed: Sequence[int], *arguments: str) -> list[str]:
    """The command behind a shell that closes some of the standard streams."""
    return ["sh", "-c", f'exec "$@" {" ".join(f"{number}>&-" for number in closed)}', "sh", *command(), *arguments]


def without_streams(memvault: Memvault, closed: Sequence[int], *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command without some of the standard streams."""
    return subprocess.run(
        closing(closed, *arguments, "--data-dir", str(memvault.data_dir)),
        capture_output=True,
        cwd=memvault.cwd,
        env=memvault.environment(),
        timeout=180,
        check=False,
    )


def unread() -> int:
    """The end of a pipe that nobody reads any more, as behind `| head`."""
    reads, writes = os.pipe()
    os.close(reads)
    return writes


def test_an_output_that_nobody_reads_is_no_error_to_tell(served: Memvault) -> None:
    pipe = unread()
    try:
        done = ended(served, "tenant", "list", output=pipe)
    finally:
        os.close(pipe)
    assert (done.returncode, done.stderr) == (2, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_an_output_that_is_full_is_told(served: Memvault) -> None:
    """Nobody takes a key for made and shown whose secret went nowhere."""
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = ended(served, "key", "create", "--tenant", "default", "--json", output=full)
    finally:
        os.close(full)
    assert done.returncode == 2
    assert done.stderr == (
        b"memvault: standard output cannot be written (No space left on device): what was asked for is done, its "
        b"result is lost\n"
    )


@pytest.mark.parametrize(
    ("closed", "arguments", "code"),
    [
        ([1], ["key", "create", "--tenant", "default"], 2),
        ([2], ["tenant", "list"], 0),
        # 1 would say that the trail was changed.
        ([2], ["audit", "verify", "--checkpoints", "/nosuch"], 2),
        ([0, 1, 2], ["audit", "verify"], 2),
        ([0], ["audit", "match", "-", "--memory", "0190a1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b"], 0),
    ],
    ids=lambda case: "-".join(map(str, case)) if isinstance(case, list) else str(case),
)
def test_a_stream_that_is_closed_is_as_one_that_is_full(
    closed: list[int], arguments: list[str], code: int, served: Memvault
) -> None:
    done = without_streams(served, closed, *arguments)
    said = done.stderr.decode()
    assert (done.returncode, "Traceback" in said) == (code, False), said
    if 1 in closed and 2 not in closed:
        assert said.startswith("memvault: standard output cannot be written (it is closed)")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_where_complaints_cannot_be_written_the_exit_code_tells(served: Memvault) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = ended(served, "audit", "verify", "--checkpoints", "/nosuch", complaints=full)
    finally:
        os.close(full)
    assert done.returncode == 2


def test_a_terminal_that_is_not_in_utf_8_gets_what_it_can_show(served: Memvault) -> None:
    done = ended(served, "key", "list", "--tenant", "default", PYTHONIOENCODING="iso-8859-15")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"active" in done.stdout
    plain = ended(served, "key", "list", "--tenant", "default", LC_ALL="C")
    assert (plain.returncode, "…" in plain.stdout.decode()) == (0, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("audit", "verify", "--checkpoints", IMPOSSIBLE),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_name_that_no_file_can_have_is_one_line(served: Memvault, arguments: tuple[str, ...]) -> None:
    """For `audit verify` 1 would say that the trail was changed."""
    done = ended(served, *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("memvault: ")
    assert IMPOSSIBLE in line
    assert "File name too long" in line


@pytest.mark.parametrize("url", ["http://[::1", "http://127.0.0.1:port", "memory.example.com"])
def test_an_address_that_is_none_is_one_line(served: Memvault, url: str) -> None:
    done = ended(served, "mcp", "--url", url)
    assert done.returncode == 2
    assert done.stderr == b"memvault: --url: must be an address such as http://127.0.0.1:8080\n"


def test_an_agent_that_takes_no_answer_ends_the_conversation(served: Memvault) -> None:
    """It has crashed, say."""
    output = unread()
    reads, writes = os.pipe()
    try:
        os.write(writes, b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n' * 3)
        os.close(writes)
        done = ended(served, "mcp", output=output, given=reads)
    finally:
        os.close(output)
        os.close(reads)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_service_whose_output_nobody_reads_serves_and_ends_in_order(make_memvault: MakeMemvault) -> None:
    memvault = make_memvault()
    pipe = unread()
    try:
        process = subprocess.Popen(
            [*command(), "serve", "--port", "0", "--data-dir", str(memvault.data_dir)],
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=subprocess.PIPE,
            cwd=memvault.cwd,
            env=memvault.environment(),
        )
    finally:
        os.close(pipe)
    memvault.process = process
    eventually((memvault.data_dir / "credentials.json").exists, seconds=90)
    memvault.url = memvault.credentials["url"]
    with memvault.client() as client:
        eventually(lambda: client.get("/readyz").status_code == 200, seconds=90)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    memvault.process = None
    assert process.returncode == 0, said.decode()
    assert b"BrokenPipe" not in said


def test_a_service_without_standard_streams_serves_and_ends_in_order(make_memvault: MakeMemvault) -> None:
    """As some that start it in the background close them."""
    memvault = make_memvault()
    memvault.process = process = subprocess.Popen(
        closing([0, 1, 2], "serve", "--port", "0", "--data-dir", str(memvault.data_dir)),
        cwd=memvault.cwd,
        env=memvault.environment(),
    )
    eventually((memvault.data_dir / "credentials.json").exists, seconds=90)
    memvault.url = memvault.credentials["url"]
    with memvault.client() as client:
        eventually(lambda: client.get("/readyz").status_code == 200, seconds=90)
    process.send_signal(signal.SIGTERM)
    memvault.process = None
    assert process.wait(timeout=60) == 0


def test_a_worker_whose_output_nobody_reads_works(make_memvault: MakeMemvault) -> None:
    memvault = make_memvault()
    memvault.json("migrate")
    port = str(free_port())
    pipe = unread()
    try:
        process = subprocess.Popen(
            [*command(), "worker", "--data-dir", str(memvault.data_dir)],
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=subprocess.PIPE,
            cwd=memvault.cwd,
            env=memvault.environment(MEMVAULT_METRICS__PORT=port),
        )
    finally:
        os.close(pipe)
    memvault.process = process
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
        eventually(lambda: client.get("/readyz").status_code == 200, seconds=90)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    memvault.process = None
    assert process.returncode == 0, said.decode()


def test_the_doctor_tells_of_a_folder_that_it_cannot_look_at(memvault: Memvault) -> None:
    done = subprocess.run(
        [*command(), "doctor", "--json", "--data-dir", IMPOSSIBLE],
        capture_output=True,
        cwd=memvault.cwd,
        env=memvault.environment(),
        timeout=180,
        check=False,
    )
    parts = {part["name"]: part for part in json.loads(done.stdout)["parts"]}
    assert done.returncode == 1
    assert parts["data folder"]["state"] == "failed"
    assert "File name too long" in parts["data folder"]["reason"]
