"""Ends of children: watched, early, adopted, and those that belong to somebody else."""

# ruff: noqa: ASYNC222 (children here have ended, or do so at once)

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from parma_api.status import DeadlineExceededError
from parma_guest.linux.errno import KernelError
from parma_guest.process import reaper as reapers
from parma_guest.process.reaper import Reaper
from parma_guest.process.spawn import Descriptors, Spawner
from tests.fixtures.agent import become_subreaper

STREAMS = Descriptors(0, 1, 2)


@pytest.fixture
async def reaper() -> AsyncIterator[Reaper]:
    become_subreaper()
    made = Reaper(orphans=False)
    yield made
    made.close()


def child(code: str) -> int:
    return os.posix_spawn(sys.executable, [sys.executable, "-ISc", code], {})


async def test_status(reaper: Reaper) -> None:
    how = await reaper.watch(child("import sys; sys.exit(9)"))
    assert how.status == 9
    assert how.at_nsec > 0


async def test_signals_are_128_and_more(reaper: Reaper) -> None:
    how = await reaper.watch(child("import os; os.kill(os.getpid(), 9)"))
    assert how.status == 128 + signal.SIGKILL


async def test_an_end_before_anybody_watches(reaper: Reaper) -> None:
    pid = child("")
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert reaper.watch(pid).result().status == 0


async def test_a_process_that_is_not_ours(reaper: Reaper) -> None:
    pid = child("")
    os.waitpid(pid, 0)
    assert reaper.watch(pid).result().status == 255


async def grandchild() -> int:
    """The pid of an orphan that has ended."""
    ours, theirs = os.pipe()
    pid = child(
        f"import os\np = os.fork()\nif p: os.write({theirs}, str(p).encode())\nelse: os._exit(5)"
        if os.set_inheritable(theirs, True) is None
        else ""
    )
    await asyncio.to_thread(os.waitpid, pid, 0)
    os.close(theirs)
    orphan = int(os.read(ours, 20))
    os.close(ours)
    os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOWAIT)
    return orphan


async def test_orphans_are_reaped_by_the_first_process_only(reaper: Reaper) -> None:
    orphan = await grandchild()
    reaper.sweep()
    assert os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOWAIT) is not None
    reaper.close()
    first = Reaper(orphans=True)
    first.sweep()
    with pytest.raises(ChildProcessError):
        os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOHANG)
    first.close()


async def test_an_expected_child_is_kept_until_it_is_watched(reaper: Reaper) -> None:
    reaper.close()
    first = Reaper(orphans=True)
    with first.expecting():
        orphan = await grandchild()
        first.sweep()
        ended = first.watch(orphan)
    assert ended.result().status == 5
    first.close()


async def test_what_others_wait_for_is_left_alone(reaper: Reaper) -> None:
    reaper.close()
    pid = child("")
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    first = Reaper(orphans=True, others=lambda: frozenset({pid}))
    first.sweep()
    assert os.waitid(os.P_PID, pid, os.WEXITED).si_status == 0
    first.close()


async def test_a_program_beyond_its_deadline_is_killed(reaper: Reaper) -> None:
    spawner = Spawner(reaper, lambda: None)
    deadline = asyncio.get_running_loop().time() + 0.05
    with pytest.raises(DeadlineExceededError):
        await spawner.run(["sleep", "600"], STREAMS, deadline)
    assert not reaper._watched
    spawner.close()


async def test_a_cancelled_run_leaves_no_program(reaper: Reaper) -> None:
    spawner = Spawner(reaper, lambda: None)
    deadline = asyncio.get_running_loop().time() + 60
    task = asyncio.ensure_future(spawner.run(["sleep", "600"], STREAMS, deadline))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not reaper._watched
    spawner.close()


async def test_a_missing_program(reaper: Reaper) -> None:
    spawner = Spawner(reaper, lambda: None)
    with pytest.raises(KernelError, match="No such file"):
        spawner.start(["no-such-program"], STREAMS)
    spawner.close()


@pytest.mark.parametrize(
    ("args", "status"), [(("cat", "here"), 0), (("no-such-program",), 127), (("/dev/null",), 126)]
)
async def test_a_program_in_a_directory(
    reaper: Reaper, tmp_path: object, args: tuple[str, ...], status: int
) -> None:
    (tmp_path / "here").touch()  # type: ignore[operator]
    spawner = Spawner(reaper, lambda: None)
    environment = {"PATH": "/usr/bin:/bin"}
    _, ended = spawner.start(args, STREAMS, environment, str(tmp_path))
    assert (await ended).status == status
    spawner.close()


assert reapers.Exit
