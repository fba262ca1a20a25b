"""The one client by which a notification leaves: listed hosts only, at an address that was checked, and nowhere else.

A name is resolved once, every address that it has is checked, and the connection goes to the one that was checked: a
name that changes its address meanwhile changes nothing. TLS still asks for the name. There are no redirects, no proxy
from the environment, no cookies and no connection that is used again. What the receiver says is thrown away but for the
status.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpcore2

from service import clock
from service.errors import ConfigurationError, InvalidInput

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
#: From a host name and a port to the addresses that it has now.
Resolver = Callable[[str, int], Sequence[str]]

_PORTS: Final = {"https": 443, "http": 80}
_URL_CHARS: Final = 2000
_FORBIDDEN: Final = frozenset(' \\"<>^`{|}')
#: Public by the registries, and yet doors to the machine that one runs on or to another network's inside.
_NEVER_PUBLIC: Final[tuple[Network, ...]] = (
    ipaddress.ip_network("168.63.129.16/32"),  # the host agent of a large cloud
    ipaddress.ip_network("192.0.0.0/24"),  # the metadata of another
    ipaddress.ip_network("64:ff9b::/96"),  # IPv4 behind a translator
    ipaddress.ip_network("64:ff9b:1::/48"),
    ipaddress.ip_network("2002::/16"),  # IPv4 in a tunnel
    ipaddress.ip_network("2001::/32"),
)


class Refused(Exception):
    """The request was not sent; `code` says why, without a name or an address."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads: scheme, host and port as a connection needs them, and the path with its query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The value of the header `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the installation allows. `hosts` empty: nothing at all."""

    hosts: frozenset[str]
    networks: tuple[Network, ...] = ()
    timeout: float = 10.0
    ca_file: Path | None = None


def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host, as the system knows them."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def target_of(url: str, hosts: Iterable[str], *, where: str = "url") -> Target:
    """Return where a URL leads, if its host may be called.

    Raises:
        InvalidInput: saying what a URL must be; the URL is not repeated.
    """
    if len(url) > _URL_CHARS or not url.isascii() or not _FORBIDDEN.isdisjoint(url) or not url.isprintable():
        raise InvalidInput(f"{where}: must be a URL of at most {_URL_CHARS} ASCII characters, without spaces or quotes")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise InvalidInput(f"{where}: is not a valid URL") from None
    if parts.scheme not in _PORTS or not host or port == 0:
        raise InvalidInput(f"{where}: must be https:// (http:// only inside webhooks.allowed_networks) with a host")
    if "@" in parts.netloc or parts.fragment:
        raise InvalidInput(f"{where}: must hold no user name, password or fragment")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    target = Target(parts.scheme, host, port or _PORTS[parts.scheme], path)
    # A host that is listed without a port may be called at the port of its scheme alone.
    listed = {one.lower() for one in hosts}
    named = f"[{host}]" if ":" in host else host
    if f"{named}:{target.port}" not in listed and not (target.port == _PORTS[target.scheme] and named in listed):
        raise InvalidInput(f"{where}: the host (and port) is not in the setting webhooks.allowed_hosts")
    return target


