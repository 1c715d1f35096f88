"""The stub's configfs-tsm: requests as directories, and the file system messages that carry them."""

from __future__ import annotations

import asyncio
import errno
import stat
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.snp import psp_wire
from parma_api.snp.psp_wire import Answer
from parma_api.status import ApiError
from parma_guest.stub import tsm_tree
from parma_guest.stub.fuse_wire import Op, RefusedError, Request
from parma_guest.stub.tsm_mount import REPORT, ROOT, TSM, TsmFileSystem
from parma_guest.stub.tsm_tree import Attribute, Entry, Tree


class Processor:
    """Repeats what it is asked, and counts."""

    def __init__(self, *, exitinfo2: int = 0) -> None:
        self.exitinfo2, self.asked = exitinfo2, 0

    async def ask(self, request: psp_wire.Request) -> Answer:
        if self.exitinfo2:
            return Answer(0, self.exitinfo2, b"")
        if isinstance(request, psp_wire.ReportRequest):
            self.asked += 1
            return Answer(0, 0, request.report_data + bytes([request.vmpl]))
        return Answer(0, 0, b"table")


async def fails(number: int, entry: Entry, attribute: Attribute, processor: Processor) -> None:
    with pytest.raises(RefusedError) as caught:
        await entry.read(attribute, processor.ask)
    assert caught.value.number == number


async def test_a_report_is_made_once_for_each_generation() -> None:
    entry, processor = Entry(1), Processor()
    await fails(errno.EINVAL, entry, Attribute.OUTBLOB, processor)
    entry.write(Attribute.INBLOB, b"d" * 64)
    for _ in range(2):
        assert await entry.read(Attribute.OUTBLOB, processor.ask) == b"d" * 64 + b"\0"
        assert await entry.read(Attribute.AUXBLOB, processor.ask) == b"table"
    assert processor.asked == 1
    entry.write(Attribute.PRIVLEVEL, b"0x2\n")
    assert await entry.read(Attribute.OUTBLOB, processor.ask) == b"d" * 64 + b"\2"
    assert (processor.asked, await entry.read(Attribute.GENERATION, processor.ask)) == (2, b"2\n")
    assert await entry.read(Attribute.PROVIDER, processor.ask) == b"sev_guest\n"
    assert await entry.read(Attribute.PRIVLEVEL_FLOOR, processor.ask) == b"0\n"


async def test_what_a_report_is_not_made_of() -> None:
    entry = Entry(1)
    for size in (1, 63):
        entry.write(Attribute.INBLOB, bytes(size))
        await fails(errno.EINVAL, entry, Attribute.OUTBLOB, Processor())
    entry.write(Attribute.INBLOB, bytes(64))
    await fails(errno.EIO, entry, Attribute.OUTBLOB, Processor(exitinfo2=5))
    await fails(errno.EACCES, entry, Attribute.INBLOB, Processor())


@pytest.mark.parametrize("text", [b"4", b"-1", b"", b"x", b"1 ", b"\xff", b"1\n\n"])
def test_levels_that_there_are_not(text: bytes) -> None:
    entry = Entry(1)
    with pytest.raises(RefusedError) as caught:
        entry.write(Attribute.PRIVLEVEL, text)
    assert (caught.value.number, entry.generation) == (errno.EINVAL, 0)


def test_a_generation_does_not_wrap() -> None:
    entry = Entry(1, generation=2**64 - 1)
    with pytest.raises(RefusedError) as caught:
        entry.write(Attribute.INBLOB, bytes(64))
    assert caught.value.number == errno.EBUSY


def test_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tsm_tree, "MAX_ENTRIES", 2)
    tree = Tree()
    first = tree.make("a")
    for name, number in (("a", errno.EEXIST),):
        with pytest.raises(RefusedError) as caught:
            tree.make(name)
        assert caught.value.number == number
    tree.make("b")
    with pytest.raises(RefusedError) as caught:
        tree.make("c")
    assert caught.value.number == errno.ENOSPC
    tree.remove("a")
    with pytest.raises(RefusedError) as caught:
        tree.remove("a")
    assert caught.value.number == errno.ENOENT
    assert tree.make("a").number > first.number, "an old node is never the new entry"


# The file system


