"""Signatures: what a trusted key says counts, what is wrong in its name never does."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.audit.signing import Signer, TrustedKeys, key_id, open_private_key, public_pem, read_public_keys
from service.errors import ConfigurationError

pytestmark = pytest.mark.unit


def test_a_signature_counts_for_its_body_and_its_key_only() -> None:
    signer = Signer(Ed25519PrivateKey.generate())
    trusted = TrustedKeys(signer.public_keys())
    signatures = signer.sign(b"body")
    assert trusted.accept(b"body", signatures)
    assert not trusted.accept(b"bodY", signatures)
    assert not trusted.accept(b"body", {})
    assert not TrustedKeys([Ed25519PrivateKey.generate().public_key()]).accept(b"body", signatures)
    (name,) = signatures
    for wrong in ("", "AAAA", "not base64!", signatures[name][:-4] + "AAA="):
        assert not trusted.accept(b"body", {name: wrong})


def test_a_wrong_signature_of_one_trusted_key_spoils_a_right_one_of_another() -> None:
    old, new = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    both = Signer(new, old)
    signatures = both.sign(b"body")
    assert len(signatures) == 2
    assert TrustedKeys([old.public_key()]).accept(b"body", signatures)
    assert TrustedKeys([new.public_key()]).accept(b"body", signatures)
    signatures[key_id(old.public_key())] = signatures[key_id(new.public_key())]
    assert not TrustedKeys(both.public_keys()).accept(b"body", signatures)


def test_a_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "audit-signing.pem"
    made = open_private_key(path, make=True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert open_private_key(path, make=True).private_bytes_raw() == made.private_bytes_raw()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_several_public_keys_may_stand_in_one_file(tmp_path: Path) -> None:
    keys = [Ed25519PrivateKey.generate().public_key() for _ in range(3)]
    path = tmp_path / "keys.pem"
    path.write_text("# retired\n" + "\n".join(map(public_pem, keys)))
    assert list(map(key_id, read_public_keys(path))) == list(map(key_id, keys))
    path.write_text("nothing")
    with pytest.raises(ConfigurationError, match="holds no public key"):
        read_public_keys(path)
