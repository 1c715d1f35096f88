"""In the group: evidence for a verifier's nonce, over keys that are made for this session and no other."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from parma_api.status import ResourceExhaustedError
from parma_tenant.claims.evidence import Bundle
from parma_tenant.claims.runtime import RuntimeClaims, report_data_of
from parma_tenant.claims.sealing import SealingKey
from parma_tenant.claims.source import ReportSource

_WAITING: Final = 64
"""Sessions that may wait for the processor, which answers one request at a time; more are turned away."""


@dataclass(frozen=True, slots=True)
class Session:
    """The private halves of the claims, and the evidence for the public ones."""

    tls: ec.EllipticCurvePrivateKey
    sealing: SealingKey
    claims: RuntimeClaims
    bundle: Bundle


class Attester:
    """Makes sessions."""

    def __init__(self, source: ReportSource) -> None:
        self._source = source
        self._certificates: bytes | None = None
        self._lock = asyncio.Lock()
        self._waiting = 0

    async def session(self, nonce: bytes) -> Session:
        """Fresh keys bound with `nonce`. Raises ResourceExhaustedError (too many at a time), ApiError of the source."""
        if self._waiting >= _WAITING:
            raise ResourceExhaustedError("too many ask for evidence at a time: try again")
        tls = ec.generate_private_key(ec.SECP256R1())
        sealing = SealingKey.generate()
        claims = RuntimeClaims(nonce, tls=tls.public_key(), sealing=sealing.public)
        return Session(tls, sealing, claims, await self.evidence(claims))

    async def evidence(self, claims: RuntimeClaims) -> Bundle:
        """A report that binds `claims`, whose private halves are the caller's. Raises ApiError of the source."""
        runtime = claims.encode()
        self._waiting += 1
        try:
            async with self._lock:
                if self._certificates is None:
                    self._certificates = await self._source.certificates()
                report = await self._source.report(report_data_of(runtime))
        finally:
            self._waiting -= 1
        return Bundle(report, self._certificates, runtime)

    def forget_certificates(self) -> None:
        """The next evidence asks for them again: after a firmware update they belong to another TCB."""
        self._certificates = None
