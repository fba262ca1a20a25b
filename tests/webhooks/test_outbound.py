"""The one client that notifies: nothing but a listed host at an address that was checked, attacked."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from service.errors import ConfigurationError, InvalidInput
from service.webhooks.outbound import Outbound, Refused, Rules, is_public, target_of
from tests.webhooks.receiver import Receiver, receiving

pytestmark = pytest.mark.integration

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver without TLS."""
    with receiving() as one:
        yield one


class Names:
    """A resolver that answers what a test says, another answer each time where there are several."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def outbound(
    *hosts: str, names: Names | None = None, networks: tuple[object, ...] = LOOPBACK, **more: object
) -> Outbound:
    """A client with rules of its own."""
    rules = Rules(frozenset(hosts), networks, **more)  # type: ignore[arg-type]
    return Outbound(rules) if names is None else Outbound(rules, resolver=names)


def refused(client: Outbound, url: str) -> str:
    """The code with which a request is refused."""
    with pytest.raises(Refused) as told:
        client.post(url, b"{}", {})
    return told.value.code


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3", "172.16.0.1", "192.168.1.1", "127.0.0.1", "127.8.8.8", "0.0.0.0", "169.254.169.254", "100.64.0.1",
        "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
        "::", "::1", "fe80::1", "fd00:ec2::254", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::1",
        "2001:0:7f00:1::1", "2001:db8::1", "fec0::1",
    ],
)  # fmt: skip
def test_no_address_inside_is_reached_through_a_name(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    for url in ("https://hook.example/", "http://hook.example/"):
        client = outbound("hook.example", names=Names([address]), networks=())
        assert refused(client, url) == "address_not_allowed"
        mixed = outbound("hook.example", names=Names(["93.184.215.14", address]), networks=())
        assert refused(mixed, url) == "address_not_allowed", "one good address does not excuse a bad one"


def test_looking_up_a_name_is_part_of_the_time() -> None:
    asked, over = threading.Event(), threading.Event()

    def silent(host: str, port: int) -> Sequence[str]:
        asked.set()
        over.wait(60)
        return ["93.184.215.14"]

    client = Outbound(Rules(frozenset({"hook.example"}), timeout=0.2), resolver=silent)
    try:
        assert refused(client, "https://hook.example/") == "timeout"
        assert asked.is_set()
    finally:
        over.set()


def test_a_file_of_authorities_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "not.pem").write_text("no certificate")
    for name in ("none.pem", "not.pem"):
        with pytest.raises(ConfigurationError, match=r"webhooks\.ca_file .*: is not a readable PEM file"):
            outbound("hook.example", ca_file=tmp_path / name)


def test_an_address_on_the_public_network_is_public() -> None:
    for address in ("93.184.215.14", "2606:4700::1111", "::ffff:93.184.215.14"):
        assert is_public(ipaddress.ip_address(address))
    # A public address is not called without TLS; nothing leaves this machine here.
    assert (
        refused(outbound("hook.example", names=Names(["93.184.215.14"]), networks=()), "http://hook.example/")
        == "not_encrypted"
    )


@pytest.mark.parametrize(
    "host",
    [
        "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.0.1", "[::1]", "[::ffff:7f00:1]", "localhost",
        "LOCALHOST.", "evil.example", "hook.example.evil.example", "evil-hook.example", "hook.example%2eevil.example",
        "xn--hook.example",
    ],
)  # fmt: skip
def test_a_host_that_is_not_listed_is_not_even_looked_up(host: str) -> None:
    names = Names(["127.0.0.1"])
    assert refused(outbound("hook.example", names=names), f"https://{host}/") == "host_not_allowed"
    assert names.asked == 0


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1"])
def test_a_number_that_is_listed_by_mistake_is_still_an_address_inside(host: str) -> None:
    assert refused(outbound(host, networks=()), f"https://{host}/") in ("address_not_allowed", "no_address")


@pytest.mark.parametrize(
    "url",
    [
        "https://user@hook.example/", "https://user:secret@hook.example/", "https://hook.example@evil.example/",
        "https://evil.example#@hook.example/", "https://evil.example\\@hook.example/", "https://hook.example:0/",
        "https://hook.example:99999/", "https://hook.example:8443/", "ftp://hook.example/", "file:///etc/passwd",
        "gopher://hook.example/", "//hook.example/", "hook.example", "https://", "https:///x", "https://hook.example/#a",
        "https://hook.example/\r\nX: y", "https://hook.example/ x", "https://hook.ex\u0430mple/", "https://hook.example/\x00",
        "https://[hook.example/", "https://hook.example/" + "a" * 2000, "",
    ],
)  # fmt: skip
def test_an_odd_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"^url: ") as told:
        target_of(url, {"hook.example"})
    assert "secret" not in told.value.detail
    names = Names(["127.0.0.1"])
    assert refused(outbound("hook.example", names=names), url) == "host_not_allowed"
    assert names.asked == 0


def test_a_listed_host_is_called_at_the_port_that_is_listed() -> None:
    assert target_of("https://Hook.Example./a?b=c", {"hook.example"}).path == "/a?b=c"
    assert target_of("https://hook.example:443/", {"HOOK.example"}).port == 443
    assert target_of("https://hook.example:8443", {"hook.example:8443"}).authority == "hook.example:8443"
    assert target_of("https://[2606:4700::1111]/", {"[2606:4700::1111]"}).authority == "[2606:4700::1111]"
    for url in ("https://hook.example/", "http://hook.example/"):
        with pytest.raises(InvalidInput, match="allowed_hosts"):
            target_of(url, {"hook.example:8443"})


def test_nothing_is_sent_where_no_host_is_listed(receiver: Receiver) -> None:
    assert refused(outbound(), receiver.url) == "host_not_allowed"
    assert not receiver.got


def test_a_name_that_changes_its_address_changes_nothing(receiver: Receiver) -> None:
    """DNS rebinding: the first answer is checked and used, and nobody asks again."""
    names = Names(["127.0.0.1"], ["10.0.0.1"])
    client = outbound(f"hook.example:{receiver.port}", names=names)
    assert client.post(f"http://hook.example:{receiver.port}/x", b"{}", {"A": "b"}) == 200
    assert names.asked == 1
    assert receiver.got[0].headers["host"] == f"hook.example:{receiver.port}"
    assert refused(client, f"http://hook.example:{receiver.port}/x") == "address_not_allowed"
    assert len(receiver.got) == 1
    back = outbound(f"hook.example:{receiver.port}", names=Names(["93.184.215.14"], ["127.0.0.1"]), networks=())
    assert refused(back, f"http://hook.example:{receiver.port}/x") == "not_encrypted"


def test_a_name_without_an_address_is_told() -> None:
    assert refused(outbound("hook.example", names=Names([])), "https://hook.example/") == "no_address"
    assert refused(outbound("hook.example", names=Names(["nonsense"])), "https://hook.example/") == "no_address"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(receiver: Receiver, status: int) -> None:
    with receiving() as inside:
        receiver.statuses, receiver.headers = [status], {"Location": inside.url}
        client = outbound(receiver.host, inside.host)
        assert client.post(receiver.url, b"{}", {}) == status
        assert not inside.got


def test_a_proxy_of_the_environment_is_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://{proxy.host}")
        assert outbound(receiver.host).post(receiver.url, b"{}", {}) == 200
        assert not proxy.got


def test_a_receiver_that_dribbles_or_says_nothing_ends_in_time(receiver: Receiver) -> None:
    def dribble() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nX-Long: "
        for _ in range(1200):
            time.sleep(0.05)
            yield b"a"

    receiver.raw = dribble()
    began = time.monotonic()
    assert refused(outbound(receiver.host, timeout=1.0), receiver.url) == "timeout"
    # The dribble alone would take a minute.
    assert time.monotonic() - began < 30


def test_what_is_no_answer_is_told(receiver: Receiver) -> None:
    receiver.raw = iter([b"nonsense\r\n\r\n"])
    assert refused(outbound(receiver.host), receiver.url) == "no_answer"
    receiver.raw = iter([b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 300_000])
    assert refused(outbound(receiver.host), receiver.url) == "no_answer"
    receiver.raw = iter([b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"z" * 100_000])
    assert outbound(receiver.host).post(receiver.url, b"{}", {}) == 200, "the body is not read"
    with receiving() as gone:
        url, host = gone.url, gone.host
    assert refused(outbound(host), url) == "unreachable"


def test_the_certificate_must_be_of_the_host(tmp_path: Path) -> None:
    certificate, key = _certificate(tmp_path, "hook.example")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    with receiving(tls=server) as receiver:
        names = Names(["127.0.0.1"])
        host, other = f"hook.example:{receiver.port}", f"other.example:{receiver.port}"
        trusting = outbound(host, other, names=names, ca_file=certificate)
        assert trusting.post(f"https://{host}/", b"{}", {}) == 200
        assert refused(trusting, f"https://{other}/") == "tls_failed"
        assert refused(outbound(host, names=names), f"https://{host}/") == "tls_failed"
        assert len(receiver.got) == 1


def _certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """A certificate for a host that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(*pem))
    return certificate, private