class Mounted:
    """A file system, spoken to as the kernel does."""

    def __init__(self) -> None:
        self.processor = Processor()
        self.fs = TsmFileSystem(self.processor.ask)

    async def do(self, op: int, node: int, body: bytes = b"") -> bytes:
        return await self.fs.handle(Request(op, 1, node, body)) or b""

    async def refuses(self, op: int, node: int, body: bytes = b"") -> int:
        with pytest.raises(RefusedError) as caught:
            await self.do(op, node, body)
        return caught.value.number

    async def lookup(self, node: int, name: str) -> int:
        body = await self.do(Op.LOOKUP, node, name.encode() + b"\0")
        assert len(body) == 128
        return int.from_bytes(body[:8], "little")

    async def make(self, name: str = "mine") -> int:
        body = await self.do(Op.MKDIR, REPORT, bytes(8) + name.encode() + b"\0")
        return int.from_bytes(body[:8], "little")

    async def open(self, entry: int, name: str) -> int:
        body = await self.do(Op.OPEN, await self.lookup(entry, name), bytes(8))
        assert struct.unpack("<QII", body)[1] == 1, "direct: nothing is cached"
        return int.from_bytes(body[:8], "little")

    async def read(self, entry: int, name: str, offset: int = 0, size: int = 4096) -> bytes:
        handle = await self.open(entry, name)
        data = await self.do(Op.READ, 0, struct.pack("<QQI20x", handle, offset, size))
        await self.do(Op.RELEASE, 0, struct.pack("<Q16x", handle))
        return data

    async def write(self, handle: int, data: bytes, offset: int = 0) -> int:
        head = struct.pack("<QQIIQII", handle, offset, len(data), 0, 0, 0, 0)
        return int.from_bytes((await self.do(Op.WRITE, 0, head + data))[:4], "little")

    async def names(self, node: int, size: int = 4096) -> list[str]:
        found: list[str] = []
        while body := await self.do(Op.READDIR, node, struct.pack("<QQI20x", 0, len(found), size)):
            while body:
                _, place, length, _ = struct.unpack_from("<QQII", body)
                found.append(body[24 : 24 + length].decode())
                assert place == len(found)
                body = body[-(-(24 + length) // 8) * 8 :]
        return found


async def test_init() -> None:
    body = await Mounted().do(Op.INIT, 0, struct.pack("<IIII", 7, 41, 0, 0))
    assert (len(body), struct.unpack_from("<II", body)) == (64, (7, 31))
    assert await Mounted().refuses(Op.INIT, 0, bytes(16)) == errno.EPROTO


async def test_the_shape() -> None:
    mounted = Mounted()
    assert await mounted.lookup(ROOT, "tsm") == TSM
    assert await mounted.lookup(TSM, "report") == REPORT
    entry = await mounted.make()
    assert await mounted.lookup(REPORT, "mine") == entry
    for node, names in ((ROOT, ["tsm"]), (TSM, ["report"]), (REPORT, ["mine"])):
        assert await mounted.names(node) == [".", "..", *names]
    assert await mounted.names(entry, size=64) == [".", "..", *(str(a) for a in Attribute)]
    for attribute in Attribute:
        node = await mounted.lookup(entry, str(attribute))
        mode = int.from_bytes((await mounted.do(Op.GETATTR, node))[16 + 60 :][:4], "little")
        assert (stat.S_ISREG(mode), stat.S_IMODE(mode)) == (True, attribute.mode)
    assert await mounted.refuses(Op.LOOKUP, REPORT, b"other\0") == errno.ENOENT
    await mounted.do(Op.RMDIR, REPORT, b"mine\0")
    assert await mounted.refuses(Op.GETATTR, entry) == errno.ENOENT


async def test_a_blob_is_taken_at_the_close() -> None:
    mounted = Mounted()
    entry = await mounted.make()
    handle = await mounted.open(entry, "inblob")
    assert await mounted.write(handle, b"x" * 32) == 32
    assert await mounted.write(handle, b"y" * 32, 32) == 32
    assert await mounted.read(entry, "generation") == b"0\n"
    for op in (Op.FLUSH, Op.FLUSH, Op.RELEASE):
        await mounted.do(op, 0, struct.pack("<Q16x", handle))
    assert await mounted.read(entry, "generation") == b"1\n"
    assert await mounted.read(entry, "outblob", 30, 4) == b"xxyy"
    assert await mounted.read(entry, "outblob", 9999) == b""
    assert await mounted.refuses(Op.FLUSH, 0, struct.pack("<Q16x", handle)) == errno.EBADF


async def test_too_long_a_blob() -> None:
    mounted = Mounted()
    handle = await mounted.open(await mounted.make(), "inblob")
    for data, offset in ((bytes(65), 0), (b"x", 64), (b"x", 2**63)):
        with pytest.raises(RefusedError) as caught:
            await mounted.write(handle, data, offset)
        assert caught.value.number == errno.EFBIG
    await mounted.write(handle, b"z", 63)
    await mounted.do(Op.FLUSH, 0, struct.pack("<Q16x", handle))
    assert mounted.fs.tree.entries["mine"].inblob == bytes(63) + b"z"


async def test_what_is_not_done_here() -> None:
    mounted = Mounted()
    entry = await mounted.make()
    name = bytes(8) + b"x\0"
    assert await mounted.refuses(Op.MKDIR, ROOT, name) == errno.EPERM
    assert await mounted.refuses(Op.MKDIR, entry, name) == errno.EPERM
    assert await mounted.refuses(Op.RMDIR, TSM, b"report\0") == errno.EPERM
    assert await mounted.refuses(Op.OPEN, entry, bytes(8)) == errno.EISDIR
    assert await mounted.refuses(Op.LOOKUP, entry + 1, b"x\0") == errno.ENOTDIR
    assert await mounted.refuses(Op.GETATTR, entry + 12) == errno.ENOENT
    assert await mounted.refuses(Op.SETATTR, entry, struct.pack("<I84x", 1)) == errno.EPERM
    assert await mounted.do(Op.SETATTR, entry + 1, struct.pack("<I84x", 8))
    assert await mounted.refuses(35, REPORT, name) == errno.EPERM
    assert await mounted.refuses(22, REPORT) == errno.ENOSYS
    assert await mounted.refuses(Op.MKDIR, REPORT, bytes(8) + b"\xff\0") == errno.EINVAL
    assert len(await mounted.do(Op.STATFS, ROOT)) == 80


@given(st.sampled_from([*Op, 8, 22, 35, 99]), st.integers(0, 64), st.binary(max_size=120))
def test_no_message_breaks_it(op: int, node: int, body: bytes) -> None:
    async def once() -> None:
        mounted = Mounted()
        await mounted.make()
        try:
            await mounted.do(op, node, body)
        except (RefusedError, ApiError):
            return

    asyncio.run(once())
