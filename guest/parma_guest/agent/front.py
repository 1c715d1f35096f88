"""What answers first: Health at once, everything else when the agent's heavier half has been imported.

There is one server and one interceptor from the first moment on. Until the real service and its gate exist a call waits
for them; none is answered without them but Health, which tells nothing of the workload, and SetPolicy, which needs the
gate alone and is what a pod waits for longest.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import betterproto

from parma_api.gen.parma.agent.v1 import (
    AgentBase,
    HealthResponse,
    SetPolicyRequest,
    SetPolicyResponse,
    Stance,
)
from parma_api.ttrpc.server import Interceptor, Proceed
from parma_api.ttrpc.service import MethodInfo
from parma_guest.agent import VERSION
from parma_guest.attest.image import Image
from parma_guest.policy.methods import check_complete

SetPolicy: TypeAlias = Callable[[SetPolicyRequest], Awaitable[SetPolicyResponse]]


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
        loop = asyncio.get_running_loop()
        self._back: asyncio.Future[Back] = loop.create_future()
        self._set_policy: asyncio.Future[SetPolicy] = loop.create_future()
        self.describe: Callable[[HealthResponse], None] = lambda _: None
        """Fills in what only the other half knows."""

    def policy_ready(self, set_policy: SetPolicy) -> None:
        """The gate is there, and takes the policy."""
        self._set_policy.set_result(set_policy)

    def ready(self, back: Back) -> None:
        """The rest is there too."""
        self._back.set_result(back)
        if not self._set_policy.done():
            self._set_policy.set_result(back.service.set_policy)

    def failed(self, error: BaseException) -> None:
        """It never will be."""
        for future in (self._back, self._set_policy):
            if not future.done():
                future.set_exception(error)
                future.exception()

    async def intercept(
        self, info: MethodInfo, request: betterproto.Message, proceed: Proceed
    ) -> betterproto.Message:
        """The server's interceptor."""
        if info.method == "Health":
            return self.health_now()
        if (
            info.method == "SetPolicy"
        ):  # ungated: its own check against HOST_DATA is what makes a gate
            assert isinstance(request, SetPolicyRequest)
            return await (await asyncio.shield(self._set_policy))(request)
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
