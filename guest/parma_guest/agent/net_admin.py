"""What the kernel must have for a container that administers the pod's network (CAP_NET_ADMIN, which a policy judged).

The image has no modprobe, so what the kernel would ask for by itself is loaded when the first such container comes.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from parma_api.policy.decision import Capabilities
from parma_api.status import ApiError
from parma_guest.linux.modules import load_groups

log = logging.getLogger(__name__)
CAPABILITY: Final = "CAP_NET_ADMIN"
GROUP: Final = "bridge"


async def prepare(capabilities: Capabilities) -> None:
    """Load the modules if the container may use them. Where that fails the container does without; the log says so."""
    if CAPABILITY not in capabilities.bounding:
        return
    try:
        await asyncio.to_thread(load_groups, (GROUP,))
    except ApiError as error:
        log.warning("no bridges in the pod: %s", error.message)
