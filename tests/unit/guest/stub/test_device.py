"""The stub's /dev/sev-guest: the driver's rounds, results and errors, and the CUSE messages around them."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.snp import psp_wire
from parma_api.snp.psp_wire import Answer
from parma_api.snp.report import SIZE
from parma_api.status import UnavailableError
from parma_guest.attest.sev_guest import SNP_GET_REPORT, read_response
from parma_guest.stub import device, fuse_wire, ioctls
from parma_guest.stub.fuse_wire import FuseError, Ioctl, Op
from parma_guest.stub.ioctls import GET_DERIVED_KEY, GET_EXT_REPORT, GET_REPORT, Ask, Done, Retry
from parma_guest.stub.session import Session

REPORT, TABLE = b"r" * SIZE, b"t" * 5000
REQUEST_AT, RESPONSE_AT, CERTS_AT, ARG = 0x1000, 0x2000, 0x3000, 0x500
UNSET = 0xFF


class Caller:
    """A program's memory, and the kernel that carries parts of it to and fro."""

    def __init__(self, command: int, request: bytes, version: int = 1) -> None:
        self.command = command
        self.memory = {REQUEST_AT: bytearray(request), RESPONSE_AT: bytearray(b"\xee" * 4000)}
        self.memory[CERTS_AT] = bytearray(b"\xee" * 16384)
        self.memory[ARG] = bytearray(struct.pack("<B7xQQQ", version, REQUEST_AT, RESPONSE_AT, 0))
        self.rounds = 0
        self.flags = 0
        self.disabled = False

    @property
    def exitinfo2(self) -> int:
        return int.from_bytes(self.memory[ARG][24:], "little")

    def run(self, answers: Callable[[psp_wire.Request], Answer]) -> int:
        """The ioctl's result."""
        reads: tuple[fuse_wire.Range, ...] = ()
        writes: tuple[fuse_wire.Range, ...] = ()
        while True:
            self.rounds += 1
            assert self.rounds < 6, "it asks for ever"
            data = b"".join(bytes(self.memory[at][:size]) for at, size in reads)
            out = sum(size for _, size in writes)
            step = ioctls.step(
                Ioctl(self.flags, self.command, ARG, out, data), disabled=self.disabled
            )
            if isinstance(step, Ask):
                given = [answers(request) for request in step.requests]
                bad = next((answer.exitinfo2 for answer in given if answer.exitinfo2), 0)
                step = step.failed(bad) if bad else step.finish(tuple(given))
            if isinstance(step, Done):
                self.disabled |= step.disable
                self._write(step.data, writes)
                return step.result
            reads, writes = step.reads, step.writes

    def _write(self, data: bytes, writes: tuple[fuse_wire.Range, ...]) -> None:
        assert len(data) <= sum(size for _, size in writes)
        for at, size in writes:
            part, data = data[:size], data[size:]
            self.memory[at][: len(part)] = part


def good(request: psp_wire.Request) -> Answer:
    match request:
        case psp_wire.ReportRequest(report_data=report_data):
            return Answer(0, 0, report_data + REPORT[64:])
        case psp_wire.CertificatesRequest():
            return Answer(0, 0, TABLE)
        case psp_wire.DerivedKeyRequest(fields=fields):
            return Answer(0, 0, bytes([fields]) * 32)


def report_request(data: bytes = b"d" * 64, vmpl: int = 0) -> bytes:
    return struct.pack("<64sI28x", data, vmpl)


def extended_request(length: int, address: int = CERTS_AT) -> bytes:
    return report_request() + struct.pack("<QI4x", address, length)


def test_the_numbers_are_the_kernels() -> None:
    numbers = [3 << 30 | 32 << 16 | ord("S") << 8 | n for n in range(3)]
    assert numbers == [GET_REPORT, GET_DERIVED_KEY, GET_EXT_REPORT]
    assert GET_REPORT == SNP_GET_REPORT


