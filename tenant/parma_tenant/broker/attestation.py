"""The attestation service: evidence in, claims under MAA's names out."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from parma_api.snp.bits import PolicyBit
from parma_api.snp.report import SIZE, Report, parse
from parma_api.status import InvalidArgumentError, PermissionDeniedError
from parma_tenant.broker.collateral import Gathered
from parma_tenant.broker.evidence import Submission
from parma_tenant.broker.freshness import Challenges
from parma_tenant.claims.encoding import from_b64url
from parma_tenant.claims.evidence import RefusedError, describe
from parma_tenant.claims.runtime import report_data_of
from parma_tenant.verify.checks import Verdict, Verification
from parma_tenant.verify.expectation import Expectation
from parma_tenant.verify.judge import Evidence, verify
from parma_tenant.verify.roots import Roots

STUB_CLAIM: Final = "x-parma-stub"
FRESH_CLAIM: Final = "x-parma-fresh"
COMPLIANT: Final = "azure-compliant-uvm"
_ZEROS: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator demands of every report, and whose roots count."""

    expectation: Expectation
    roots: Roots


@dataclass(frozen=True, slots=True)
class AttestationService:
    """Judges submissions. `clock`: the broker's own time."""

    rules: Rules
    challenges: Challenges
    clock: Callable[[], float]

    def claims(self, submission: Submission, gathered: Gathered) -> dict[str, Any]:
        """What the evidence proves. Raises RefusedError, InvalidArgumentError."""
        if len(submission.report) != SIZE:
            raise RefusedError(f"refused: report.length: a report has {SIZE} bytes")
        report = parse(submission.report)
        self._check_init(submission, report)
        # The second half is free: groups put their transcript's head there.
        bound = report_data_of(submission.runtime.data, report.report_data[32:])
        verification = verify(
            Evidence(submission.report, gathered.certificates, gathered.crls),
            datetime.datetime.fromtimestamp(self.clock(), datetime.UTC),
            replace(self.rules.expectation, report_data=(bound,)),
            self.rules.roots,
        )
        if verification.verdict is not Verdict.ACCEPT:
            raise RefusedError(describe(verification), verification)
        return {
            **_report_claims(report, verification),
            **self._ours(submission, report, verification),
            **_data_claims(submission),
        }

    def _check_init(self, submission: Submission, report: Report) -> None:
        init = submission.init
        if init is not None and hashlib.sha256(init.data).digest() != report.host_data:
            raise PermissionDeniedError(
                "refused: initTimeData is not what host_data is the digest of"
            )

    def _ours(
        self, submission: Submission, report: Report, verification: Verification
    ) -> dict[str, Any]:
        found: dict[str, Any] = {
            STUB_CLAIM: bool(verification.claims["stub"]),
            FRESH_CLAIM: self._is_fresh(submission.runtime.document),
        }
        if self.rules.expectation.measurement is not None:
            found["x-ms-compliance-status"] = COMPLIANT
        if report.report_data[32:] != _ZEROS:
            found["x-parma-transcript-head"] = report.report_data[32:].hex()
        return found

    def _is_fresh(self, runtime: Mapping[str, Any] | None) -> bool:
        try:
            nonce = from_b64url((runtime or {}).get("nonce"), "nonce")
        except InvalidArgumentError:
            return False
        return self.challenges.is_fresh(nonce)


def _data_claims(submission: Submission) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if submission.runtime.document is not None:
        found["x-ms-runtime"] = submission.runtime.document
    if submission.init is not None and submission.init.document is not None:
        found["x-ms-inittime"] = submission.init.document
    if submission.nonce is not None:
        found["nonce"] = submission.nonce
    return found


def _report_claims(report: Report, verification: Verification) -> dict[str, Any]:
    """MAA's names; svn numbers are those of the reported TCB."""
    tcb = verification.claims["reported_tcb"]
    assert isinstance(tcb, dict)
    values: dict[str, Any] = {
        "authorkeydigest": report.author_key_digest.hex(),
        "bootloader-svn": tcb["bootloader"],
        "familyId": report.family_id.hex(),
        "guestsvn": report.guest_svn,
        "hostdata": report.host_data.hex(),
        "idkeydigest": report.id_key_digest.hex(),
        "imageId": report.image_id.hex(),
        "is-debuggable": bool(report.policy & PolicyBit.DEBUG),
        "launchmeasurement": report.measurement.hex(),
        "microcode-svn": tcb["microcode"],
        "migration-allowed": bool(report.policy & PolicyBit.MIGRATE_MA),
        "reportdata": report.report_data.hex(),
        "reportid": report.report_id.hex(),
        "smt-allowed": bool(report.policy & PolicyBit.SMT),
        "snpfw-svn": tcb["snp"],
        "tee-svn": tcb["tee"],
        "vmpl": report.vmpl,
    }
    named = {f"x-ms-sevsnpvm-{name}": value for name, value in values.items()}
    return {"x-ms-attestation-type": "sevsnpvm", "x-ms-ver": "1.0", **named}
