"""The whole judgement: evidence and expectations in, checks by name out. Pure: nothing is fetched, no clock read."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509

from parma_api.snp.bits import SigningKey, key_info
from parma_api.snp.report import Report, parse
from parma_tenant.verify.binding import Device, check_signature, device_checks, device_of
from parma_tenant.verify.chain import check_chain, root_of
from parma_tenant.verify.checks import Check, Result, Verification, complete, failed, skipped
from parma_tenant.verify.claims import claims_of
from parma_tenant.verify.crl import check_crl
from parma_tenant.verify.expectation import Expectation
from parma_tenant.verify.fields import check_fields
from parma_tenant.verify.intake import Certificates, IntakeError, read_crl, read_sources
from parma_tenant.verify.leaf import Leaf, LeafError, read_leaf
from parma_tenant.verify.levels import check_levels
from parma_tenant.verify.path import Path, PathError, find_path
from parma_tenant.verify.roots import AMD_ROOTS, Root, Roots
from parma_tenant.verify.structure import check_length, check_structure


@dataclass(frozen=True, slots=True)
class Evidence:
    """A report and what was sent with it, as bytes: `certificates` and `crls` one source each."""

    report: bytes
    certificates: tuple[bytes, ...]
    crls: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class _Chain:
    """What became of the certificates."""

    checks: tuple[Check, ...]
    path: Path | None = None
    root: Root | None = None
    leaf: Leaf | str = "the leaf was not read"


_NO_EXPECTATION = Expectation()


def verify(
    evidence: Evidence,
    at: datetime.datetime,
    expectation: Expectation = _NO_EXPECTATION,
    roots: Roots = AMD_ROOTS,
) -> Verification:
    """Every check on the evidence at the time `at`, which must be aware of its zone. Raises ValueError for a naive one.

    Whatever the bytes are, the result is a verification; nothing else is raised.
    """
    if at.tzinfo is None:
        raise ValueError("the time of verification needs a zone")
    length = check_length(evidence.report)
    if length.result is Result.FAIL:
        return Verification(complete({length.name: length}, "not made: the report is not whole"))
    report = parse(evidence.report)
    signer = key_info(report.key_info).signing_key
    kind = SigningKey.VLEK if signer == SigningKey.VLEK else SigningKey.VCEK
    chain = _judge_chain(evidence, kind, at, expectation, roots)
    device = device_of(report, chain.leaf)
    checks = [
        length,
        *check_structure(evidence.report, report, expectation.version_min),
        *chain.checks,
        *_judge_binding(evidence.report, report, chain, expectation),
        *check_fields(report, expectation),
        *check_levels(report, device, expectation),
    ]
    made = {check.name: check for check in checks}
    line = device.line if isinstance(device, Device) else None
    return Verification(complete(made, "not made"), claims_of(report, chain.leaf, line, chain.root))


def _judge_chain(
    evidence: Evidence,
    signer: SigningKey,
    at: datetime.datetime,
    expectation: Expectation,
    roots: Roots,
) -> _Chain:
    try:
        certificates = read_sources(evidence.certificates)
        path = find_path(certificates, signer)
    except (IntakeError, PathError) as error:
        reason = error.message if isinstance(error, IntakeError) else str(error)
        return _Chain((failed("chain.complete", reason), *_without_path(reason)))
    checks = [
        Check("chain.complete", Result.PASS),
        *check_chain(path, signer, roots, at, allow_vlek=expectation.allow_vlek),
        _judge_crl(evidence.crls, certificates, path, at, required=expectation.require_crl),
    ]
    return _Chain(tuple(checks), path, root_of(path, roots), _leaf(path.leaf.certificate))


def _without_path(reason: str) -> Iterable[Check]:
    names = ("signer", "root", "signature", "names", "validity", "key", "crl")
    return [skipped(f"chain.{name}", f"not made: {reason}") for name in names]


def _judge_crl(
    given: Sequence[bytes],
    certificates: Certificates,
    path: Path,
    at: datetime.datetime,
    *,
    required: bool,
) -> Check:
    """The lists that the verifier gave, else those that came with the certificates."""
    try:
        crls: Sequence[x509.CertificateRevocationList] = [read_crl(data) for data in given]
    except IntakeError as error:
        return failed("chain.crl", error.message)
    return check_crl(path, crls or certificates.crls, at, required=required)


def _leaf(certificate: x509.Certificate) -> Leaf | str:
    try:
        return read_leaf(certificate)
    except LeafError as error:
        return error.message


def _judge_binding(
    data: bytes, report: Report, chain: _Chain, expectation: Expectation
) -> Iterable[Check]:
    if chain.path is None:
        names = ("signature", "binding.tcb", "binding.chip_id", "binding.product")
        return [skipped(name, "not made: there is no certificate chain") for name in names]
    signature = check_signature(data, report, chain.path.leaf.certificate)
    return [
        signature,
        *device_checks(report, chain.leaf, expectation, chain.path, chain.root),
    ]
