"""A process's standard streams: carried between its pipes, or its terminal, and streams of the channel.

Bytes wait where their reader is slow: the channel's credit stops the pump, the full pipe stops the process. When the
process has ended, what it wrote is still carried off; a descendant that keeps the pipe open is waited for only as long
as bytes keep coming. Streams that the policy withholds lead nowhere, and say so once.
"""

from __future__ import annotations

import asyncio
import enum
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from parma_api.channel.stream import ByteStream, FdStream
from parma_api.status import InvalidArgumentError
from parma_guest.linux.errno import kernel_call
from parma_guest.process.background import Background
from parma_guest.process.pumps import Outlet, carry_in, carry_out, say_and_finish
from parma_guest.process.spawn import Descriptors

PIPE_SIZE: Final = 1 << 20
_SET_PIPE_SIZE: Final = 1031
"""F_SETPIPE_SZ, fcntl(2)."""
DRAIN: Final = 10.0
"""Seconds after which an end is told although a slow reader has not taken everything yet; nothing is lost by it."""
NOTICE: Final = b"parma: stdout withheld by policy\n"


class Access(enum.Enum):
    """What the policy says about a process's standard streams."""

    GRANTED = 1
    WITHHELD = 2


class Console(enum.Enum):
    """What a process has as its standard streams."""

    PIPES = 1
    TERMINAL = 2


@dataclass(frozen=True, slots=True)
class StreamIds:
    """Channel streams; 0: none."""

    stdin: int = 0
    stdout: int = 0
    stderr: int = 0


class Opener(Protocol):
    """The channel: `Mux.open`."""

    def __call__(self, stream_id: int, /) -> ByteStream: ...


class Stdio:
    """The standard streams of one process, from before it exists until it is forgotten."""

    def __init__(
        self,
        background: Background,
        opener: Opener,
        ids: StreamIds,
        access: Access,
        console: Console = Console.PIPES,
        owner: tuple[int, int] = (0, 0),
    ) -> None:
        """`owner`: user and group that the pipes belong to, so that the process may open them again.

        Raises InvalidArgumentError, KernelError, and what the channel raises for an id.
        """
        self._background, self._opener, self._owner = background, opener, owner
        self._child: list[int] = []
        self._streams: list[ByteStream] = []
        self._outputs: list[tuple[Outlet, ByteStream]] = []
        self._input: tuple[ByteStream, FdStream] | None = None
        self._pumps: list[asyncio.Task[None]] = []
        self._under_way = 0
        self._drained = asyncio.Event()
        self._drained.set()
        self._master: int | None = None
        self._terminal_streams: tuple[ByteStream | None, ByteStream | None] = (None, None)
        self.has_terminal = console is Console.TERMINAL and access is Access.GRANTED
        try:
            self.descriptors = self._open(ids, access)
        except BaseException:
            self.discard()
            raise

    def _open(self, ids: StreamIds, access: Access) -> Descriptors:
        null = self._null()
        if access is Access.WITHHELD:
            self._withhold(ids)
        elif self.has_terminal:
            if ids.stderr:
                raise InvalidArgumentError(
                    "a terminal has one output: the stream of stderr must be 0"
                )
            self._terminal_streams = (self._stream(ids.stdin), self._stream(ids.stdout))
        else:
            return Descriptors(
                self._pipe_in(ids.stdin, null),
                self._pipe_out(ids.stdout, null),
                self._pipe_out(ids.stderr, null),
            )
        return Descriptors(null, null, null)

    def _withhold(self, ids: StreamIds) -> None:
        if (stream := self._stream(ids.stdin)) is not None:
            stream.abort()
        for stream_id, text in ((ids.stdout, NOTICE), (ids.stderr, b"")):
            if (stream := self._stream(stream_id)) is not None:
                self._pumps.append(self._background.spawn(say_and_finish(stream, text), "notice"))

    def _stream(self, stream_id: int) -> ByteStream | None:
        if not stream_id:
            return None
        stream = self._opener(stream_id)
        self._streams.append(stream)
        return stream

    def _null(self) -> int:
        with kernel_call("open", os.devnull):
            fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._child.append(fd)
        return fd

    def _pipe_in(self, stream_id: int, null: int) -> int:
        stream = self._stream(stream_id)
        if stream is None:
            return null
        theirs, ours = self._pipe()
        self._child.append(theirs)
        self._input = (stream, FdStream(ours, ours))
        return theirs

    def _pipe_out(self, stream_id: int, null: int) -> int:
        stream = self._stream(stream_id)
        if stream is None:
            return null
        ours, theirs = self._pipe()
        self._child.append(theirs)
        self._outputs.append((Outlet(ours), stream))
        return theirs

    def _pipe(self) -> tuple[int, int]:
        import fcntl

        with kernel_call("pipe"):
            ends = os.pipe2(os.O_CLOEXEC)
            for end in ends:
                os.fchown(end, *self._owner)
        with suppress(OSError):  # above the user's limit: the usual size does as well
            fcntl.fcntl(ends[0], _SET_PIPE_SIZE, PIPE_SIZE)
        return ends

    def attach_terminal(self, master: int, size: tuple[int, int] = (0, 0)) -> None:
        """The terminal that crun made; owned from now on."""
        self._master = master
        if all(size):
            self.resize(*size)
        stdin, stdout = self._terminal_streams
        if stdout is not None:
            self._outputs.append((Outlet(os.dup(master)), stdout))
        if stdin is not None:
            end = os.dup(master)
            self._input = (stdin, FdStream(end, end))

    def child_started(self) -> None:
        """The child has its own copies: close ours, and start carrying."""
        self._close_child_side()
        for outlet, stream in self._outputs:
            self._under_way += 1
            self._drained.clear()
            self._pump(carry_out(outlet, stream, self._one_done), "stdout", outlet.close)
        if self._input is not None:
            stream, target = self._input
            self._pump(carry_in(stream, target), "stdin", target.abort)

    def _pump(self, work: Coroutine[Any, Any, None], name: str, close: Callable[[], None]) -> None:
        """`close` not inside the task: one that is cancelled before its first step never gets there."""
        task = self._background.spawn(work, name)
        task.add_done_callback(lambda _: close())
        self._pumps.append(task)

    def _one_done(self) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._drained.set()

    def resize(self, width: int, height: int) -> None:
        """A terminal's size; nothing where there is none. Raises KernelError."""
        from parma_guest.process.console import resize

        if self._master is not None:
            resize(self._master, width, height)

    async def drain(self) -> None:
        """After the process's end: return when its output is carried off, or DRAIN seconds later."""
        for outlet, _ in self._outputs:
            outlet.process_ended()
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN):
                await self._drained.wait()
        if self._input is not None:
            self._input[0].abort()
        if self._master is not None:
            os.close(self._master)
            self._master = None

    def discard(self) -> None:
        """Drop everything at once: the process never came to be, or its container is forgotten. Idempotent."""
        self._close_child_side()
        if not self._pumps:  # else they own the descriptors
            for outlet, _ in self._outputs:
                outlet.close()
            if self._input is not None:
                self._input[1].abort()
        for pump in self._pumps:
            pump.cancel()
        for stream in self._streams:
            stream.abort()
        if self._master is not None:
            os.close(self._master)
        self._outputs, self._input, self._streams, self._pumps = [], None, [], []
        self._master = None

    def _close_child_side(self) -> None:
        while self._child:
            os.close(self._child.pop())
