"""What answers first: Health at once, everything else when the agent's heavier half has been imported.

There is one server and one interceptor from the first moment on. Until the real service and its gate exist a call waits
for them; none is answered without them but Health, which tells nothing of the workload.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import betterproto

from parma_api.gen.parma.agent.v1 import AgentBase, HealthResponse, Stance
from parma_api.ttrpc.server import Interceptor, Proceed
from parma_api.ttrpc.service import MethodInfo
from parma_guest.agent import VERSION
from parma_guest.attest.image import Image
from parma_guest.policy.methods import check_complete


def offered() -> tuple[str, ...]:
    """The service's methods."""
    return tuple(route.rsplit("/", 1)[1] for route in AgentBase().__mapping__())


def handler_name(method: str) -> str:
    """The generated name: SetPolicy -> set_policy."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in method).lstrip("_")


class Back:
    """The agent's heavier half: its service, and the interceptor in front of it."""

    def __init__(
        self,
        service: AgentBase,
        interceptor: Interceptor,
        on_channel: Callable[[Any], None],
        close: Callable[[], Awaitable[None]],
    ) -> None:
        """`on_channel` gets `Mux.open` of the channel that is connected now."""
        self.service = service
        self.intercept = interceptor
        self.on_channel = on_channel
        self.close = close


class Front(AgentBase):
    """The service as the server knows it."""

    def __init__(self, image: Image) -> None:
        """Raises ValueError unless each method is gated, or named as ungated with the reason."""
        check_complete(offered())
        self._image = image
        self._back: asyncio.Future[Back] = asyncio.get_running_loop().create_future()
        self.describe: Callable[[HealthResponse], None] = lambda _: None
        """Fills in what only the other half knows."""

    def ready(self, back: Back) -> None:
        """The other half is there."""
        self._back.set_result(back)

    def failed(self, error: BaseException) -> None:
        """It never will be."""
        self._back.set_exception(error)
        self._back.exception()

    async def intercept(
        self, info: MethodInfo, request: betterproto.Message, proceed: Proceed
    ) -> betterproto.Message:
        """The server's interceptor."""
        if info.method == "Health":
            return self.health_now()
        back = await asyncio.shield(self._back)

        async def dispatch(judged: betterproto.Message) -> betterproto.Message:
            answer: betterproto.Message
            answer = await getattr(back.service, handler_name(info.method))(judged)
            return answer

        return await back.intercept(info, request, dispatch)

    def health_now(self) -> HealthResponse:
        """What is known without the policy."""
        answer = HealthResponse(
            version=VERSION,
            variant=self._image.value,
            stance=Stance(Stance.DENY_ALL),
            kernel=os.uname().release,
            boot_id=_boot_id(),
            uptime_usec=time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000,
        )
        self.describe(answer)
        return answer


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123
            return file.read(64).strip()
    except OSError:
        return ""
