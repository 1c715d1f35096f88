"""What operators ask of a running group, beside containerd: `parma fragment load`."""

from __future__ import annotations

from parma_api.gen.parma.shim.v1 import ControlBase, LoadFragmentRequest, LoadFragmentResponse
from parma_api.status import InvalidArgumentError
from parma_shim.podconfig import MAX_FRAGMENT
from parma_shim.task.group import Group


class ControlService(ControlBase):
    """Carries to the guest; its policy judges."""

    def __init__(self, group: Group) -> None:
        self._group = group

    async def load_fragment(
        self, load_fragment_request: LoadFragmentRequest
    ) -> LoadFragmentResponse:
        """Raises InvalidArgumentError, RefusedError without a pod, and what the guest says."""
        envelope = load_fragment_request.envelope
        if not 0 < len(envelope) <= MAX_FRAGMENT:
            raise InvalidArgumentError(
                f"a fragment has 1 to {MAX_FRAGMENT} bytes, this has {len(envelope)}"
            )
        pod = self._group.require_pod()
        await pod.asked(pod.agent.load_fragment(envelope))
        return LoadFragmentResponse()
