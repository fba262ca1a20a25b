"""Certificates for the tests' Qdrant, by an authority of their own."""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.qdrant.serving import Tls

_PEM = serialization.Encoding.PEM


def made_in(folder: Path) -> Tls:
    """Make an authority and a certificate by it for this machine."""
    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"authority of {folder.name}")])
    about = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    signed = (
        _begun(name, authority)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA256())
    )
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    certificate = (
        _begun(about, server)
        .issuer_name(name)
        .add_extension(address, critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority, hashes.SHA256())
    )
    tls = Tls(folder / "key.pem", folder / "certificate.pem", folder / "authority.pem")
    tls.key.write_bytes(server.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    tls.certificate.write_bytes(certificate.public_bytes(_PEM))
    tls.authority.write_bytes(signed.public_bytes(_PEM))
    return tls


def _begun(name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )
