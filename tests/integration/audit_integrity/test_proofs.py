"""A proof of one row is checked by the lines in the documentation, and by nothing of the service."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from service import clock
from service.audit.proofs import Proofs
from service.audit.signing import public_pem
from service.errors import Conflict, NotFound
from tests.integration.audit_integrity.conftest import House

pytestmark = pytest.mark.integration

DOCS = Path(__file__).parents[3] / "docs" / "audit-integrity.md"


@pytest.fixture
def proofs(house: House) -> Proofs:
    return Proofs(house.installation.database, house.sealing.ledger)


@pytest.fixture
def check(house: House, tmp_path: Path) -> object:
    """Run the documentation's lines on a proof; return their exit code and output."""
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    (script,) = [block for block in blocks if "proof" in block]
    (tmp_path / "check.py").write_text(script)
    (tmp_path / "key.pem").write_text(public_pem(house.sealing.signer.public_keys()[0]))

    def run(proof: object) -> tuple[int, str]:
        (tmp_path / "proof.json").write_text(json.dumps(proof))
        done = subprocess.run(
            [sys.executable, "check.py", "proof.json", "key.pem"], cwd=tmp_path, capture_output=True, text=True
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_every_row_has_a_proof_that_the_documented_lines_accept(house: House, proofs: Proofs, check) -> None:  # type: ignore[no-untyped-def]
    for tenant_id in house.tenants[:2]:
        for position, line in list(enumerate(house.lines(tenant_id)))[::4]:
            proof = proofs.prove(tenant_id, UUID(json.loads(line)["id"]))
            assert proof["position"] == position
            code, said = check(proof)
            assert code == 0, said
            assert f"row {position} of tenant {tenant_id}" in said


def test_a_proof_that_was_changed_is_refused(house: House, proofs: Proofs, check) -> None:  # type: ignore[no-untyped-def]
    tenant_id = house.tenants[0]
    line = house.lines(tenant_id)[-1]
    proof = proofs.prove(tenant_id, UUID(json.loads(line)["id"]))
    assert check(proof)[0] == 0
    for name, value in {
        "row": proof["row"].replace("done", "dune").replace("refused", "refuse") + " ",
        "position": proof["position"] - 1,
        "size": proof["size"] + 1,
        "path": proof["path"][:-1],
        "tenant_id": str(house.tenants[1]),
        "ordinal": proof["ordinal"] + 1,
        "tenants_path": [*proof["tenants_path"], proof["path"][0]],
        "checkpoint": proof["checkpoint"].replace('"number":', '"number": '),
    }.items():
        assert check({**proof, name: value})[0] != 0, name


def test_what_cannot_be_proved_is_said(house: House, proofs: Proofs) -> None:
    tenant_id = house.tenants[0]
    with pytest.raises(NotFound):
        proofs.prove(tenant_id, clock.new_id())
    row = UUID(json.loads(house.lines(tenant_id)[0])["id"])
    with pytest.raises(NotFound):
        proofs.prove(house.tenants[1], row)
    house.write(tenant_id)
    fresh = UUID(json.loads(house.lines(tenant_id)[-1])["id"])
    with pytest.raises(Conflict, match="not sealed yet"):
        proofs.prove(tenant_id, fresh)
    house.superuser(f"UPDATE audit SET outcome = 'x' WHERE id = '{row}'")
    with pytest.raises(Conflict, match="audit verify"):
        proofs.prove(tenant_id, row)
