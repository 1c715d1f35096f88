"""The standard streams of one process: opened on the host, named to the guest, relayed until both are done.

Life: `open` (waits for readers of FIFOs) -> `connect` (streams of the channel get ids) -> `relay` -> `drain` (what the
process wrote has reached the client, whose FIFO then is closed) -> `close`. Back pressure goes all the way: a FIFO that
nobody empties stops reading the channel's stream, and that its writer in the guest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Protocol, Self

from parma_api.channel.stream import ByteStream, StreamClosedError
from parma_shim.agent.client import Streams
from parma_shim.io.fifo import Input, Output, open_input, open_log, open_output
from parma_shim.io.logger import Logger, LoggerIdentity, start_logger
from parma_shim.io.target import Binary, Fifo, LogFile, StdioPaths, Target

log = logging.getLogger(__name__)


class Channel(Protocol):
    """The part of the multiplexer that is used here."""

    def next_id(self) -> int: ...

    def open(self, stream_id: int) -> ByteStream: ...


class ProcessStdio:
    """Made by `open`."""

    def __init__(self, *, terminal: bool) -> None:
        self.terminal = terminal
        self._stdin: Input | None = None
        self._stdout: Output | None = None
        self._stderr: Output | None = None
        self._loggers: list[Logger] = []
        self._streams: dict[str, ByteStream] = {}
        self._outputs: list[asyncio.Task[None]] = []
        self._input: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, paths: StdioPaths, identity: LoggerIdentity) -> Self:
        """Raises InvalidArgumentError, NotFoundError, FailedPreconditionError; then nothing stays open."""
        stdin, stdout, stderr = paths.targets()
        self = cls(terminal=paths.terminal)
        try:
            if isinstance(stdin, Fifo):
                self._stdin = open_input(stdin.path)
            await self._open_outputs(stdout, stderr, identity)
        except BaseException:
            await self.close()
            raise
        return self

    async def _open_outputs(self, stdout: Target, stderr: Target, identity: LoggerIdentity) -> None:
        if isinstance(stdout, Binary):
            logger = await start_logger(stdout, identity)
            self._loggers.append(logger)
            self._stdout, self._stderr = logger.stdout, logger.stderr
            return
        self._stdout = await _open_one(stdout)
        same = stderr == stdout
        self._stderr = self._stdout if same else await _open_one(stderr)

    def connect(self, channel: Channel) -> Streams:
        """Opens a stream of the channel for each that is used. Raises ResourceExhaustedError, StreamClosedError."""
        used = {
            "stdin": self._stdin is not None,
            "stdout": self._stdout is not None,
            "stderr": self._stderr is not None and not self.terminal,
        }
        ids = {}
        for name in (name for name, wanted in used.items() if wanted):
            ids[name] = channel.next_id()
            self._streams[name] = channel.open(ids[name])
        return Streams(**ids)

    def relay(self) -> None:
        """Starts moving bytes."""
        for name, output in (("stdout", self._stdout), ("stderr", self._stderr)):
            stream = self._streams.get(name)
            if stream is not None and output is not None:
                work = _pump_out(stream, output)
                self._outputs.append(asyncio.create_task(work, name=name))
        stream = self._streams.get("stdin")
        if stream is not None and self._stdin is not None:
            self._input = asyncio.create_task(_pump_in(self._stdin, stream), name="stdin")

    def close_stdin(self) -> None:
        """CloseIO."""
        if self._stdin is not None:
            self._stdin.release_writer()

    async def drain(self, seconds: float | None) -> None:
        """Waits until all output has arrived, and closes the client's ends. Idempotent.

        With `seconds`: no longer than that, and for what the guest has sent only: the client has said that it is done.
        """
        if self._outputs:
            _, late = await asyncio.wait(self._outputs, timeout=seconds)
            if late:
                log.warning("output was not drained in time: the rest is dropped")
        if seconds is None:
            for output in (self._stdout, self._stderr):
                if output is not None:
                    await output.emptied()
        await self._stop()
        for output in (self._stdout, self._stderr):
            if output is not None:
                output.close()
        if self._stdin is not None:
            self._stdin.close()

    async def close(self) -> None:
        """Drops everything; a logging program gets its time to end."""
        await self.drain(0)
        loggers, self._loggers = self._loggers, []
        for logger in loggers:
            await logger.close()

    async def _stop(self) -> None:
        tasks = [*self._outputs, *([self._input] if self._input is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for stream in self._streams.values():
            stream.abort()
        self._streams.clear()
        self._outputs, self._input = [], None


async def _open_one(target: Target) -> Output | None:
    match target:
        case Fifo(path):
            return await open_output(path)
        case LogFile(path):
            return open_log(path)
        case _:
            return None


async def _pump_out(stream: ByteStream, output: Output) -> None:
    """Guest to client. A client's file that fails (full disk) loses output, and never stops the process."""
    lost = False
    with contextlib.suppress(StreamClosedError):
        await stream.finish()
        while data := await stream.read():
            if lost:
                continue
            try:
                await output.write(data)
            except StreamClosedError as error:
                log.warning("output is lost from here on: %s", error.message)
                lost = True


async def _pump_in(source: Input, stream: ByteStream) -> None:
    """Client to guest. The guest closes the stream when its process does, or the policy withholds it."""
    with contextlib.suppress(StreamClosedError):
        while data := await source.read():
            await stream.write(data)
        await stream.finish()
