"""The monitor's driver: the `qemu.qmp` library on a socket pair, with deadlines, a size limit and our errors.

Importing the library costs about 25 ms more than asyncio alone, so it is imported when the first VM starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING

from parma_shim.qmp import codec
from parma_shim.qmp.errors import (
    QmpClosedError,
    QmpCommandError,
    QmpProtocolError,
    QmpTimeoutError,
)

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

CONNECT_DEADLINE = 60.0
"""Seconds until QEMU's greeting; a loaded machine under TCG needs one or two."""
COMMAND_DEADLINE = 20.0


class Monitor:
    """One connected monitor, for any number of tasks.

    One command is on its way at a time. QEMU executes them one after the other anyway, and only so is the socket empty
    when a descriptor is sent: with unread commands in it the kernel may refuse the message (EAGAIN), and with half a
    command still in the library's buffer the descriptor's byte would fall into the middle of it.
    """

    def __init__(self, client: QMPClient, forget: Callable[[], None]) -> None:
        self._client = client
        self._forget = forget
        self._turn = asyncio.Lock()
        self._removals: dict[str, asyncio.Future[None]] = {}
        self.shutdown_reason: str | None = None
        """Why the guest ended, as QEMU's SHUTDOWN event told it."""

    async def run(self, command: codec.Command, deadline: float = COMMAND_DEADLINE) -> object:
        """QEMU's answer. Raises QmpCommandError, QmpTimeoutError, QmpProtocolError, QmpClosedError."""
        async with _translated(command.name, deadline), self._turn:
            return await self._execute(command)

    async def pass_descriptor(self, fd: int, fdset: int) -> None:
        """Puts a copy of `fd` into QEMU as `/dev/fdset/<fdset>`. Raises as `run`.

        QEMU keeps only the last descriptor that arrived, until a command takes it: no other may come between.
        """
        async with _translated("add-fd", COMMAND_DEADLINE), self._turn:
            self._client.send_fd_scm(fd)
            codec.parse_fdset(await self._execute(codec.add_fd(fdset)), fdset)

    async def remove_device(self, device: str, deadline: float = COMMAND_DEADLINE) -> None:
        """device_del, and wait until QEMU says that the device is gone. Raises as `run`."""
        done = asyncio.get_running_loop().create_future()
        self._removals[device] = done
        try:
            await self.run(codec.device_del(device), deadline)
            async with _translated("device_del", deadline):
                await done
        finally:
            del self._removals[device]

    async def _execute(self, command: codec.Command) -> object:
        return await self._client.execute(command.name, dict(command.arguments))

    async def close(self) -> None:
        """Ends the connection; QEMU itself runs on."""
        with contextlib.suppress(
            Exception
        ):  # whatever ended the connection was already told to the callers
            await self._client.disconnect()
        self._forget()
        self._abandon()

    def _abandon(self) -> None:
        for waiting in self._removals.values():
            if not waiting.done():
                waiting.set_exception(QmpClosedError("QEMU's monitor is closed"))

    def on_event(self, event: Mapping[str, object]) -> None:
        """Takes an event; unknown ones are nothing to us."""
        if event.get("event") == "DEVICE_DELETED":
            waiting = self._removals.get(codec.deleted_device(event) or "")
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
        elif event.get("event") == "SHUTDOWN":
            self.shutdown_reason = codec.shutdown_reason(event)


async def connect(sock: socket.socket, deadline: float = CONNECT_DEADLINE) -> Monitor:
    """Waits for QEMU's greeting on `sock`, which is the monitor's from now on. Raises as `Monitor.run`."""
    from qemu.qmp import EventListener, Message, QMPClient

    class Listener(EventListener):
        """Hands events on at once; the library's own listener keeps all of them for ever."""

        async def put(self, event: Message) -> None:
            monitor.on_event(event)

    client = QMPClient("parma", readbuflen=codec.MAX_MESSAGE)
    client.logger.setLevel(
        "CRITICAL"
    )  # it reports as errors what reaches our callers as exceptions
    listener = Listener()
    monitor = Monitor(client, lambda: client.remove_listener(listener))
    client.register_listener(listener)
    async with _translated("greeting", deadline):
        await client.connect(sock)
    return monitor


@contextlib.asynccontextmanager
async def _translated(what: str, deadline: float) -> AsyncIterator[None]:
    """A deadline, and the library's exceptions as ours."""
    from qemu.qmp import ConnectError, ExecInterruptedError, ExecuteError, QMPError, StateError

    try:
        async with asyncio.timeout(deadline):
            yield
    except TimeoutError as error:
        raise QmpTimeoutError(f"QEMU did not answer {what} within {deadline:g} s") from error
    except ExecuteError as error:
        reason = json.dumps(str(error))[1:-1][: codec.MAX_TEXT]
        raise QmpCommandError(f"QEMU refused {what}: {reason}") from error
    except (ExecInterruptedError, StateError, ConnectError, OSError, EOFError) as error:
        raise QmpClosedError(f"QEMU's monitor closed during {what}") from error
    except QMPError as error:
        raise QmpProtocolError(f"QEMU answered {what} with something malformed") from error
