"""What arrives signed: fragments, trust lists, reference information (policy.md, section 11)."""

from __future__ import annotations

from typing import Final

from parma_api.policy.cose import CoseError
from parma_api.policy.decision import PointRequest
from parma_api.policy.envelope import Envelope, EnvelopeError, open_envelope, open_signed
from parma_api.policy.fragment import Claims, load_module
from parma_api.policy.gate import FRAGMENTS, Gate
from parma_api.policy.points import Point
from parma_api.policy.receipts import LedgerKeys, parse_trust_list

REGO: Final = "application/cose-x509+rego"
TRUST_LIST: Final = "application/vnd.transparency-trust-list.v1+cose"
REFERENCE_INFORMATION: Final = (
    "application/vnd.tcb-reference-info.v1+cose",
    "application/vnd.platform-reference-info.v1+cose",
)


class Intake:
    """Judges envelopes and hands what holds to the gate. One for each gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._ledgers = LedgerKeys()
        self.reference_information: dict[str, bytes] = {}
        """The newest signed reference information of each media type."""

    async def load(self, encoded: bytes, media_type: str, deadline: float) -> None:
        """Take one envelope: all of it or nothing. Raises PolicyDenied with the code."""
        point = (
            Point.LOAD_TRANSPARENCY_TRUST_LIST if media_type == TRUST_LIST else Point.LOAD_FRAGMENT
        )
        try:
            await self._load(encoded, media_type, deadline)
        except EnvelopeError as error:
            self._gate.refuse(PointRequest(point, {}), error.code, str(error))

    async def _load(self, encoded: bytes, media_type: str, deadline: float) -> None:
        if media_type in REFERENCE_INFORMATION:
            open_signed(encoded)
            self.reference_information[media_type] = encoded
        elif media_type == TRUST_LIST:
            await self._trust_list(open_envelope(encoded), deadline)
        elif media_type in ("", REGO):
            await self._fragment(open_envelope(encoded), deadline)
        else:
            raise EnvelopeError("fragment.envelope", "unknown media type")

    async def _fragment(self, envelope: Envelope, deadline: float) -> None:
        receipts = self._ledgers.check(envelope.receipts, envelope.message)
        claims = Claims(envelope.issuer, envelope.feed, envelope.header_svn, receipts)
        await load_module(self._gate, claims, envelope.payload, deadline)

    async def _trust_list(self, envelope: Envelope, deadline: float) -> None:
        if envelope.header_svn is None:
            raise EnvelopeError("fragment.svn_type", "a trust list needs a version in its header")
        try:
            offered = parse_trust_list(envelope.payload)
        except CoseError as error:
            raise EnvelopeError("fragment.envelope", str(error)) from None
        request = PointRequest(
            Point.LOAD_TRANSPARENCY_TRUST_LIST,
            {
                "issuer": envelope.issuer,
                "subject": envelope.feed,
                "svn": envelope.header_svn,
                "ledgers": list(offered),
            },
        )
        async with self._gate.transaction(FRAGMENTS, [request], deadline) as (decision,):
            self._ledgers = self._ledgers.with_list(
                envelope.feed, offered, decision.allowed_ledgers or ()
            )


__all__ = ["REFERENCE_INFORMATION", "REGO", "TRUST_LIST", "Intake"]
