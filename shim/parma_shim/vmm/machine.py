"""A utility VM: started, plugged into, watched, stopped.

`start_machine` returns as soon as QEMU's process exists. The channel can be written to at once (the guest reads it when
it is up), and `attach_disk` waits for the monitor by itself, so layers can be plugged in while the kernel boots.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import stat
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from parma_api.channel.stream import ByteStream, SocketStream
from parma_api.status import ApiError, UnavailableError
from parma_shim.qmp import client as qmp
from parma_shim.qmp import codec
from parma_shim.vmm import cmdline, vsock
from parma_shim.vmm.cmdline import Slot
from parma_shim.vmm.config import MachineConfig
from parma_shim.vmm.console import Console
from parma_shim.vmm.disks import DiskAccess, Disks, ScsiAddress
from parma_shim.vmm.errors import BootFailureError, VmmGoneError, VmmSetupError
from parma_shim.vmm.process import Process, spawn

__all__ = ["DiskAccess", "Machine", "MachineExit", "ScsiAddress", "start_machine"]

log = logging.getLogger(__name__)

QUIT_DEADLINE = 2.0
"""Seconds that QEMU has to end by itself; its guest has been told by then, and nothing on its disks outlives it."""

REAP_DEADLINE = 0.5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MachineExit:
    """The end of a machine."""

    status: int
    """QEMU's exit status, or 128 and the signal."""
    cause: str
    """One line: how QEMU ended, why it says it did, and the last words of QEMU and of the guest's console."""


