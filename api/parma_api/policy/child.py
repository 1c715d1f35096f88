"""Child processes that can be killed and awaited without owning SIGCHLD.

The agent is PID 1 and reaps on its own account, so neither asyncio's child watcher nor a bare pid is safe here: a pidfd
names exactly this process for as long as it is open.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ENVIRONMENT: Final = {"TZ": "UTC"}
"""All that OPA gets: `time.clock` with "Local" follows TZ, other variables could hold secrets."""


def owned() -> frozenset[int]:
    """Pids that this module reaps itself: a reaper of everything else must leave them alone."""
    return frozenset(_OWNED)


_OWNED: set[int] = set()


class Child:
    """One running program with its own session, no input, and its outputs in files or nowhere."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        stdout: Path | None = None,
        stderr: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        """Raises OSError if the program cannot be started."""
        null = os.devnull
        wanted = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        self.pid = os.posix_spawn(
            argv[0],
            list(argv),
            ENVIRONMENT if environment is None else environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, null, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(stdout or null), wanted, 0o600),
                (os.POSIX_SPAWN_OPEN, 2, str(stderr or null), wanted, 0o600),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE],
        )
        _OWNED.add(self.pid)
        self._pidfd = os.pidfd_open(self.pid)
        self.status: int | None = None
        """Exit code, or the negative signal number, once `poll` or `wait` has seen the end."""

    def poll(self) -> bool:
        """Whether it has ended; reaps it."""
        if self.status is not None:
            return True
        try:
            info = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:  # somebody else reaped it: ended, and how is unknown
            self._ended(-int(signal.SIGKILL))
            return True
        if info is None:
            return False
        self._ended(info.si_status if info.si_code == os.CLD_EXITED else -info.si_status)
        return True

    def _ended(self, status: int) -> None:
        self.status = status
        _OWNED.discard(self.pid)
        os.close(self._pidfd)

    async def wait(self) -> int:
        """Its status, when it has ended."""
        loop = asyncio.get_running_loop()
        while not self.poll():
            ended = loop.create_future()
            loop.add_reader(self._pidfd, _resolve, ended)
            try:
                await ended
            finally:
                loop.remove_reader(self._pidfd)
        assert self.status is not None
        return self.status

    def kill(self) -> None:
        """SIGKILL, the only signal that a busy OPA obeys; idempotent. Reaped by the next `poll`, `wait` or `reap`."""
        if not self.poll():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def reap(self) -> None:
        """Kill and wait, without a loop; SIGKILL ends it in milliseconds."""
        self.kill()
        if self.status is None:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
            self._ended(-int(signal.SIGKILL))


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def run(
    argv: Sequence[str],
    scratch: Path,
    timeout: float,
    environment: dict[str, str] | None = None,
) -> tuple[int, bytes, bytes]:
    """Run to the end: status, standard output, standard error. Raises OSError, TimeoutError (the program is killed)."""
    out, err = scratch / "stdout", scratch / "stderr"
    child = Child(argv, stdout=out, stderr=err, environment=environment)
    try:
        async with asyncio.timeout(timeout):
            status = await child.wait()
    finally:
        child.reap()
    return status, out.read_bytes(), err.read_bytes()
