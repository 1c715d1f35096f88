"""Who waits for whom (design.md, section 2.5).

Devices and overlays form one queue, each container another. A signal waits for no action of another container, and for
one of its own at most until that action's deadline: a hung program must not block Kill.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

SERIAL: Final = "serial"
"""Everything, for policies that read the state themselves: two decisions could rest on what the other changes."""


class _Queue:
    __slots__ = ("deadline", "lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
        self.deadline = 0.0


class Queues:
    """Named queues; one that nobody uses is forgotten."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}

    def __len__(self) -> int:
        return len(self._queues)

    @asynccontextmanager
    async def turn(self, name: str, deadline: float) -> AsyncIterator[None]:
        """Hold queue `name`. Raises TimeoutError when its turn does not come by `deadline` (loop time)."""
        queue = self._enter(name)
        try:
            async with asyncio.timeout_at(deadline):
                await queue.lock.acquire()
            queue.deadline = deadline
            try:
                yield
            finally:
                queue.lock.release()
        finally:
            self._leave(name, queue)

    @asynccontextmanager
    async def urgent_turn(self, name: str, deadline: float) -> AsyncIterator[None]:
        """As `turn`, but goes ahead without the queue once the action that holds it now is past its own deadline."""
        queue = self._enter(name)
        try:
            held = await _acquired(queue, deadline)
            try:
                yield
            finally:
                if held:
                    queue.lock.release()
        finally:
            self._leave(name, queue)

    def _enter(self, name: str) -> _Queue:
        queue = self._queues.setdefault(name, _Queue())
        queue.users += 1
        return queue

    def _leave(self, name: str, queue: _Queue) -> None:
        queue.users -= 1
        if not queue.users:
            del self._queues[name]


async def _acquired(queue: _Queue, deadline: float) -> bool:
    """Whether the lock is held now; False: the holder is past its deadline. Raises TimeoutError at our own."""
    limit = min(queue.deadline, deadline) if queue.lock.locked() else deadline
    try:
        async with asyncio.timeout_at(limit):
            await queue.lock.acquire()
    except TimeoutError:
        if limit >= deadline:
            raise
        return False
    queue.deadline = deadline
    return True
