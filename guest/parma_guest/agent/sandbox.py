"""The one group in this VM: which pod it is, what it is made of, what it has to say."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from parma_api.ids import SandboxId
from parma_api.status import FailedPreconditionError
from parma_guest.agent.layout import Layout
from parma_guest.agent.ports import FreezerPort, NetworkPort, SourcesPort, StoragePort
from parma_guest.process.background import Background
from parma_guest.process.processes import Processes
from parma_guest.process.runtime import Runtime
from parma_guest.process.spawn import Spawner
from parma_guest.process.stdio import Opener

MAX_EVENTS: Final = 256


class Events:
    """What the guest has to say, numbered; the newest MAX_EVENTS are kept."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, str]] = []
        self._last = 0
        self._more = asyncio.Event()

    def out_of_memory(self, container: str) -> None:
        """The kernel killed a process of the container."""
        self._last += 1
        self._rows = [*self._rows, (self._last, container)][-MAX_EVENTS:]
        self._more.set()
        self._more = asyncio.Event()

    async def after(self, sequence: int) -> tuple[int, str]:
        """The first event beyond `sequence`: its number and container; waits for one."""
        while True:
            for number, container in self._rows:
                if number > sequence:
                    return number, container
            await self._more.wait()


@dataclass(slots=True)
class Group:
    """State and parts of the group. Handlers and preparers get it; nothing else is guest-wide."""

    storage: StoragePort
    network: NetworkPort
    sources: SourcesPort
    runtime: Runtime
    spawner: Spawner
    freezer: FreezerPort
    processes: Processes
    background: Background
    layout: Layout
    events: Events = field(default_factory=Events)
    sandbox: SandboxId | None = None
    opener: Opener | None = None
    """The channel that is connected now."""

    def check_sandbox(self, sandbox: SandboxId) -> None:
        """Raises FailedPreconditionError if this VM is another pod's."""
        if self.sandbox is not None and self.sandbox != sandbox:
            raise FailedPreconditionError(
                f"this machine is the pod {self.sandbox}, and no other's: start a machine for each pod"
            )

    def adopt(self, sandbox: SandboxId) -> None:
        """The first pod that is named is the only one. Raises FailedPreconditionError."""
        self.check_sandbox(sandbox)
        self.sandbox = sandbox

    def require_sandbox(self) -> SandboxId:
        """The pod. Raises FailedPreconditionError before one is named."""
        if self.sandbox is None:
            raise FailedPreconditionError(
                "no pod yet: call SetupSandbox and MountScratch before anything of a container"
            )
        return self.sandbox

    def channel(self) -> Opener:
        """Opens streams. Raises FailedPreconditionError without a channel."""
        if self.opener is None:
            raise FailedPreconditionError("no channel is connected")
        return self.opener