class Machine:
    """One running QEMU. Made by `start_machine`; `stop` must be called in the end."""

    def __init__(
        self, process: Process, console: Console, channel: ByteStream, monitor: socket.socket
    ) -> None:
        self._process = process
        self._console = console
        self.channel = channel
        """The agent's channel as raw bytes: our end of the port `parma.channel`, or vsock. `stop` aborts it."""
        self._monitor = asyncio.create_task(qmp.connect(monitor), name="qmp")
        self._disks: Disks | None = None
        self._watch = asyncio.create_task(self._watch_end(), name="vm-watch")

    @property
    def pid(self) -> int:
        """QEMU's process id, and the one that containerd sees for the sandbox."""
        return self._process.pid

    def console_tail(self) -> str:
        """The end of the guest's console: at most 64 KiB, printable."""
        return self._console.ring.tail()

    async def attach_disk(self, fd: int, *, access: DiskAccess) -> ScsiAddress:
        """Hot-plugs the file behind `fd` (which stays the caller's) and tells where it is.

        Raises VmmGoneError with the cause when the VM ends meanwhile, else what `Disks.attach` raises.
        """
        return await self._or_end(self._attach(fd, access))

    async def detach_disk(self, address: ScsiAddress) -> None:
        """Takes a disk out. Raises as `attach_disk`, and NotFoundError."""
        await self._or_end(self._detach(address))

    async def query_status(self) -> str:
        """QEMU's run state. Raises as `attach_disk`."""
        monitor = await asyncio.shield(self._monitor)
        return codec.parse_status(await self._or_end(monitor.run(codec.query_status())))

    async def wait(self) -> MachineExit:
        """The end of the VM, however it comes; may be awaited by many."""
        return await asyncio.shield(self._watch)

    async def until_answer(self, answer: Awaitable[T], deadline: float) -> T:
        """`answer`, the agent's first; raises BootFailureError if the VM ends or `deadline` seconds pass before."""
        try:
            async with asyncio.timeout(deadline):
                return await self._or_end(answer)
        except VmmGoneError as error:
            raise BootFailureError(error.message) from error
        except TimeoutError as error:
            raise BootFailureError(f"no answer in {deadline:g} s; {self._last_words()}") from error

    async def stop(self) -> MachineExit:
        """Ends QEMU, politely for two seconds, and frees what belongs to it. Idempotent."""
        if self._process.exited is None:
            with contextlib.suppress(TimeoutError, ApiError):
                async with asyncio.timeout(QUIT_DEADLINE):
                    monitor = await asyncio.shield(self._monitor)
                    await monitor.run(codec.quit_())
                    await self._process.wait()
            self._process.kill(signal.SIGKILL)
        self.channel.abort()
        return await self.wait()

    async def _attach(self, fd: int, access: DiskAccess) -> ScsiAddress:
        return await (await self._ready_disks()).attach(fd, access)

    async def _detach(self, address: ScsiAddress) -> None:
        await (await self._ready_disks()).detach(address)

    async def _ready_disks(self) -> Disks:
        monitor = await asyncio.shield(self._monitor)
        if self._disks is None:
            self._disks = Disks(monitor, cmdline.SCSI_BUS)
        return self._disks

    async def _or_end(self, work: Awaitable[T]) -> T:
        """`work`, or VmmGoneError as soon as the VM ends: QEMU's death closes the monitor too, without a cause."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait((task, self._watch), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.done() and not task.cancelled() and task.exception() is None:
            return task.result()
        if not self._watch.done():
            if not task.cancelled() and not isinstance(task.exception(), UnavailableError):
                return task.result()
            # Monitor and channel close some milliseconds before the process is reaped.
            await asyncio.wait((self._watch,), timeout=REAP_DEADLINE)
            if not self._watch.done():
                return task.result()
        task.cancel()
        await asyncio.wait((task,))
        raise VmmGoneError(f"the utility VM has ended: {self._watch.result().cause}")

    async def _watch_end(self) -> MachineExit:
        ended = await self._process.wait()
        self._console.drain()
        reason = await self._close_monitor()
        self._console.close()
        status = 128 + ended.signal if ended.signal is not None else ended.status
        why = f" ({reason})" if reason else ""
        machine_exit = MachineExit(status, f"QEMU {ended}{why}; {self._last_words()}")
        log.info("machine %d ended: %s", self.pid, machine_exit.cause)
        return machine_exit

    async def _close_monitor(self) -> str | None:
        """Why the guest ended, if QEMU said so.

        A monitor that was not up yet sees the end of its socket by itself; cancelled amid that, the library would call
        it a bug of its own.
        """
        await asyncio.wait((self._monitor,), timeout=QUIT_DEADLINE)
        if not self._monitor.done():
            self._monitor.cancel()
            return None
        if self._monitor.cancelled() or self._monitor.exception() is not None:
            return None
        monitor = self._monitor.result()
        await monitor.close()
        return monitor.shutdown_reason

    def _last_words(self) -> str:
        said = self._process.stderr.last_line() or "nothing"
        console = self._console.ring.last_line() or "nothing"
        return f"QEMU's last words: {said}; the console's: {console}"


async def start_machine(config: MachineConfig) -> Machine:
    """Starts QEMU from the main thread. Raises VmmSetupError, VmmError, InvalidArgumentError."""
    if not os.access(config.qemu, os.X_OK):
        raise VmmSetupError(
            f"{config.qemu} is not there: apt install qemu-system-x86, or set `qemu` in config.toml"
        )
    words = cmdline.argv(config)
    with contextlib.ExitStack() as stack:
        theirs: dict[int, int] = {}
        ours: dict[Slot, socket.socket] = {}
        with contextlib.ExitStack() as undo:
            for slot in (Slot.QMP, Slot.CONSOLE, Slot.CHANNEL):
                near, far = socket.socketpair()
                near.setblocking(False)  # noqa: FBT003 -- the socket module's signature
                ours[slot] = undo.enter_context(near)
                theirs[slot] = stack.enter_context(far).fileno()
            for slot, file in cmdline.boot_files(config).items():
                theirs[slot] = _open(stack, config, slot, str(file.path))
            theirs |= _passed(config)
            process = spawn(words, theirs, privileges=config.privileges, cgroups=config.cgroups)
            undo.pop_all()
    size = f"{config.size.vcpus} vCPU, {config.memory_mib} MiB"
    log.info("machine %d started: %s, %s", process.pid, config.accelerator, size)
    console = Console(ours[Slot.CONSOLE], process.pid)
    return Machine(process, console, _channel(config, ours[Slot.CHANNEL]), ours[Slot.QMP])


def _channel(config: MachineConfig, port: socket.socket) -> ByteStream:
    if config.vsock is None:
        return SocketStream(port)
    port.close()
    guest_cid = config.vsock.guest_cid
    return vsock.DialledStream(lambda: vsock.dial(guest_cid))


def _passed(config: MachineConfig) -> dict[int, int]:
    """Descriptors that the caller brought."""
    given = {
        Slot.TAP: config.tap_fd,
        Slot.PSP: config.psp_fd,
        Slot.VSOCK: config.vsock.fd if config.vsock is not None else None,
    }
    return {slot: fd for slot, fd in given.items() if fd is not None}


def _open(stack: contextlib.ExitStack, config: MachineConfig, slot: Slot, path: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise VmmSetupError(
            f"{path} cannot be read: {error.strerror}; build the image with `make uvm`"
        ) from error
    stack.callback(os.close, fd)
    # The root file is used as the open descriptor; the others QEMU opens anew through /proc, as its own user.
    readable = os.fstat(fd).st_mode & stat.S_IROTH
    if slot is not Slot.ROOT and config.privileges is not None and not readable:
        raise VmmSetupError(
            f"{path} must be readable by others, because QEMU runs without privileges: chmod o+r"
        )
    return fd
