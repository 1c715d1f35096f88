"""SetPolicy: the policy is taken only if its digest is the HOST_DATA of a report that the agent obtains itself.

The report's own data is SHA-512 of a constant and the policy's digest: 64 bytes without the run of zeros that ends the
report data of every claim of a key, so that no such report can be taken for the other.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from parma_api.gen.parma.agent.v1 import SetPolicyRequest, SetPolicyResponse
from parma_api.policy.decision import PointRequest, PolicyDenied
from parma_api.policy.gate import Gate
from parma_api.policy.points import Point
from parma_api.snp import report as snp
from parma_api.status import (
    ApiError,
    DataLossError,
    FailedPreconditionError,
    ResourceExhaustedError,
)
from parma_guest.agent.context_dir import SecurityContext
from parma_guest.attest.provider import ReportProvider
from parma_guest.policy.envelopes import Envelopes

log = logging.getLogger(__name__)

MAX_ATTACHMENT: Final = 256 << 10
"""Bytes of the certificates, and of the reference information."""
_LABEL: Final = b"parma policy 1\n"


def report_data(policy: bytes) -> bytes:
    """What the report of SetPolicy is made over, 64 bytes."""
    return hashlib.sha512(_LABEL + hashlib.sha256(policy).digest()).digest()


class PolicySetup:
    """Takes the policy, once."""

    def __init__(
        self,
        gate: Gate,
        envelopes: Envelopes,
        provider: Callable[[], Awaitable[ReportProvider]],
        *,
        on_logging_allowed: Callable[[], None],
    ) -> None:
        """`provider` raises FailedPreconditionError where there is none; there is no other way then."""
        self._gate = gate
        self._envelopes = envelopes
        self._provider = provider
        self._on_logging_allowed = on_logging_allowed
        self.context = SecurityContext()
        self.policy_sha256 = ""
        self.provider_name = ""
        """The report provider's, once it is known."""

    async def set_policy(self, request: SetPolicyRequest) -> SetPolicyResponse:
        """Raises PolicyInvalid, FailedPreconditionError (no report), DataLossError, ResourceExhaustedError."""
        for name, content in (
            ("certificates", request.certificates),
            ("reference_info", request.reference_info),
        ):
            if len(content) > MAX_ATTACHMENT:
                raise ResourceExhaustedError(f"{name}: at most {MAX_ATTACHMENT} bytes")
        report = await self._report(request.policy)
        await self._gate.set_policy(request.policy, snp.host_data_of(report))
        self.context = SecurityContext(request.policy, request.certificates, request.reference_info)
        self.policy_sha256 = hashlib.sha256(request.policy).hexdigest()
        await self._ask_for_logging()
        return SetPolicyResponse(policy_sha256=self.policy_sha256, report=report)

    async def _report(self, policy: bytes) -> bytes:
        provider = await self._provider()
        self.provider_name = provider.name
        wanted = report_data(policy)
        try:
            report = await provider.report(wanted)
            found = snp.parse(report).report_data
        except ApiError as error:
            raise FailedPreconditionError(
                f"no report from {provider.name}, so no policy: {error.message}"
            ) from error
        if not hmac.compare_digest(found, wanted):
            raise DataLossError(f"the report of {provider.name} is not the one that was asked for")
        return report

    async def _ask_for_logging(self) -> None:
        try:
            await self._gate.query(PointRequest(Point.RUNTIME_LOGGING, {}))
        except PolicyDenied:
            return  # the log goes on leading nowhere
        self._on_logging_allowed()

    def context_files(self) -> Mapping[str, bytes]:
        """For the security context directory of a container that is created now."""
        return self.context.files(self._envelopes.reference_information())
