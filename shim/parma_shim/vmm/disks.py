"""SCSI disks of a running machine: which unit number is free, plugging and unplugging.

One controller, target 0, units 0 to 255. More units exist in QEMU (16383), but from 256 on Linux' virtio_scsi takes the
number out of a hot-plug event with its encoding bits (drivers/scsi/virtio_scsi.c, virtscsi_handle_transport_reset), so
disks would appear under other numbers. 256 hold two images of 127 layers and the scratch; layers that containers of a
pod share are attached once.
"""

from __future__ import annotations

import contextlib
import enum
from dataclasses import dataclass, field

from parma_api.status import ApiError, NotFoundError, ResourceExhaustedError
from parma_shim.qmp import codec
from parma_shim.qmp.client import Monitor

MAX_DISKS = 256
FIRST_FDSET = 100


class DiskAccess(enum.Enum):
    """Layers are read-only, scratch is not."""

    READ_ONLY = "read-only"
    READ_WRITE = "read-write"


@dataclass(frozen=True, slots=True, order=True)
class ScsiAddress:
    """Where the guest finds a disk: target and channel are 0."""

    controller: int
    lun: int


@dataclass(slots=True)
class LunTable:
    """Free and used units. Pure; callers decide before they wait, so concurrent attaches never get the same one."""

    limit: int = MAX_DISKS
    _used: set[int] = field(default_factory=set)
    _next: int = 0

    def take(self) -> int:
        """A free unit. Raises ResourceExhaustedError.

        Round robin: a unit that was just unplugged comes last, so the guest, which removes its device in its own time,
        never takes a new disk for the old one.
        """
        for offset in range(self.limit):
            lun = (self._next + offset) % self.limit
            if lun not in self._used:
                self._used.add(lun)
                self._next = lun + 1
                return lun
        raise ResourceExhaustedError(
            f"a utility VM takes {self.limit} disks: too many layers in this pod's images"
        )

    def release(self, lun: int) -> None:
        """Gives a unit back."""
        self._used.discard(lun)

    def __contains__(self, lun: int) -> bool:
        return lun in self._used


class Disks:
    """The disks behind the machine's one SCSI controller."""

    def __init__(self, monitor: Monitor, bus: str) -> None:
        self._monitor = monitor
        self._bus = bus
        self._luns = LunTable()
        self._attached: set[int] = set()

    async def attach(self, fd: int, access: DiskAccess) -> ScsiAddress:
        """Plugs in the file behind `fd`, which stays the caller's. On failure nothing is left of it.

        Raises ResourceExhaustedError and what `Monitor.run` raises.
        """
        lun = self._luns.take()
        try:
            await self._plug(lun, fd, access)
        except BaseException:
            self._luns.release(lun)
            raise
        self._attached.add(lun)
        return ScsiAddress(0, lun)

    async def detach(self, address: ScsiAddress) -> None:
        """Unplugs a disk that the guest no longer uses, and waits for its end in QEMU.

        Raises NotFoundError for an address that holds none, and what `Monitor.run` raises: then the unit stays taken.
        """
        if address.controller != 0 or address.lun not in self._attached:
            raise NotFoundError(f"no disk at controller {address.controller}, lun {address.lun}")
        self._attached.discard(address.lun)
        await self._monitor.remove_device(_device(address.lun))
        await self._monitor.run(codec.blockdev_del(_node(address.lun)))
        await self._monitor.run(codec.remove_fd(FIRST_FDSET + address.lun))
        self._luns.release(address.lun)

    async def _plug(self, lun: int, fd: int, access: DiskAccess) -> None:
        fdset = FIRST_FDSET + lun
        read_only = access is DiskAccess.READ_ONLY
        undo: list[codec.Command] = []
        try:
            await self._monitor.pass_descriptor(fd, fdset)
            undo.append(codec.remove_fd(fdset))
            await self._monitor.run(codec.blockdev_add(_node(lun), fdset, read_only=read_only))
            undo.append(codec.blockdev_del(_node(lun)))
            await self._monitor.run(codec.device_add_disk(_device(lun), self._bus, lun, _node(lun)))
        except BaseException:  # cancellation too: what QEMU holds must match what the table says
            with contextlib.suppress(ApiError):
                for command in reversed(undo):
                    await self._monitor.run(command)
            raise


def _device(lun: int) -> str:
    return f"lun{lun}"


def _node(lun: int) -> str:
    return f"node{lun}"
