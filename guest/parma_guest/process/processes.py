"""All processes that the agent started, living: the table, who waits for whose end, signals, streams."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from parma_api.status import NotFoundError
from parma_guest.linux.errno import kernel_call
from parma_guest.process.background import Background
from parma_guest.process.reaper import Exit
from parma_guest.process.runtime import Started
from parma_guest.process.stdio import Stdio
from parma_guest.process.table import Entry, Key, State, Table


class Processes:
    """One for each agent."""

    def __init__(
        self,
        background: Background,
        *,
        on_first_ended: Callable[[str], None],
        was_oom_killed: Callable[[str], bool],
    ) -> None:
        """`on_first_ended`: a container's first process has ended; its others must go too."""
        self._background = background
        self._on_first_ended = on_first_ended
        self._was_oom_killed = was_oom_killed
        self._table = Table()
        self._told: dict[Key, asyncio.Future[Exit]] = {}
        self._stdio: dict[Key, Stdio] = {}
        self._handles: dict[Key, int] = {}

    # What is known

    def require_new(self, key: Key) -> None:
        """See Table."""
        self._table.require_new(key)

    def get(self, key: Key) -> Entry:
        """Raises NotFoundError."""
        return self._table.get(key)

    def commands(self, container: str) -> dict[str, tuple[str, ...]]:
        """Commands of the processes that have not ended, by exec id."""
        return self._table.commands(container)

    def containers(self) -> tuple[str, ...]:
        """All that are not forgotten."""
        return self._table.containers()

    # Life

    def add(self, key: Key, args: tuple[str, ...], started: Started, stdio: Stdio) -> None:
        """A process that the runtime has made; its streams are carried from now on. Raises as Table.add."""
        self._table.add(key, started.pid, args)
        self._told[key] = asyncio.get_running_loop().create_future()
        self._stdio[key] = stdio
        with suppress(ProcessLookupError):  # ended already
            self._handles[key] = os.pidfd_open(started.pid)
        stdio.child_started()
        self._background.spawn(self._follow(key, started.ended, stdio), f"end of {key}")

    def start(self, container: str) -> None:
        """Created to running. Raises NotFoundError, FailedPreconditionError."""
        self._table.start(container)

    async def _follow(self, key: Key, ended: asyncio.Future[Exit], stdio: Stdio) -> None:
        how = await ended
        if key.container and not key.exec_id:
            how = replace(how, oom_killed=self._was_oom_killed(key.container))
            self._on_first_ended(key.container)
        self._table.ended(key, how)
        if (handle := self._handles.pop(key, None)) is not None:
            os.close(handle)
        await stdio.drain()
        for ready in self._table.drained(key):
            entry = self._table.get(ready)
            assert entry.exit is not None
            self._told[ready].set_result(entry.exit)

    async def wait(self, key: Key) -> Exit:
        """How the process ended, when its output is carried off. Raises NotFoundError."""
        self._table.get(key)
        return await asyncio.shield(self._told[key])

    def signal(self, key: Key, number: int) -> None:
        """Send a signal; 0 only looks. Raises NotFoundError (it has ended), KernelError."""
        self._table.require_alive(key)
        handle = self._handles.get(key)
        if handle is None:
            raise NotFoundError(f"{key} has ended: not found")
        with kernel_call("pidfd_send_signal", key):
            try:
                signal.pidfd_send_signal(handle, number)
            except ProcessLookupError:
                raise NotFoundError(f"{key} has ended: not found") from None

    def resize(self, key: Key, width: int, height: int) -> None:
        """A terminal's size; silently nothing where there is none. Raises NotFoundError, KernelError."""
        self._table.get(key)
        self._stdio[key].resize(width, height)

    async def wait_all(self, container: str) -> None:
        """Return when every process of the container has ended and been told."""
        for entry in self._table.processes(container):
            await asyncio.shield(self._told[entry.key])

    def forget(self, container: str) -> None:
        """Every row of a container. Raises FailedPreconditionError while one of its processes lives."""
        keys = [entry.key for entry in self._table.processes(container)]
        self._table.forget(container)
        for key in keys:
            self._stdio.pop(key).discard()
            del self._told[key]

    def is_running(self, container: str) -> bool:
        """Whether the first process has been started and has not ended."""
        return any(
            not entry.key.exec_id and entry.state is State.RUNNING
            for entry in self._table.processes(container)
        )