def test_a_report_in_three_rounds() -> None:
    caller = Caller(GET_REPORT, report_request())
    assert (caller.run(good), caller.rounds, caller.exitinfo2) == (0, 3, 0)
    assert read_response(bytes(caller.memory[RESPONSE_AT])) == b"d" * 64 + REPORT[64:]


def test_a_report_with_certificates_in_four_rounds() -> None:
    caller = Caller(GET_EXT_REPORT, extended_request(8192))
    assert (caller.run(good), caller.rounds) == (0, 4)
    assert read_response(bytes(caller.memory[RESPONSE_AT]))[:64] == b"d" * 64
    assert caller.memory[CERTS_AT][:8192] == TABLE.ljust(8192, b"\0")
    assert caller.memory[CERTS_AT][8192:] == b"\xee" * 8192
    assert bytes(caller.memory[REQUEST_AT]) == extended_request(8192)


@pytest.mark.parametrize(("length", "address"), [(4096, CERTS_AT), (0, CERTS_AT), (8192, 0)])
def test_too_little_room_says_how_much_is_needed(length: int, address: int) -> None:
    caller = Caller(GET_EXT_REPORT, extended_request(length, address))
    assert (caller.run(good), caller.exitinfo2) == (-errno.EIO, 1 << 32)
    assert caller.memory[REQUEST_AT][104:108] == (8192).to_bytes(4, "little")
    assert caller.memory[RESPONSE_AT] == b"\xee" * 4000
    assert not caller.disabled


def test_without_certificates_no_room_is_needed() -> None:
    caller = Caller(GET_EXT_REPORT, extended_request(0, 0))

    def answers(request: psp_wire.Request) -> Answer:
        bare = isinstance(request, psp_wire.CertificatesRequest)
        return Answer(0, 0, b"") if bare else good(request)

    assert caller.run(answers) == 0
    assert read_response(bytes(caller.memory[RESPONSE_AT]))[:64] == b"d" * 64


@pytest.mark.parametrize("length", [1, 100, 4095, 16385, 20480, 0xFFFFF000])
def test_lengths_that_the_driver_refuses(length: int) -> None:
    caller = Caller(GET_EXT_REPORT, extended_request(length))
    assert (caller.run(good), caller.exitinfo2) == (-errno.EINVAL, UNSET)


def test_a_derived_key() -> None:
    request = struct.pack("<I4xQII8s", 0, 9, 0, 0, bytes(8))
    caller = Caller(GET_DERIVED_KEY, request)
    assert caller.run(good) == 0
    assert caller.memory[RESPONSE_AT][:64] == bytes(32) + b"\x09" * 32
    assert caller.memory[RESPONSE_AT][64:] == b"\xee" * 3936


@pytest.mark.parametrize("command", [GET_REPORT, GET_DERIVED_KEY, GET_EXT_REPORT])
def test_a_refused_message_is_a_status_in_the_response(command: int) -> None:
    caller = Caller(command, extended_request(8192))
    assert caller.run(lambda _: Answer(0x16, 0, b"")) == 0
    assert caller.memory[RESPONSE_AT][:8] == struct.pack("<II", 0x16, 0)


@pytest.mark.parametrize("command", [GET_REPORT, GET_DERIVED_KEY, GET_EXT_REPORT])
def test_a_failed_firmware_disables_the_key(command: int) -> None:
    caller = Caller(command, extended_request(8192))
    assert caller.run(lambda _: Answer(0, 0x1234, b"")) == -errno.EIO
    assert (caller.exitinfo2, caller.disabled) == (0x1234, True)
    caller.rounds = 0
    assert (caller.run(good), caller.exitinfo2) == (-errno.ENOTTY, UNSET)


