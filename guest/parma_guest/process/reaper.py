"""Who ended, and how: every child of PID 1 is either waited for by somebody, or an orphan to be reaped."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from parma_guest.linux.pidfd import CHILDREN, SPAWNING

_AGAIN: Final = 0.02
"""Seconds until the next look, where somebody else is about to wait for a child."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: its status, 128 + signal when killed, and when (nanoseconds since the epoch)."""

    status: int
    at_nsec: int
    oom_killed: bool = False


class Reaper:
    """One for each agent, in the main thread's loop."""

    def __init__(self, *, orphans: bool, others: Callable[[], frozenset[int]] = frozenset) -> None:
        """`orphans`: reap them (as PID 1). `others`: pids that somebody else waits for."""
        self._loop = asyncio.get_running_loop()
        self._orphans = orphans
        self._others = others
        self._watched: dict[int, asyncio.Future[Exit]] = {}
        self._expecting = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop.add_signal_handler(signal.SIGCHLD, self.sweep)

    def close(self) -> None:
        """Look no more."""
        self._loop.remove_signal_handler(signal.SIGCHLD)
        if self._timer is not None:
            self._timer.cancel()

    def watch(self, pid: int) -> asyncio.Future[Exit]:
        """The end of a child, one that has ended already included. Once for each process."""
        future: asyncio.Future[Exit] = self._loop.create_future()
        self._watched[pid] = future
        self._collect(pid)
        return future

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """A child that we shall `watch` appears meanwhile (crun's): no orphan is reaped until then."""
        self._expecting += 1
        try:
            yield
        finally:
            self._expecting -= 1
            self.sweep()

    def sweep(self) -> None:
        """See who ended."""
        for pid in list(self._watched):
            self._collect(pid)
        if self._orphans and not self._expecting:
            self._reap_orphans()

    def _collect(self, pid: int) -> None:
        try:
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
        except ChildProcessError:  # not ours to wait for: gone, and how is unknown
            self._settle(pid, Exit(255, time.time_ns()))
            return
        if ended is not None:
            killed = ended.si_code != os.CLD_EXITED
            status = 128 + ended.si_status if killed else ended.si_status
            self._settle(pid, Exit(status, time.time_ns()))

    def _settle(self, pid: int, how: Exit) -> None:
        future = self._watched.pop(pid)
        if not future.done():
            future.set_result(how)

    def _reap_orphans(self) -> None:
        if not SPAWNING.acquire(blocking=False):
            self._look_again()
            return
        try:
            while (pid := _ended_child()) is not None:
                if pid in self._watched or pid in CHILDREN or pid in self._others():
                    self._look_again()
                    return
                with suppress(ChildProcessError):  # its starter, in another thread, was faster
                    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
        finally:
            SPAWNING.release()

    def _look_again(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_AGAIN, self.sweep)


def _ended_child() -> int | None:
    """Some child that has ended, left as it is."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid
