"""A genuine report of a Milan processor and its runtime data through the attestation service, with AMD's root alone."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from parma_api.status import ApiError
from parma_tenant.broker.attestation import AttestationService, Rules
from parma_tenant.broker.collateral import Gathered
from parma_tenant.broker.evidence import read_submission
from parma_tenant.broker.freshness import Challenges
from parma_tenant.claims.encoding import canonical_json
from parma_tenant.claims.evidence import RefusedError
from parma_tenant.sidecar.skr.attestation import submission
from parma_tenant.sidecar.skr.evidence import Evidence
from parma_tenant.verify.expectation import expectation_of
from parma_tenant.verify.roots import AMD_ROOTS

THEN = datetime.datetime(2023, 6, 1, tzinfo=datetime.UTC).timestamp()


@pytest.fixture
def vector(repository: Path) -> Path:
    return repository / "tests/vectors/snp/milan-v2"


def service(**expected: object) -> AttestationService:
    rules = Rules(expectation_of(expected), AMD_ROOTS)
    return AttestationService(rules, Challenges(b"s" * 32, lambda: THEN), lambda: THEN)


def test_a_genuine_report_gets_its_claims(vector: Path) -> None:
    """In the body that the sidecar writes, with the endorsement that came with the report."""
    evidence = Evidence((vector / "report.bin").read_bytes(), (vector / "chain.pem").read_bytes())
    runtime = (vector / "runtime-data.json").read_bytes()
    body = submission(evidence, runtime, (vector / "uvm-endorsement.cose").read_bytes())
    policy = (vector / "policy.rego").read_bytes()
    body["initTimeData"] = {"data": base64.urlsafe_b64encode(policy).decode(), "dataType": "Binary"}
    found = read_submission(canonical_json(body))
    claims = service().claims(found, Gathered((found.certificates,)))
    assert claims["x-ms-sevsnpvm-hostdata"] == hashlib.sha256(policy).hexdigest()
    assert claims["x-ms-runtime"] == {"akey": "avalue"}
    assert claims["x-parma-stub"] is False
    assert claims["x-ms-sevsnpvm-microcode-svn"] == 0x73
    assert claims["x-ms-sevsnpvm-guestsvn"] == 2
    assert "x-ms-compliance-status" not in claims
    measured = claims["x-ms-sevsnpvm-launchmeasurement"]
    named = service(measurement=measured).claims(found, Gathered((found.certificates,)))
    assert named["x-ms-compliance-status"] == "azure-compliant-uvm"
    with pytest.raises(RefusedError, match=r"value\.measurement"):
        service(measurement="00" * 48).claims(found, Gathered((found.certificates,)))
    with pytest.raises(RefusedError, match=r"chain\.crl"):
        service(require_crl=True).claims(found, Gathered((found.certificates,)))


def body_of(vector: Path) -> bytes:
    evidence = Evidence((vector / "report.bin").read_bytes(), (vector / "chain.pem").read_bytes())
    runtime = (vector / "runtime-data.json").read_bytes()
    return canonical_json(submission(evidence, runtime, b"") | {"nonce": 7})


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=strategies.data())
def test_a_changed_submission_is_refused_or_means_the_same(
    vector: Path, data: strategies.DataObject
) -> None:
    """Cut, a byte changed, a piece repeated: an error of ours, or the very claims of the genuine one."""
    body = body_of(vector)
    at = data.draw(strategies.integers(0, len(body) - 1), "at")
    change = data.draw(strategies.sampled_from(("cut", "flip", "repeat")), "change")
    other = bytes([body[at] ^ data.draw(strategies.integers(1, 255), "with")])
    changed = {
        "cut": body[:at],
        "flip": body[:at] + other + body[at + 1 :],
        "repeat": body[:at] + body[at : at + 40] * 2 + body[at + 40 :],
    }[change]
    genuine = read_submission(body)
    wanted = service().claims(genuine, Gathered((genuine.certificates,)))
    with contextlib.suppress(ApiError):
        found = read_submission(changed)
        claims = service().claims(found, Gathered((found.certificates,)))
        assert claims | {"nonce": 7} == wanted
