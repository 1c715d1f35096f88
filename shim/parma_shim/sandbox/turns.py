"""Boots take turns where VMs are emulated: of ten at once on two CPUs, each would be ready later than two by two.

An emulated guest needs a CPU of the host for as long as it boots, and answers its timer ticks besides: with a tenth
of a CPU it does little else. A turn is a flock on one of a few files, so the kernel ends it with its shim.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from parma_api.status import FailedPreconditionError
from parma_shim.layers.locks import Wait, locked

log = logging.getLogger(__name__)

PATIENCE: Final = 90.0
"""Seconds after which a boot begins without a turn: the kubelet gives a pod's sandbox four minutes in all."""
_LOOK: Final = 0.1


class BootTurns:
    """At most `slots` boots at a time among all shims that share `folder`."""

    def __init__(self, folder: Path, slots: int, patience: float = PATIENCE) -> None:
        self._folder = folder
        self._slots = slots
        self._patience = patience

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits for a turn, and has it while inside. Raises FailedPreconditionError when `folder` cannot be written."""
        with await self._wait():
            yield

    async def _wait(self) -> ExitStack:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        while (held := self._taken()) is None:
            if loop.time() >= deadline:
                log.warning(
                    "no turn to boot in %g s: this pod boots beside the others", self._patience
                )
                return ExitStack()
            await asyncio.sleep(_LOOK)
        return held

    def _taken(self) -> ExitStack | None:
        """Gives the turn back when it is closed; None when all are taken."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for slot in range(self._slots):
                with ExitStack() as attempt:
                    if attempt.enter_context(locked(self._folder / str(slot), Wait.NO)):
                        return attempt.pop_all()
        except OSError as error:
            raise FailedPreconditionError(
                f"no turn to boot can be had in {self._folder}: {error.strerror}"
            ) from error
        return None


@asynccontextmanager
async def at_once() -> AsyncIterator[None]:
    """No turns: hardware runs as many VMs as it has room for."""
    yield