def test_version_zero_and_null_pointers() -> None:
    caller = Caller(GET_REPORT, report_request(), version=0)
    assert (caller.run(good), caller.exitinfo2) == (-errno.EINVAL, 0)
    for pointer in (8, 16):
        caller = Caller(GET_REPORT, report_request())
        caller.memory[ARG][pointer : pointer + 8] = bytes(8)
        assert (caller.run(good), caller.exitinfo2) == (-errno.EINVAL, UNSET)


def test_what_is_no_command() -> None:
    caller = Caller(0xC0205309, report_request())
    assert (caller.run(good), caller.exitinfo2) == (-errno.ENOTTY, UNSET)
    caller = Caller(GET_REPORT, report_request())
    caller.flags = fuse_wire.COMPAT
    assert (caller.run(good), caller.rounds) == (-errno.ENOTTY, 1)


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_no_bytes_of_a_caller_break_it(data: bytes, command: int, out: int) -> None:
    for one in (command, GET_REPORT, GET_EXT_REPORT, GET_DERIVED_KEY):
        assert isinstance(ioctls.step(Ioctl(0, one, ARG, out, data)), Retry | Done | Ask)


# The messages


def message(opcode: int, body: bytes = b"", unique: int = 7) -> bytes:
    return struct.pack("<IIQQIIIHH", 40 + len(body), opcode, unique, 1, 0, 0, 0, 0, 0) + body


def test_init() -> None:
    first = fuse_wire.decode(message(Op.CUSE_INIT, struct.pack("<IIII", 7, 41, 0, 1)))
    reply = fuse_wire.cuse_init(first, "sev-guest")
    assert struct.unpack_from("<IiQ", reply) == (len(reply), 0, 7)
    assert struct.unpack_from("<8I", reply, 16) == (7, 41, 0, 1, 65536, 65536, 0, 0)
    assert reply[16 + 72 :] == b"DEVNAME=sev-guest\0"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(39),
        message(Op.CUSE_INIT) + b"x",
        message(Op.CUSE_INIT),
        message(Op.CUSE_INIT, struct.pack("<IIII", 8, 0, 0, 1)),
        message(Op.CUSE_INIT, struct.pack("<IIII", 7, 41, 0, 0)),
        message(Op.OPEN, bytes(16)),
    ],
)
def test_a_kernel_that_speaks_otherwise(data: bytes) -> None:
    with pytest.raises(FuseError):
        fuse_wire.cuse_init(fuse_wire.decode(data), "sev-guest")


@given(st.binary(max_size=200))
def test_ioctl_messages_are_read_whole_or_refused(body: bytes) -> None:
    request = fuse_wire.decode(message(Op.IOCTL, body))
    try:
        ioctl = fuse_wire.decode_ioctl(request)
    except FuseError:
        return
    assert len(ioctl.data) == len(body) - 32


class Kernel:
    """The other end of the device's descriptor: one datagram is one message."""

    def __init__(self, processor: device.Processor) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.ours, theirs):
            end.setblocking(False)
        driver = device.SevGuestDevice(processor, busy_seconds=0.001)
        self.session = Session(os.dup(theirs.fileno()), driver.handle)
        theirs.close()

    async def say(self, opcode: int, body: bytes = b"", unique: int = 7) -> None:
        await asyncio.get_running_loop().sock_sendall(self.ours, message(opcode, body, unique))

    async def hear(self) -> tuple[int, int, bytes]:
        """unique, error, body."""
        data = await asyncio.wait_for(
            asyncio.get_running_loop().sock_recv(self.ours, fuse_wire.READ_SIZE), 10
        )
        length, error, unique = struct.unpack_from("<IiQ", data)
        assert length == len(data)
        return unique, error, data[16:]

    async def report(self, unique: int = 7) -> None:
        """The last round of SNP_GET_REPORT."""
        data = struct.pack("<B7xQQQ", 1, REQUEST_AT, RESPONSE_AT, 0) + report_request()
        head = struct.pack("<QIIQII", 0, 0, GET_REPORT, ARG, len(data), 32 + 4000)
        await self.say(Op.IOCTL, head + data, unique)


