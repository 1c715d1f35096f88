"""The filter: played by an interpreter of its own, and by the kernel."""

from __future__ import annotations

import asyncio
import os
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_guest.process.reaper import Reaper
from parma_guest.process.spawn import Descriptors, Spawner
from parma_guest.process.vsock_filter import encode, program

X86_64, I386, X32_BIT = 0xC000003E, 0x40000003, 0x40000000
ALLOW, NO_FAMILY, NO_CALL, KILL = 0x7FFF0000, 0x50000 | 97, 0x50000 | 38, 0x80000000


def verdict(arch: int, number: int, argument: int = 0) -> int:
    """What the kernel's interpreter would answer (struct seccomp_data: nr, arch, ip, args)."""
    data = struct.pack("=IIQQ", number, arch, 0, argument & (2**64 - 1))
    accumulator, at = 0, 0
    instructions = program()
    while True:
        code, yes, no, operand = instructions[at]
        at += 1
        match code:
            case 0x20:
                accumulator = struct.unpack_from("=I", data, operand)[0]
            case 0x54:
                accumulator &= operand
            case 0x15:
                at += yes if accumulator == operand else no
            case 0x06:
                return operand
            case _:
                raise AssertionError(code)


@pytest.mark.parametrize(
    ("arch", "number", "argument", "wanted"),
    [
        (X86_64, 41, 40, NO_FAMILY),
        (X86_64, 41, 40 | 1 << 32, NO_FAMILY),  # the kernel takes the lower half
        (X86_64, 41, 1, ALLOW),
        (X86_64, 41, 2, ALLOW),
        (X86_64, 41, 40 << 32 | 2, ALLOW),
        (X86_64, 41 | X32_BIT, 40, NO_FAMILY),
        (X86_64, 41 | X32_BIT, 2, ALLOW),
        (X86_64, 425, 8, NO_CALL),
        (X86_64, 425 | X32_BIT, 8, NO_CALL),
        (X86_64, 359, 40, ALLOW),  # another call there
        (X86_64, 0, 40, ALLOW),
        (I386, 359, 40, NO_FAMILY),
        (I386, 359, 10, ALLOW),
        (I386, 102, 1, NO_FAMILY),  # socketcall(SYS_SOCKET)
        (I386, 102, 3, ALLOW),  # socketcall(SYS_CONNECT)
        (I386, 425, 8, NO_CALL),
        (I386, 41, 40, ALLOW),  # another call there
        (0xC00000B7, 41, 40, KILL),  # AArch64
    ],
)
def test_verdicts(arch: int, number: int, argument: int, wanted: int) -> None:
    assert verdict(arch, number, argument) == wanted


@given(number=st.integers(0, 2**32 - 1), argument=st.integers(0, 2**64 - 1))
def test_nothing_else_is_denied(number: int, argument: int) -> None:
    denied = verdict(X86_64, number, argument) != ALLOW
    plain = number & ~X32_BIT
    assert denied == (plain == 425 or (plain == 41 and argument & 0xFFFFFFFF == 40))


def test_every_jump_stays_inside_and_goes_forward() -> None:
    instructions = program()
    assert len(encode(instructions)) == 8 * len(instructions)
    for at, (code, yes, no, _) in enumerate(instructions):
        if code == 0x15:
            assert at + 1 + max(yes, no) < len(instructions)


_PROBE = """
import ctypes, errno, os, socket, sys
def attempt(family):
    try:
        socket.socket(family, socket.SOCK_STREAM).close()
        return 0
    except OSError as error:
        return error.errno
libc = ctypes.CDLL(None, use_errno=True)
ring = libc.syscall(425, 1, ctypes.create_string_buffer(256))
print(attempt(40), attempt(1), attempt(2), ring, ctypes.get_errno())
"""


async def test_children_of_the_spawner_are_under_it() -> None:
    reaper = Reaper(orphans=False)
    spawner = Spawner(reaper)
    ours, theirs = os.pipe()
    try:
        deadline = asyncio.get_running_loop().time() + 20
        how = await spawner.run(
            [sys.executable, "-c", _PROBE], Descriptors(theirs, theirs, 2), deadline
        )
        assert how.status == 0
        assert os.read(ours, 100).split() == [b"97", b"0", b"0", b"-1", b"38"]
    finally:
        os.close(ours)
        os.close(theirs)
        spawner.close()
        reaper.close()


async def test_without_the_filter_nothing_is_started() -> None:
    def fails() -> None:
        raise OSError("no filter")

    reaper = Reaper(orphans=False)
    spawner = Spawner(reaper, fails)
    try:
        with pytest.raises(Exception, match="nothing is started"):
            spawner.start(["/bin/true"], Descriptors(0, 1, 2))
    finally:
        spawner.close()
        reaper.close()
