"""What the host hands over signed, on its way to the gate: a pod without fragments never imports CBOR or X.509."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from parma_api.policy.gate import Gate

if TYPE_CHECKING:
    from parma_api.policy.intake import Intake


class Envelopes:
    """Of one gate; the reader comes with the first envelope."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._intake: Intake | None = None

    async def load(self, envelope: bytes, media_type: str, deadline: float) -> None:
        """A signed envelope (COSE_Sign1): fragment, trust list, or reference information. Raises PolicyDenied."""
        if self._intake is None:
            from parma_api.policy.intake import Intake

            self._intake = Intake(self._gate)
        await self._intake.load(envelope, media_type, deadline)

    def reference_information(self) -> Mapping[str, bytes]:
        """The newest signed reference information by media type, for containers."""
        return {} if self._intake is None else dict(self._intake.reference_information)
