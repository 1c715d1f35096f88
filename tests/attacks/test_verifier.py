"""What the one who checks the report must notice: another launch, debugging, another's key, an older report.

The processor is the stub's, whose reports have the genuine form; its root is trusted here by name.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import os
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from parma_api.launch import SNP_GUEST_POLICY
from parma_api.snp.bits import PolicyBit
from parma_api.snp.report import parse
from parma_shim.psp.chain import Authority, load_or_create
from parma_shim.psp.leaf import vcek_certificate
from parma_shim.psp.psp import DEFAULT_POLICY, LaunchValues, Processor
from parma_tenant.verify.expectation import Expectation
from parma_tenant.verify.judge import Evidence, verify
from parma_tenant.verify.roots import with_trusted

GOOD = LaunchValues(hashlib.sha384(b"the image").digest(), hashlib.sha256(b"the policy").digest())
NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder: Path = tmp_path_factory.mktemp("authority")
    return load_or_create(folder)


def report_data(key: ec.EllipticCurvePrivateKey) -> bytes:
    """As a workload binds its key."""
    form = PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha512(key.public_key().public_bytes(Encoding.DER, form)).digest()


def failures(
    authority: Authority,
    report: bytes,
    launch: LaunchValues,
    data: bytes,
    trusted: Authority | None = None,
) -> set[str]:
    """Names of the checks that fail for a user who wants GOOD, and this report data."""
    leaf = vcek_certificate(authority, launch.chip_seed, launch.tcb).public_bytes(Encoding.PEM)
    wanted = Expectation(
        measurement=(GOOD.measurement,), host_data=(GOOD.host_data,), report_data=(data,)
    )
    evidence = Evidence(report, (leaf + authority.pem(),))
    found = verify(evidence, NOW, wanted, with_trusted([(trusted or authority).ark]))
    assert (found.verdict == "accept") is (not found.failures)
    return {check.name for check in found.failures}


def launched(authority: Authority, launch: LaunchValues, data: bytes = bytes(64)) -> set[str]:
    """What a user finds who gets the report of a VM that was launched so."""
    report = Processor(authority, launch).report(data, 0)
    return failures(authority, report, launch, data)


def test_the_good_launch_is_accepted(authority: Authority) -> None:
    assert launched(authority, GOOD) == set()


def test_F1_another_image_is_another_measurement(authority: Authority) -> None:
    other = dataclasses.replace(GOOD, measurement=hashlib.sha384(b"another image").digest())
    assert launched(authority, other) == {"value.measurement"}


def test_K6_another_policy_is_another_host_data(authority: Authority) -> None:
    other = dataclasses.replace(GOOD, host_data=hashlib.sha256(b"another policy").digest())
    assert launched(authority, other) == {"value.host_data"}


def test_F8_debugging_is_refused(authority: Authority) -> None:
    debug = dataclasses.replace(GOOD, policy=DEFAULT_POLICY | PolicyBit.DEBUG)
    assert launched(authority, debug) == {"policy.debug"}
    migration = dataclasses.replace(GOOD, policy=DEFAULT_POLICY | PolicyBit.MIGRATE_MA)
    assert "policy.migration" in launched(authority, migration)


def test_F8_the_shim_launches_without_debugging_and_migration() -> None:
    assert not SNP_GUEST_POLICY & (PolicyBit.DEBUG | PolicyBit.MIGRATE_MA)


def test_F8_the_report_cannot_hide_it(authority: Authority) -> None:
    """The bit taken out of a signed report: the signature fails."""
    launch = dataclasses.replace(GOOD, policy=DEFAULT_POLICY | PolicyBit.DEBUG)
    report = bytearray(Processor(authority, launch).report(bytes(64), 0))
    at = bytes(report).index(launch.policy.to_bytes(8, "little"))
    report[at : at + 8] = DEFAULT_POLICY.to_bytes(8, "little")
    assert parse(bytes(report)).policy == DEFAULT_POLICY
    assert "signature" in failures(authority, bytes(report), launch, bytes(64))


def test_F9a_a_key_in_the_middle_is_not_the_bound_one(authority: Authority) -> None:
    group, middle = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    processor = Processor(authority, GOOD)
    report = processor.report(report_data(group), 0)
    assert failures(authority, report, GOOD, report_data(group)) == set()
    assert failures(authority, report, GOOD, report_data(middle)) == {"value.report_data"}


def test_F9a_a_report_from_another_processor(authority: Authority, tmp_path: Path) -> None:
    """The man in the middle may have one made, but not under the trusted root."""
    data = report_data(ec.generate_private_key(ec.SECP256R1()))
    other = load_or_create(tmp_path)
    report = Processor(other, GOOD).report(data, 0)
    assert failures(other, report, GOOD, data) == set()
    assert "chain.root" in failures(other, report, GOOD, data, trusted=authority)


def test_F9b_an_older_report_is_not_over_the_fresh_key(authority: Authority) -> None:
    processor = Processor(authority, GOOD)
    older = processor.report(os.urandom(64), 0)
    fresh = report_data(ec.generate_private_key(ec.SECP256R1()))
    assert failures(authority, older, GOOD, fresh) == {"value.report_data"}


def test_M4a_a_changed_message_is_not_under_the_attested_key(authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    report = Processor(authority, GOOD).report(report_data(key), 0)
    assert failures(authority, report, GOOD, report_data(key)) == set()
    message = bytearray(b"an answer of the workload")
    signature = key.sign(bytes(message), ec.ECDSA(hashes.SHA256()))
    message[3] ^= 1
    with pytest.raises(InvalidSignature):
        key.public_key().verify(signature, bytes(message), ec.ECDSA(hashes.SHA256()))
