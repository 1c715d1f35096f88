"""MAA's call: the group's evidence in, a token out (attestation reference section 15)."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from parma_api.status import DataLossError
from parma_tenant.services.upstream import Upstream
from parma_tenant.sidecar.skr.endpoint import Endpoint
from parma_tenant.sidecar.skr.evidence import Evidence, GroupEvidence

_PATH: Final = "/attest/SevSnpVm?api-version=2020-10-01"
_WHAT: Final = "the attestation service"
_MAX_TOKEN: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Attestation:
    """`endorsements`: the COSE text that vouches for the VM's measurement, as the host gives it; may be empty."""

    group: GroupEvidence
    client: Upstream
    endorsements: Callable[[], bytes]

    async def token(self, service: Endpoint, runtime: bytes) -> str:
        """A token over `runtime`. Raises PermissionDeniedError, UnavailableError, DataLossError, ApiError."""
        evidence = await self.group.evidence(runtime)
        body = submission(evidence, runtime, self.endorsements())
        answer = await self.client.post(service.url(_PATH), body, _WHAT)
        token = answer.get("token")
        if not isinstance(token, str) or not 0 < len(token) <= _MAX_TOKEN:
            raise DataLossError(f"{_WHAT} answers without a token")
        return token


def submission(evidence: Evidence, runtime: bytes, endorsements: bytes) -> dict[str, Any]:
    """The body of the call; base64url is padded, as Azure's own sidecar writes it."""
    inner = {"SnpReport": _b64url(evidence.report), "VcekCertChain": _b64url(evidence.chain)}
    if endorsements:
        uvm = json.dumps({"Uvm": [_b64url(endorsements)]}).encode()
        inner["Endorsements"] = _b64url(uvm)
    return {
        "report": _b64url(json.dumps(inner).encode()),
        "runtimeData": {"data": _b64url(runtime), "dataType": "JSON"},
        "initTimeData": {"data": "", "dataType": "JSON"},
        "nonce": secrets.randbits(64),
    }


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()
