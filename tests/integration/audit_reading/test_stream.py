"""The trail as a stream: nothing is left out and order is kept, whatever the receiver or a late commit does."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select

from service import clock
from service.audit.details import MemorySearched
from service.audit.entries import audit_table, entry_of
from service.audit.events import AuditEvent
from service.audit.stream import AuditStream, LinesFile, Sink
from service.audit.syslog import SinkUnavailable, Syslog
from service.scope import Caller, Scope, service_principal
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of
from tests.integration.audit_reading.conftest import Rows

pytestmark = pytest.mark.integration


#: How many ids a row can list.
MOST = {"subjects": 2000, "targets": 1000, "results": 1000}


class Collector:
    """A syslog server over TCP or TLS: takes counted messages of a connection until its end, then closes."""

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.messages: list[dict[str, Any]] = []
        self.cut_after: int | None = None
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            try:
                connection = self._tls.wrap_socket(plain, server_side=True) if self._tls else plain
                self._take(connection)
            except OSError:
                plain.close()

    def _take(self, connection: socket.socket) -> None:
        data = b""
        while part := connection.recv(65536):
            data += part
            if self.cut_after is not None and len(data) > self.cut_after:
                # Gone in the middle: what was read so far is lost with it.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                connection.close()
                return
        while data:
            length, _, rest = data.partition(b" ")
            message, data = rest[: int(length)], rest[int(length) :]
            self.messages.append(json.loads(message.partition(b" - {")[2].join([b"{", b""])))
        if isinstance(connection, ssl.SSLSocket):
            connection = connection.unwrap()
        connection.close()


@contextmanager
def collecting(port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Collector]:
    """Run a collector."""
    collector = Collector(port, tls)
    try:
        yield collector
    finally:
        collector.close()


class Kept:
    """A sink in memory that can be told to fail."""

    name = "kept"

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.down = False

    def send(self, entries: Any) -> None:
        """Keep a batch, or fail after having seen it."""
        self.ids += [str(entry.id) for entry in entries]
        if self.down:
            raise SinkUnavailable("down")


def ids_of(rows: Rows) -> list[str]:
    """The ids of all rows, tenant by tenant in the order of the seals."""
    found = sorted(rows(), key=lambda row: (str(row["tenant_id"]), row["xid"], row["seq"]))
    return [str(row["id"]) for row in found]


def in_order(messages: list[dict[str, Any]]) -> bool:
    """Whether the rows of each tenant came in order."""
    places = [(one["tenant_id"], one["xid"], one["seq"]) for one in messages]
    tenants = {place[0] for place in places}
    return all(
        (own := [place for place in places if place[0] == tenant]) == sorted(own) and len(own) == len(set(own))
        for tenant in tenants
    )


def ping(services: Services, caller: Caller, times: int = 1) -> None:
    """Write rows."""
    for _ in range(times):
        with services.installation.database.transaction(caller.scope) as connection:
            services.installation.trail.write(connection, caller, AuditEvent.SERVICE_PINGED)


def wait_for(condition: Callable[[], bool], within: float = 20.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def test_a_collector_over_tcp_gets_every_row_once_and_in_order(services: Services, caller: Caller, rows: Rows) -> None:
    other = caller_of(services, services.installation.tenants.create("globex").id)
    with collecting() as collector:
        stream = AuditStream(services.installation.database, Syslog("127.0.0.1", collector.port))
        ping(services, caller, 3)
        ping(services, other, 3)
        assert stream.send_news() == len(rows())
        assert stream.send_news() == 0
        ping(services, other)
        assert stream.send_news() == 1
        wait_for(lambda: len(collector.messages) == len(rows()))
    assert in_order(collector.messages)
    assert sorted(one["id"] for one in collector.messages) == sorted(ids_of(rows))


def test_a_collector_that_is_down_gets_everything_once_it_is_back(
    make_services: MakeServices, database: Postgres, rows: Rows
) -> None:
    with collecting() as collector:
        port = collector.port
    services = make_services(audit={"syslog": {"address": "127.0.0.1", "port": port}})
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    ping(services, caller, 5)
    time.sleep(2.5)
    with psycopg.connect(database.admin) as connection:
        assert connection.execute("SELECT count(*) FROM audit_stream_places").fetchone() == (0,)
    with collecting(port) as collector:
        wait_for(lambda: len(collector.messages) >= len(rows()))
        ping(services, caller, 5)
        wait_for(lambda: len(collector.messages) >= len(rows()))
    assert in_order(collector.messages)
    assert {one["id"] for one in collector.messages} == set(ids_of(rows))


def test_a_batch_that_broke_off_is_sent_again(services: Services, caller: Caller, rows: Rows) -> None:
    with collecting() as collector:
        stream = AuditStream(services.installation.database, Syslog("127.0.0.1", collector.port))
        ping(services, caller, 2000)
        collector.cut_after = 10_000
        with pytest.raises(SinkUnavailable):
            stream.send_news()
        collector.cut_after = None
        stream.send_news()
        wait_for(lambda: len(collector.messages) == len(rows()))
        assert in_order(collector.messages)


def test_over_tls_a_collector_must_show_its_certificate(
    services: Services, caller: Caller, rows: Rows, tmp_path: Path
) -> None:
    with collecting(tls=certified(tmp_path, "127.0.0.1")) as collector:
        place = ("127.0.0.1", collector.port)
        distrusting = AuditStream(services.installation.database, Syslog(*place, protocol="tls"))
        with pytest.raises(SinkUnavailable):
            distrusting.send_news()
        trusting = Syslog(*place, protocol="tls", ca_file=tmp_path / "certificate.pem")
        distrusting._places.release()
        AuditStream(services.installation.database, trusting).send_news()
        wait_for(lambda: len(collector.messages) == len(rows()))


@pytest.mark.parametrize("many_of", [("targets", "results"), ("subjects",), ("subjects", "targets", "results")])
def test_udp_sends_one_datagram_a_row_and_shortens_what_does_not_fit(
    services: Services, caller: Caller, rows: Rows, many_of: tuple[str, ...]
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        with services.installation.database.transaction(caller.scope) as connection:
            # What a batch of a thousand memories of as many users and runs names, and what a filter can.
            many: dict[str, Any] = {name: [clock.new_id() for _ in range(MOST[name])] for name in many_of}
            detail = MemorySearched(limit=1000)
            services.installation.trail.write(connection, caller, AuditEvent.MEMORY_SEARCHED, detail=detail, **many)
        sink = Syslog("127.0.0.1", receiver.getsockname()[1], protocol="udp")
        sent = AuditStream(services.installation.database, sink).send_news()
        lines = [receiver.recv(70_000).partition(b" - {")[2] for _ in range(sent)]
    found = [json.loads(b"{" + line) for line in lines]
    assert {one["id"] for one in found} == set(ids_of(rows))
    (shortened,) = [one for one in found if one["event"] == "memory:searched"]
    counts = {f"{name.removesuffix('s')}_ids": most if name in many_of else 0 for name, most in MOST.items()}
    assert {name: shortened[name] for name in counts} == counts
    assert set(shortened["shortened"]) == {*counts, "value_mac"}
    assert shortened["detail"]["limit"] == 1000
    assert not any("shortened" in one for one in found if one is not shortened)


def test_what_is_too_long_for_a_datagram_without_its_ids_goes_without_its_detail(
    services: Services, caller: Caller, rows: Rows
) -> None:
    ping(services, caller)
    with services.installation.database.transaction(caller.scope) as connection:
        entry = entry_of(connection.execute(select(audit_table)).first())
    sink = Syslog("127.0.0.1", 9, protocol="udp")
    longer = replace(entry, detail={"told": "x" * 70_000}, subject_ids=(clock.new_id(),) * 2000)
    line = sink.line(longer, most=65_000)
    body = json.loads(b"{" + line.partition(b" - {")[2])
    assert len(line) <= 65_000
    assert (body["detail"], body["subject_ids"], body["id"]) == (None, 2000, str(entry.id))
    assert "detail" in body["shortened"]
    assert sink.line(longer) != line


def test_a_file_may_be_moved_away_at_any_time(services: Services, caller: Caller, rows: Rows, tmp_path: Path) -> None:
    file, moved = tmp_path / "trail.jsonl", tmp_path / "trail.1.jsonl"
    stream = AuditStream(services.installation.database, LinesFile(file))
    stream.send_news()
    file.rename(moved)
    ping(services, caller)
    stream.send_news()
    lines = [json.loads(line) for path in (moved, file) for line in path.read_text().splitlines()]
    assert in_order(lines)
    assert {line["id"] for line in lines} == set(ids_of(rows))
    assert file.stat().st_mode & 0o777 == 0o600


def test_behind_a_line_that_a_full_disk_cut_a_new_one_begins(
    services: Services, caller: Caller, rows: Rows, tmp_path: Path
) -> None:
    file = tmp_path / "trail.jsonl"
    whole = b'{"id": "of before"}\n'
    file.write_bytes(whole + b'{"id": "0190')
    AuditStream(services.installation.database, LinesFile(file)).send_news()
    first, cut, *lines = file.read_bytes().splitlines()
    assert (first + b"\n", cut) == (whole, b'{"id": "0190')
    assert [json.loads(line)["id"] for line in lines] == ids_of(rows)


def test_standard_output_gets_json_lines(
    make_services: MakeServices, rows: Rows, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    services = make_services(audit={"stream": True})
    ping(services, caller_of(services, services.installation.tenants.create("acme").id))
    lines: list[str] = []

    def arrived() -> bool:
        lines.extend(capfdbinary.readouterr().out.decode().splitlines())
        return len(lines) >= len(rows())

    wait_for(arrived)
    assert {json.loads(line)["id"] for line in lines} == set(ids_of(rows))


def test_a_row_that_commits_late_is_not_passed_over(services: Services, caller: Caller, rows: Rows) -> None:
    sink = Kept()
    stream = AuditStream(services.installation.database, sink)
    stream.send_news()
    database = services.installation.database
    with database.transaction(caller.scope) as late:
        services.installation.trail.write(late, caller, AuditEvent.SERVICE_PINGED)
        ping(services, caller, 3)
        # The later rows are there already and must wait for the older one.
        assert stream.send_news() == 0
    assert stream.send_news() == 4
    assert sink.ids == [one for one in ids_of(rows) if one in set(sink.ids)]


def test_a_receiver_that_fails_gets_the_batch_again(services: Services, caller: Caller, rows: Rows) -> None:
    sink = Kept()
    stream = AuditStream(services.installation.database, sink)
    sink.down = True
    for _ in range(2):
        with pytest.raises(SinkUnavailable):
            stream.send_news()
    sink.down = False
    stream.send_news()
    assert set(sink.ids) == set(ids_of(rows))
    assert len(sink.ids) > len(rows())


def test_rows_that_were_sealed_meanwhile_are_sent_too(make_services: MakeServices, rows: Rows) -> None:
    """The sealer takes away the notes by which news are found; its seals stand in for them."""
    services = make_services(worker=True, audit={"seal_interval": 0.1})
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    sink = Kept()
    stream = AuditStream(services.installation.database, sink)
    for _ in range(3):
        ping(services, caller, 20)
        time.sleep(0.5)
        stream.send_news()
    assert sink.ids
    assert sorted(sink.ids) == sorted(ids_of(rows))
    assert not stream.send_news()


def test_of_two_processes_one_sends_and_the_other_takes_over(services: Services, caller: Caller, rows: Rows) -> None:
    first, second = Kept(), Kept()
    one, two = (AuditStream(services.installation.database, sink) for sink in (first, second))
    assert one.send_news() > 0
    ping(services, caller)
    assert two.send_news() == 0
    one._places.release()
    assert two.send_news() == 1
    assert sorted(first.ids + second.ids) == sorted(ids_of(rows))


def test_the_stream_reads_as_the_application_role_does(services: Services, caller: Caller) -> None:
    """A stream has no way around row-level security: each tenant's rows are read in that tenant's scope."""
    with services.installation.database.tenant_blind() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM audit").scalar_one() == 0
    scope = Scope.of(service_principal(caller.principal.tenant_id))
    with services.installation.database.transaction(scope) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM audit").scalar_one() > 0
    sink: Sink = Kept()
    assert AuditStream(services.installation.database, sink).send_news() > 0


def certified(folder: Path, host: str) -> ssl.SSLContext:
    """A server's TLS context with a new certificate of its own, which is also written to the folder."""
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "collector")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context
