"""Boots in turns: as many at a time as there are slots, among processes, and never a deadlock."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import pytest

from parma_api.status import FailedPreconditionError
from parma_shim.config import Config
from parma_shim.sandbox.assembly import boot_turns
from parma_shim.sandbox.turns import BootTurns, at_once
from parma_shim.vmm.accel import AcceleratorSetting

_HOLDER = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


async def test_no_more_than_the_slots_at_a_time(tmp_path: Path) -> None:
    turns = BootTurns(tmp_path / "turns", 2)
    inside = most = 0

    async def boot() -> None:
        nonlocal inside, most
        async with turns.turn():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            inside -= 1

    async with asyncio.timeout(30):
        await asyncio.gather(*(boot() for _ in range(6)))
    assert most == 2
    assert inside == 0


async def test_a_shim_that_is_killed_gives_its_turn_back(tmp_path: Path) -> None:
    turns = BootTurns(tmp_path, 1)
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-c", _HOLDER, str(tmp_path / "0"))
    other = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert other.stdout is not None
    assert await other.stdout.readline() == b"held\n"
    waiting = asyncio.create_task(_had(turns))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    other.kill()
    async with asyncio.timeout(30):
        await waiting
        await other.wait()


async def test_a_boot_that_fails_or_is_cancelled_gives_its_turn_back(tmp_path: Path) -> None:
    turns = BootTurns(tmp_path, 1)
    with pytest.raises(ZeroDivisionError):
        async with turns.turn():
            raise ZeroDivisionError
    async with turns.turn():
        waiting = asyncio.create_task(_had(turns))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with asyncio.timeout(30):
        await _had(turns)


async def test_who_waited_long_enough_boots_anyway(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    turns = BootTurns(tmp_path, 1, patience=0.05)
    with caplog.at_level(logging.WARNING):
        async with turns.turn(), asyncio.timeout(30):
            await _had(turns)
    assert "this pod boots beside the others" in caplog.text


async def test_a_folder_that_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        FailedPreconditionError, match=r"no turn to boot can be had in .*/file/turns"
    ):
        await _had(BootTurns(tmp_path / "file" / "turns", 1))


@pytest.mark.parametrize(
    ("accelerator", "number", "limited"),
    [
        (AcceleratorSetting.TCG, 0, True),
        (AcceleratorSetting.TCG, 3, True),
        (AcceleratorSetting.KVM, 0, False),
        (AcceleratorSetting.KVM, 3, True),
    ],
)
def test_only_emulated_machines_take_turns_unless_told(
    tmp_path: Path, accelerator: AcceleratorSetting, number: int, *, limited: bool
) -> None:
    config = Config(lib_dir=tmp_path, accelerator=accelerator, boots_at_once=number)
    assert (boot_turns(config) is not at_once) == limited


async def _had(turns: BootTurns) -> None:
    async with turns.turn():
        pass
