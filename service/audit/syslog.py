"""The trail as syslog messages (RFC 5424) over TLS, TCP or UDP, each batch on a connection of its own.

A batch counts as delivered once the receiver has closed its side after the end of ours: it has read everything then.
Writing to a socket that stays open would only tell that the kernel has the bytes.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

from service.audit.entries import Entry, document
from service.audit.events import Outcome
from service.errors import ConfigurationError

_VERSION: Final = 1
_WARNING, _NOTICE, _INFO = 4, 5, 6
_SEVERITY: Final = {Outcome.REFUSED: _WARNING, Outcome.FAILED: _WARNING, Outcome.NOT_FOUND: _NOTICE}
_TIMEOUT: Final = 10.0
#: The most that one datagram holds.
_DATAGRAM_BYTES: Final = 65_000
_IDS: Final = ("subject_ids", "target_ids", "result_ids")


class SinkUnavailable(Exception):
    """What was sent may not have arrived; it is to be sent again."""


class Syslog:
    """Sends entries to a collector, the JSON of each as the message of a syslog line."""

    name = "syslog"

    def __init__(
        self,
        address: str,
        port: int,
        *,
        protocol: Literal["tls", "tcp", "udp"] = "tcp",
        facility: int = 13,
        ca_file: Path | None = None,
    ) -> None:
        """Name the collector; nothing is sent yet.

        Raises:
            ConfigurationError: when the file of the authority cannot be read.
        """
        self._address, self._port = address, port
        self._protocol, self._facility = protocol, facility
        self._host = printable(socket.gethostname(), 255)
        self._tls: ssl.SSLContext | None = None
        if protocol == "tls":
            try:
                self._tls = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
            except (OSError, ssl.SSLError):
                raise ConfigurationError(f"audit.syslog.ca_file {ca_file}: is not a readable PEM file") from None

    def send(self, entries: Sequence[Entry]) -> None:
        """Send a batch and return once it has arrived; over UDP once it has left.

        Raises:
            SinkUnavailable: when it may not have.
        """
        try:
            if self._protocol == "udp":
                self._send_datagrams(entries)
            else:
                self._send_stream(b"".join(counted(self.line(entry)) for entry in entries))
        except (OSError, ssl.SSLError) as error:
            raise SinkUnavailable(f"{self._address}:{self._port} {type(error).__name__}") from None

    def line(self, entry: Entry, *, most: int | None = None) -> bytes:
        """Return an entry as one syslog message.

        One of more than `most` bytes counts its ids instead of listing them, goes without its detail where that is not
        enough, and names in `shortened` what it has not in full.
        """
        severity = _SEVERITY.get(Outcome(entry.outcome), _INFO)
        stamp, event = entry.at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), printable(entry.event, 32)
        head = f"<{self._facility * 8 + severity}>{_VERSION} {stamp} {self._host} memvault - {event} -"
        body: dict[str, Any] = document(entry)
        counts = {name: len(body[name]) for name in _IDS}
        line = _message(head, body)
        for less in ({**counts, "value_mac": None}, {"detail": None}):
            if most is None or len(line) <= most:
                break
            body |= {**less, "shortened": [*body.get("shortened", []), *less]}
            line = _message(head, body)
        return line

    def _send_datagrams(self, entries: Sequence[Entry]) -> None:
        family, kind, number, _, place = socket.getaddrinfo(self._address, self._port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, number) as datagrams:
            datagrams.settimeout(_TIMEOUT)
            # Connected, so that a port where nobody listens is told by the next send.
            datagrams.connect(place)
            for entry in entries:
                datagrams.send(self.line(entry, most=_DATAGRAM_BYTES))

    def _send_stream(self, data: bytes) -> None:
        with socket.create_connection((self._address, self._port), timeout=_TIMEOUT) as plain:
            if self._tls is None:
                plain.sendall(data)
                plain.shutdown(socket.SHUT_WR)
                _await_end(plain)
                return
            with self._tls.wrap_socket(plain, server_hostname=self._address) as secured:
                secured.sendall(data)
                # Many receivers end the connection without the closing message of TLS.
                with suppress(ssl.SSLEOFError, ssl.SSLZeroReturnError):
                    secured.unwrap()


def counted(message: bytes) -> bytes:
    """Return a message in octet-counting framing (RFC 6587, 3.4.1)."""
    return b"%d %s" % (len(message), message)


def printable(name: str, most: int) -> str:
    """Return a header field: printable ASCII without spaces, `-` when nothing is left."""
    return "".join(character for character in name if "!" <= character <= "~")[:most] or "-"


def _message(head: str, body: dict[str, Any]) -> bytes:
    # ASCII, so that the message is the same whatever encoding a collector takes it for.
    return f"{head} {json.dumps(body, separators=(',', ':'), ensure_ascii=True)}".encode("ascii")


def _await_end(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass
