"""Evidence: report, certificates and runtime data together, and its judgement by the one who chose the nonce.

bundle   magic "PARMA-EV", version u32 = 1, then report, certificates, runtime data: each length u32, bytes
         Integers big endian; nothing before, between or behind.
"""

from __future__ import annotations

import datetime
import hmac
import struct
from dataclasses import dataclass, replace
from typing import Final

from parma_api.snp.report import SIZE
from parma_api.status import InvalidArgumentError, PermissionDeniedError
from parma_tenant.claims.runtime import MAX_SIZE as MAX_RUNTIME
from parma_tenant.claims.runtime import RuntimeClaims, parse_claims, report_data_of
from parma_tenant.verify.checks import Verdict, Verification
from parma_tenant.verify.expectation import Expectation
from parma_tenant.verify.judge import Evidence, verify
from parma_tenant.verify.roots import AMD_ROOTS, Roots

MAX_CERTIFICATES: Final = 32 * 1024
_HEAD: Final = struct.Struct(">8sI")
_LENGTH: Final = struct.Struct(">I")
_MAGIC: Final = (b"PARMA-EV", 1)
_LIMITS: Final = (SIZE, MAX_CERTIFICATES, MAX_RUNTIME)
MAX_SIZE: Final = _HEAD.size + len(_LIMITS) * _LENGTH.size + sum(_LIMITS)


class EvidenceError(InvalidArgumentError):
    """The bytes are no bundle."""


class RefusedError(PermissionDeniedError):
    """The evidence was read and does not prove what was demanded."""

    def __init__(self, message: str, verification: Verification | None = None) -> None:
        super().__init__(message)
        self.verification = verification


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a group shows."""

    report: bytes
    certificates: bytes
    runtime: bytes

    def encode(self) -> bytes:
        """The bytes. Raises EvidenceError if a part is too long."""
        data = _HEAD.pack(*_MAGIC)
        for part, limit in zip(
            (self.report, self.certificates, self.runtime), _LIMITS, strict=True
        ):
            if len(part) > limit:
                raise EvidenceError(
                    f"a part of the evidence has {len(part)} bytes, at most {limit} go"
                )
            data += _LENGTH.pack(len(part)) + part
        return data


def decode_bundle(data: bytes) -> Bundle:
    """The inverse of `encode`. Raises EvidenceError."""
    if len(data) < _HEAD.size or _HEAD.unpack_from(data) != _MAGIC:
        raise EvidenceError("these bytes are no evidence of version 1")
    parts, at = [], _HEAD.size
    for limit in _LIMITS:
        if len(data) < at + _LENGTH.size:
            raise EvidenceError("the evidence is cut short")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if length > limit or at + length > len(data):
            raise EvidenceError(
                "a part of the evidence is longer than there are bytes, or than may be"
            )
        parts.append(data[at : at + length])
        at += length
    if at != len(data):
        raise EvidenceError("bytes behind the evidence")
    return Bundle(*parts)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a relying party demands of a group. Raises InvalidArgumentError if it would accept any group."""

    expectation: Expectation
    roots: Roots = AMD_ROOTS

    def __post_init__(self) -> None:
        if self.expectation.measurement is None or self.expectation.host_data is None:
            raise InvalidArgumentError(
                "expectations without measurement and host_data accept any VM under any policy: name both"
            )
        if self.expectation.report_data is not None:
            raise InvalidArgumentError(
                "report_data is what the nonce makes it: do not expect another"
            )


@dataclass(frozen=True, slots=True)
class Attested:
    """Claims that a verified report binds to the verifier's nonce."""

    claims: RuntimeClaims
    verification: Verification


def judge_bundle(bundle: Bundle, nonce: bytes, demand: Demand, at: datetime.datetime) -> Attested:
    """The claims, if the report holds, is as demanded, and binds them with `nonce`. Raises RefusedError.

    `nonce` must be the caller's own, from a random source, and used once. `at` is for certificates; freshness rests on
    the nonce alone.
    """
    try:
        claims = parse_claims(bundle.runtime)
    except InvalidArgumentError as error:
        raise RefusedError(error.message) from error
    if not hmac.compare_digest(claims.nonce, nonce):
        raise RefusedError(
            "the evidence is over another nonce: a replay, or meant for somebody else"
        )
    wanted = replace(demand.expectation, report_data=(report_data_of(bundle.runtime),))
    evidence = Evidence(bundle.report, (bundle.certificates,))
    verification = verify(evidence, at, wanted, demand.roots)
    if verification.verdict is not Verdict.ACCEPT:
        raise RefusedError(describe(verification), verification)
    return Attested(claims, verification)


def describe(verification: Verification) -> str:
    """One line: the checks that refuse, with their reasons."""
    failed = [f"{check.name}: {check.reason}" for check in verification.failures]
    return "refused: " + ("; ".join(failed) or "a required check could not be made")