async def answer_well(request: psp_wire.Request) -> Answer:
    return good(request)


@pytest.fixture
async def kernel() -> AsyncIterator[Kernel]:
    made = Kernel(answer_well)
    yield made
    made.session.close()
    made.session.close()
    made.ours.close()


async def test_open_ioctl_close(kernel: Kernel) -> None:
    await kernel.say(Op.OPEN, bytes(8))
    assert await kernel.hear() == (7, 0, bytes(16))
    head = struct.pack("<QIIQII", 0, 0, GET_REPORT, ARG, 0, 0)
    await kernel.say(Op.IOCTL, head, 8)
    retry = struct.pack("<iIII4Q", 0, 4, 1, 1, ARG, 32, ARG, 32)
    assert await kernel.hear() == (8, 0, retry)
    await kernel.report(9)
    unique, error, body = await kernel.hear()
    assert (unique, error, body[:16]) == (9, 0, bytes(16))
    assert read_response(body[16 + 32 :])[:64] == b"d" * 64
    for opcode, result in ((Op.FLUSH, 0), (Op.RELEASE, 0), (Op.WRITE, -errno.ENOSYS), (99, -38)):
        await kernel.say(opcode)
        assert await kernel.hear() == (7, result, b"")


async def test_broken_messages_are_passed_over(kernel: Kernel) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(kernel.ours, b"broken")
    await kernel.say(Op.IOCTL, b"short")
    assert (await kernel.hear())[1] == -errno.EIO
    await kernel.say(Op.OPEN)
    assert (await kernel.hear())[1] == 0


async def test_an_interrupted_call_ends(kernel: Kernel) -> None:
    never = asyncio.Event()

    async def silent(_: psp_wire.Request) -> Answer:
        await never.wait()
        raise AssertionError

    other = Kernel(silent)
    await other.report(11)
    await other.say(Op.OPEN, unique=12)
    assert (await other.hear())[0] == 12
    await other.say(Op.INTERRUPT, struct.pack("<Q", 11))
    assert await other.hear() == (11, -errno.EINTR, b"")
    other.session.close()
    other.ours.close()


@pytest.mark.parametrize(("busy", "result"), [(3, 0), (1000, -errno.EIO)])
async def test_a_busy_host_is_asked_again(busy: int, result: int) -> None:
    asked = 0

    async def sometimes(request: psp_wire.Request) -> Answer:
        nonlocal asked
        asked += 1
        return Answer(0, psp_wire.HOST_BUSY, b"") if asked <= busy else good(request)

    kernel = Kernel(sometimes)
    await kernel.report()
    _, error, body = await kernel.hear()
    assert (error, struct.unpack_from("<i", body)[0]) == (0, result)
    assert asked == min(busy + 1, device.BUSY_ATTEMPTS + 1)
    kernel.session.close()
    kernel.ours.close()


async def test_a_processor_that_is_away() -> None:
    async def away(_: psp_wire.Request) -> Answer:
        raise UnavailableError("the stub PSP is gone")

    kernel = Kernel(away)
    await kernel.report()
    assert await kernel.hear() == (7, -errno.EIO, b"")
    kernel.session.close()
    kernel.ours.close()


async def test_callers_without_number_are_told_to_try_again() -> None:
    never = asyncio.Event()

    async def silent(_: psp_wire.Request) -> Answer:
        await never.wait()
        raise AssertionError

    kernel = Kernel(silent)
    for unique in range(65):
        await kernel.report(unique)
    assert await kernel.hear() == (64, -errno.EAGAIN, b"")
    kernel.session.close()
    await asyncio.sleep(0)
    kernel.ours.close()


async def test_the_session_ends_with_the_device(kernel: Kernel) -> None:
    fd = kernel.session._fd
    kernel.ours.close()
    kernel.session._readable()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