class Outbound:
    """Sends requests and tells the status of the answer of each.

    Raises:
        ConfigurationError: when the file of the rules cannot be read.
    """

    def __init__(self, rules: Rules, *, resolver: Resolver = resolve) -> None:
        self._rules = rules
        self._resolver = resolver
        self._tls = _context(rules.ca_file) if rules.hosts else None

    @property
    def rules(self) -> Rules:
        """What the installation allows."""
        return self._rules

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Send a body and return the status of the answer, whatever it is; a redirect is not followed.

        Raises:
            Refused: when the URL or its address is not allowed, or there was no answer within the time.
        """
        try:
            target = target_of(url, self._rules.hosts)
        except InvalidInput:
            raise Refused("host_not_allowed") from None
        deadline = clock.monotonic() + self._rules.timeout
        address = self._checked_address(target, deadline)
        sent = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
        request: dict[str, Any] = {
            "method": "POST",
            "url": httpcore2.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path),
            "headers": [(b"Host", target.authority.encode("ascii")), (b"Connection", b"close"), *sent],
            "content": body,
        }
        backend = _Pinned(address, deadline)
        try:
            with (
                httpcore2.ConnectionPool(ssl_context=self._tls, network_backend=backend, retries=0) as pool,
                pool.stream(**request) as answer,
            ):
                # The body is not read: nothing of it is wanted, however long it is.
                return int(answer.status)
        except (httpcore2.TimeoutException, TimeoutError):
            raise Refused("timeout") from None
        except httpcore2.ConnectError as error:
            raise Refused("tls_failed" if _is_tls(error) else "unreachable") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError):
            raise Refused("no_answer") from None

    def _checked_address(self, target: Target, deadline: float) -> str:
        try:
            found = [ipaddress.ip_address(one.partition("%")[0]) for one in self._resolved(target, deadline)]
        except TimeoutError:
            raise Refused("timeout") from None
        except (OSError, UnicodeError, ValueError):
            raise Refused("no_address") from None
        if not found:
            raise Refused("no_address")
        # All of them, not the one that is taken: a name that also leads inside is not to be trusted.
        if not all(self._is_allowed(one) for one in found):
            raise Refused("address_not_allowed")
        if target.scheme == "http" and not all(self._is_listed(one) for one in found):
            raise Refused("not_encrypted")
        return str(found[0])

    def _resolved(self, target: Target, deadline: float) -> Sequence[str]:
        """Return the addresses of a host; TimeoutError when the system, which has no limit for that, takes too long."""
        found: Future[Sequence[str]] = Future()

        def resolve_host() -> None:
            try:
                found.set_result(self._resolver(target.host, target.port))
            except BaseException as error:
                found.set_exception(error)

        threading.Thread(target=resolve_host, name="memvault-resolve", daemon=True).start()
        return found.result(max(0.0, deadline - clock.monotonic()))

    def _is_allowed(self, address: Address) -> bool:
        return self._is_listed(address) or is_public(address)

    def _is_listed(self, address: Address) -> bool:
        inner = _inner(address)
        return any(inner.version == network.version and inner in network for network in self._rules.networks)


def is_public(address: Address) -> bool:
    """Tell whether an address belongs to somebody on the public network and to nobody's inside."""
    inner = _inner(address)
    if any(inner.version == network.version and inner in network for network in _NEVER_PUBLIC):
        return False
    # Of IPv6 the library takes the site-local ones for global.
    if isinstance(inner, ipaddress.IPv6Address) and inner.is_site_local:
        return False
    return inner.is_global and not (inner.is_private or inner.is_multicast or inner.is_reserved)


def _inner(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one only spells otherwise."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError:
        raise ConfigurationError(f"webhooks.ca_file {ca_file}: is not a readable PEM file") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _is_tls(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


class _Pinned(httpcore2.NetworkBackend):
    """Connects to one address, whatever the host is called, and to nothing after the deadline."""

    def __init__(self, address: str, deadline: float) -> None:
        self._address = address
        self._deadline = deadline
        self._backend = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the address."""
        stream = self._backend.connect_tcp(self._address, port, timeout=_left(self._deadline))
        return _Bounded(stream, self._deadline)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.NetworkStream:
        """Refuse."""
        raise httpcore2.ConnectError("no local sockets")


class _Bounded(httpcore2.NetworkStream):
    """A stream of which every step ends by the deadline: a receiver that dribbles does not hold the worker."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read some bytes."""
        return self._stream.read(max_bytes, timeout=_left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all bytes."""
        self._stream.write(buffer, timeout=_left(self._deadline))

    def close(self) -> None:
        """Close."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """Go on encrypted, with whoever proves to be the host."""
        stream = self._stream.start_tls(ssl_context, server_hostname, timeout=_left(self._deadline))
        return _Bounded(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """Tell about the connection."""
        return self._stream.get_extra_info(info)


def _left(deadline: float) -> float:
    left = deadline - clock.monotonic()
    if left <= 0:
        raise httpcore2.ReadTimeout("the time is over")
    return left
