"""Standard streams end to end through the channel. Numbers: reference/containerd.md 6.1."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from parma_api.gen.containerd.task import v2
from parma_api.status import Code, InvalidArgumentError, RemoteError
from parma_shim.io import fifo
from parma_shim.io.target import Binary, Fifo, LogFile, Null, StdioPaths, parse_target
from tests.fakes.rig import Rig, read_all, rig


@pytest.fixture
async def shim(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        ("", Null()),
        ("/run/f", Fifo("/run/f")),
        ("fifo:///run/f", Fifo("/run/f")),
        ("file:///a%20b?x=y", LogFile("/a b")),
        ("binary:///l?k=v&flag=", Binary("/l", ("k", "v", "flag"), must_signal=False)),
        ("binary-v2:///l", Binary("/l", (), must_signal=True)),
    ],
)
def test_targets(uri: str, target: object) -> None:
    assert parse_target(uri) == target


@pytest.mark.parametrize(
    "uri", ["ttrpc+unix:///s?streaming_id=1", "relative", "http://x/y", "file://", "/" + "x" * 5000]
)
def test_27_what_is_not_offered(uri: str) -> None:
    with pytest.raises(InvalidArgumentError):
        parse_target(uri)


def test_a_terminal_has_no_errors_of_its_own() -> None:
    assert StdioPaths("/i", "/o", "/e", terminal=True).targets() == (Fifo("/i"), Fifo("/o"), Null())


async def test_27_streams_apart_and_binary(shim: Rig) -> None:
    out, err = shim.fifo("out"), shim.fifo("err")
    reading = [asyncio.create_task(read_all(path)) for path in (out, err)]
    script = "printf '\\000\\377out'; printf err >&2"
    await shim.run("c", "sh", "-c", script, stdout=str(out), stderr=str(err))
    assert [await task for task in reading] == [b"\0\xffout", b"err"]
    assert await shim.finish("c") == 0


async def test_27_input_ends_only_when_asked(shim: Rig) -> None:
    into, out = shim.fifo("in"), shim.fifo("out")
    reading = asyncio.create_task(read_all(out))
    await shim.run("c", "cat", stdin=str(into), stdout=str(out))
    data = os.urandom(10 << 20)
    await asyncio.to_thread(into.write_bytes, data)
    state = await shim.task.state(v2.StateRequest(id="c"))
    assert state.stdin == str(into)
    assert not reading.done()
    await shim.task.close_io(v2.CloseIoRequest(id="c", stdin=True))
    assert await reading == data
    assert await shim.finish("c") == 0


async def test_27_a_reader_that_goes_and_comes_back(shim: Rig) -> None:
    out = shim.fifo("out")
    first = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    script = "printf one; read x; head -c 200000 /dev/zero"
    into = shim.fifo("in")
    await shim.run("c", "sh", "-c", script, stdin=str(into), stdout=str(out))
    os.set_blocking(first, True)
    assert await asyncio.to_thread(os.read, first, 3) == b"one"
    os.close(first)
    await asyncio.to_thread(into.write_bytes, b"go\n")
    await shim.task.wait(
        v2.WaitRequest(id="c")
    )  # the rest waits for the reader, in the shim and before
    assert await read_all(out) == bytes(200_000)
    assert await shim.finish("c") == 0


async def test_34_last_words_wait_for_a_reader_that_is_away(shim: Rig) -> None:
    out = shim.fifo("out")
    first = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    await shim.create("c", "echo", "the end", stdout=str(out))
    os.close(first)  # containerd is stopped
    await shim.task.start(v2.StartRequest(id="c"))
    await shim.task.wait(v2.WaitRequest(id="c"))
    await shim.sink.until("exit")
    assert await read_all(out) == b"the end\n"
    assert await shim.finish("c") == 0


async def test_28_last_words_that_nobody_wants(shim: Rig) -> None:
    out = shim.fifo("out")
    first = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    await shim.run("c", "echo", "the end", stdout=str(out))
    os.close(first)
    async with asyncio.timeout(4):
        assert await shim.finish("c") == 0


async def test_27_terminal(shim: Rig) -> None:
    into, out = shim.fifo("in"), shim.fifo("out")
    reading = asyncio.create_task(read_all(out))
    script = "tty >/dev/null && stty size; echo err >&2; head -c 1048576 /dev/zero"
    await shim.create("c", "sh", "-c", script, stdin=str(into), stdout=str(out), terminal=True)
    await shim.task.resize_pty(v2.ResizePtyRequest(id="c", width=100, height=40))
    await shim.task.start(v2.StartRequest(id="c"))
    assert await reading == b"40 100\r\nerr\r\n" + bytes(1 << 20)
    assert await shim.finish("c") == 0


async def test_27_exec_in_a_terminal_of_a_wished_size(shim: Rig) -> None:
    await shim.run("c", "sleep", "60")
    out = shim.fifo("out")
    await shim.exec(
        "c", "e", "stty", "size", terminal=True, stdin=str(shim.fifo("in")), stdout=str(out)
    )
    await shim.task.resize_pty(v2.ResizePtyRequest(id="c", exec_id="e", width=7, height=5))
    reading = asyncio.create_task(read_all(out))
    await shim.task.start(v2.StartRequest(id="c", exec_id="e"))
    assert await reading == b"5 7\r\n"
    assert await shim.finish("c", "e") == 0


async def test_27_input_that_ends_while_the_process_is_started(shim: Rig) -> None:
    await shim.run("c", "sleep", "60")
    into, out = shim.fifo("in"), shim.fifo("out")
    await shim.exec("c", "e", "cat", stdin=str(into), stdout=str(out))
    reading = asyncio.create_task(read_all(out))
    writing = asyncio.create_task(asyncio.to_thread(into.write_bytes, b"all"))
    held = shim.behaviour.held["ExecProcess"] = asyncio.Event()
    starting = asyncio.create_task(shim.task.start(v2.StartRequest(id="c", exec_id="e")))
    await writing
    await shim.task.close_io(v2.CloseIoRequest(id="c", exec_id="e", stdin=True))
    held.set()
    await starting
    assert await reading == b"all"
    assert await shim.finish("c", "e") == 0


async def test_27_a_size_wished_while_the_process_is_started(shim: Rig) -> None:
    await shim.run("c", "sleep", "60")
    into, out = shim.fifo("in"), shim.fifo("out")
    script = "read line; stty size"
    await shim.exec("c", "e", "sh", "-c", script, terminal=True, stdin=str(into), stdout=str(out))
    reading = asyncio.create_task(read_all(out))
    held = shim.behaviour.held["ExecProcess"] = asyncio.Event()
    starting = asyncio.create_task(shim.task.start(v2.StartRequest(id="c", exec_id="e")))
    while "ExecProcess" not in shim.behaviour.methods():  # noqa: ASYNC110 -- the fake has no event for it
        await asyncio.sleep(0.01)
    await shim.task.resize_pty(v2.ResizePtyRequest(id="c", exec_id="e", width=7, height=5))
    held.set()
    await starting
    await asyncio.to_thread(into.write_bytes, b"\n")
    assert (await reading).endswith(b"5 7\r\n")
    assert await shim.finish("c", "e") == 0


async def test_27_a_file(shim: Rig) -> None:
    path = shim.folder / "logs/deep/file"
    uri = f"file://{path}"
    for _ in range(2):
        await shim.run("c", "sh", "-c", "echo o; echo e >&2", stdin=uri, stdout=uri, stderr=uri)
        await shim.finish("c")
    assert sorted(path.read_text().split()) == ["e", "e", "o", "o"]
    assert path.stat().st_mode & 0o777 == 0o644


async def test_27_a_program(shim: Rig) -> None:
    logger, log = shim.folder / "logger", shim.folder / "log"
    logger.write_text(
        f'#!/bin/sh\necho "$@ $CONTAINER_ID $CONTAINER_NAMESPACE" >{log}\nexec 5>&-\n'
        f"trap '' TERM\ncat <&3 >>{log}\ncat <&4 >>{log}\necho end >>{log}\n"
    )
    logger.chmod(0o755)
    uri = f"binary://{logger}?k=v"
    await shim.run("c", "sh", "-c", "echo o; echo e >&2", stdout=uri, stderr=uri)
    await shim.finish("c")
    async with asyncio.timeout(10):
        while "end" not in log.read_text():  # noqa: ASYNC110 -- another process's file
            await asyncio.sleep(0.01)
    assert log.read_text().splitlines() == ["k v c test", "o", "e", "end"]


async def test_27_a_program_that_is_never_ready(shim: Rig) -> None:
    with pytest.raises(RemoteError, match="cannot be started"):
        await shim.create("c", "true", stdout="binary:///no/such/program")
    with pytest.raises(RemoteError, match="ended before it was ready"):
        await shim.create("c", "true", stdout="binary-v2:///bin/true")
    assert shim.behaviour.machines == []


async def test_27_nobody_reads(shim: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    opening = fifo.open_output
    monkeypatch.setattr("parma_shim.io.stdio.open_output", lambda path: opening(path, 0.05))
    with pytest.raises(RemoteError, match="nobody has read it") as caught:
        await shim.create("c", "true", stdout=str(shim.fifo("out")))
    assert caught.value.code is Code.FAILED_PRECONDITION
    with pytest.raises(RemoteError, match="not found"):
        await shim.create("c", "true", stdout=str(shim.folder / "missing"))


async def test_28_streams_are_closed_before_delete_and_nothing_grows(shim: Rig) -> None:
    """K17: a hundred crash loops leave no descriptor."""
    await shim.run("keeper", "sleep", "600")
    before = 0
    for turn in range(101):
        out = shim.folder / "out"
        os.mkfifo(out)
        reading = asyncio.create_task(read_all(out))
        await shim.run("c", "sh", "-c", "echo x; exit 1", stdout=str(out))
        assert await reading == b"x\n"  # the end comes before Delete
        assert await shim.finish("c") == 1
        out.unlink()
        if turn == 1:
            before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208
    assert shim.group.pod is not None
    assert len(shim.group.pod._layers.users()) == 2
    assert len(asyncio.all_tasks()) < 40


async def test_28_many_execs(shim: Rig) -> None:
    await shim.run("c", "sleep", "600")
    before = 0
    for turn in range(100):
        await shim.exec("c", f"e{turn}", "true")
        await shim.task.start(v2.StartRequest(id="c", exec_id=f"e{turn}"))
        assert await shim.finish("c", f"e{turn}") == 0
        if turn == 1:
            before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208
    assert shim.group.tasks["c"].execs == {}


async def test_a_stalled_reader_stops_nobody_else(shim: Rig) -> None:
    stuck, out = shim.fifo("stuck"), shim.fifo("out")
    reader = os.open(stuck, os.O_RDONLY | os.O_NONBLOCK)
    await shim.run("a", "sh", "-c", "head -c 100000000 /dev/zero", stdout=str(stuck))
    reading = asyncio.create_task(read_all(out))
    await shim.run("b", "sh", "-c", "head -c 1000000 /dev/zero", stdout=str(out))
    assert await reading == bytes(1_000_000)
    assert await shim.finish("b") == 0
    await shim.task.kill(v2.KillRequest(id="a", signal=9))
    assert await shim.finish("a") == 137
    os.close(reader)
