"""Starts programs from one thread that carries the agent's seccomp filter, and waits for them under a deadline."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.thread import BrokenThreadPool
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from parma_api.status import DeadlineExceededError, InternalError
from parma_guest.linux.errno import kernel_call
from parma_guest.process.reaper import Exit, Reaper
from parma_guest.process.vsock_filter import install

ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C"}
_KILLED_SECONDS: Final = 5.0
_CHANGE_DIRECTORY: Final = """\
import os, sys
try:
    os.chdir(sys.argv[1])
    os.execvp(sys.argv[2], sys.argv[2:])
except FileNotFoundError:
    os._exit(127)
except OSError:
    os._exit(126)
"""
"""posix_spawn(3) of Python has no action for it."""


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What a program gets as its standard streams."""

    stdin: int
    stdout: int
    stderr: int


class Spawner:
    """Children of the agent, each registered with the reaper before anybody can miss its end."""

    def __init__(self, reaper: Reaper, prepare: Callable[[], None] = install) -> None:
        """`prepare` runs once in the thread; if it fails, nothing is ever started."""
        self.reaper = reaper
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spawn", initializer=prepare)

    def close(self) -> None:
        """Start no more."""
        self._thread.shutdown(wait=False)

    def start(
        self,
        argv: Sequence[str],
        streams: Descriptors,
        environment: dict[str, str] | None = None,
        working_dir: str | None = None,
    ) -> tuple[int, asyncio.Future[Exit]]:
        """A new program in a session of its own. Raises KernelError (ENOENT), InternalError.

        Waits for the thread: an execve's time, and no turn of the loop in which a child could end unseen.
        """
        env = ENVIRONMENT if environment is None else environment
        try:
            pid = self._thread.submit(_spawn, list(argv), streams, env, working_dir).result()
        except BrokenThreadPool:
            raise InternalError(
                "the AF_VSOCK filter could not be installed: nothing is started"
            ) from None
        return pid, self.reaper.watch(pid)

    async def run(self, argv: Sequence[str], streams: Descriptors, deadline: float) -> Exit:
        """Run a program to its end; `deadline` by the loop's clock. It never outlives this call.

        Raises DeadlineExceededError, KernelError.
        """
        pid, ended = self.start(argv, streams)
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.shield(ended)
        except TimeoutError:
            raise DeadlineExceededError(f"{argv[0]} did not end in time and was killed") from None
        finally:
            await _end(pid, ended)


async def _end(pid: int, ended: asyncio.Future[Exit]) -> None:
    """Kill what still runs, and wait until it is gone, whoever cancels meanwhile."""
    if ended.done():
        return
    with suppress(ProcessLookupError):
        os.kill(
            pid, signal.SIGKILL
        )  # ours, and not reaped before `ended` says so: the pid is its own
    await asyncio.wait({ended}, timeout=_KILLED_SECONDS)


def _spawn(
    argv: list[str], streams: Descriptors, environment: dict[str, str], working_dir: str | None
) -> int:
    if working_dir is not None:
        argv = [sys.executable, "-ISc", _CHANGE_DIRECTORY, working_dir, *argv]
    with kernel_call("posix_spawn", argv[0]):
        return os.posix_spawnp(
            argv[0],
            argv,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, streams.stdin, 0),
                (os.POSIX_SPAWN_DUP2, streams.stdout, 1),
                (os.POSIX_SPAWN_DUP2, streams.stderr, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE],
        )
