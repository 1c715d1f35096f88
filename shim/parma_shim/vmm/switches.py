"""QEMU's switches, one frozen dataclass for each form that we use, with fields spelled as QEMU spells them.

A switch is a name and either one plain value or `driver,key=value,...`. An underscore of a field is QEMU's hyphen;
where QEMU has another spelling the field says so (`qemu("...")`). None leaves a key out. Values are text, numbers and
booleans (on, off): there is no field that takes a fragment of a command line, and a comma in a value is doubled, so no
value can become a second key (QEMU, docs/system/invocation: "use ',,' for a comma").
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import ClassVar

from parma_api.status import InvalidArgumentError

HEAD = {"qemu": ""}
"""Metadata of the field that comes first, without a key: `-device DRIVER,...`."""


def qemu(name: str) -> dict[str, str]:
    """Metadata of a field whose QEMU spelling is `name`."""
    return {"qemu": name}


class Switch:
    """One switch of the command line."""

    __slots__ = ()
    switch: ClassVar[str]

    def render(self) -> tuple[str, ...]:
        """The words of argv."""
        return (f"-{self.switch}", ",".join(self._parts()))

    def _parts(self) -> list[str]:
        head, parts = [], []
        for spec in fields(self):  # type: ignore[arg-type]
            value = getattr(self, spec.name)
            if value is None:
                continue
            key = spec.metadata.get("qemu", spec.name.replace("_", "-"))
            if key:
                parts.append(f"{key}={_value(value)}")
            else:
                head.append(_value(value))
        return head + parts


def _value(value: str | int) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    text = str(value)
    if "\0" in text or "\n" in text:
        raise InvalidArgumentError("a value for QEMU's command line holds a NUL or a newline")
    return text.replace(",", ",,")


@dataclass(frozen=True, slots=True)
class Flag:
    """A switch without a value."""

    name: str

    def render(self) -> tuple[str, ...]:
        """The word of argv."""
        return (f"-{self.name}",)


@dataclass(frozen=True, slots=True)
class Plain:
    """A switch whose value QEMU takes as it is, commas too: `-kernel FILE`, `-append TEXT`, `-bios FILE`."""

    name: str
    value: str

    def render(self) -> tuple[str, ...]:
        """The words of argv."""
        if "\0" in self.value:
            raise InvalidArgumentError("a value for QEMU's command line holds a NUL")
        return (f"-{self.name}", self.value)


@dataclass(frozen=True, slots=True)
class Machine(Switch):
    """`-machine`: q35 without what a Linux guest with virtio devices never uses."""

    switch: ClassVar[str] = "machine"
    type: str = field(default="q35", metadata=HEAD)
    confidential_guest_support: str | None = None
    memory_backend: str | None = None
    kernel_irqchip: str | None = None
    hpet: bool | None = False
    vmport: str = "off"
    smbus: bool = False
    sata: bool = False
    usb: bool = False
    graphics: bool = False
    dump_guest_core: bool = False


@dataclass(frozen=True, slots=True)
class Accel(Switch):
    """`-accel`."""

    switch: ClassVar[str] = "accel"
    accel: str = field(metadata=HEAD)
    thread: str | None = None


@dataclass(frozen=True, slots=True)
class Cpu(Switch):
    """`-cpu`."""

    switch: ClassVar[str] = "cpu"
    model: str = field(metadata=HEAD)


@dataclass(frozen=True, slots=True)
class Smp(Switch):
    """`-smp`; maxcpus equal to cpus, because hot-plugged vCPUs are not measured."""

    switch: ClassVar[str] = "smp"
    cpus: int
    maxcpus: int


@dataclass(frozen=True, slots=True)
class Memory(Switch):
    """`-m`."""

    switch: ClassVar[str] = "m"
    size: str


@dataclass(frozen=True, slots=True)
class Sandbox(Switch):
    """`-sandbox`: QEMU's seccomp filter, everything that it offers denied."""

    switch: ClassVar[str] = "sandbox"
    enable: str = field(default="on", metadata=HEAD)
    obsolete: str = "deny"
    elevateprivileges: str = "deny"
    spawn: str = "deny"
    resourcecontrol: str = "deny"


@dataclass(frozen=True, slots=True)
class Rtc(Switch):
    """`-rtc`: `clock=host` follows the host's clock after it was suspended."""

    switch: ClassVar[str] = "rtc"
    base: str = "utc"
    clock: str = "host"


@dataclass(frozen=True, slots=True)
class AddFd(Switch):
    """`-add-fd`: inherited descriptor `fd` becomes `/dev/fdset/<set>`."""

    switch: ClassVar[str] = "add-fd"
    fd: int
    set: int


@dataclass(frozen=True, slots=True)
class FileBlockdev(Switch):
    """`-blockdev driver=file`."""

    switch: ClassVar[str] = "blockdev"
    driver: str = field(default="file", init=False)
    node_name: str
    filename: str
    read_only: bool
    auto_read_only: bool = False
    cache_direct: bool | None = field(default=None, metadata=qemu("cache.direct"))


@dataclass(frozen=True, slots=True)
class SocketChardev(Switch):
    """`-chardev socket` on an inherited, connected socket."""

    switch: ClassVar[str] = "chardev"
    backend: str = field(default="socket", init=False, metadata=HEAD)
    id: str
    fd: int


@dataclass(frozen=True, slots=True)
class Monitor(Switch):
    """`-mon` in QMP mode."""

    switch: ClassVar[str] = "mon"
    chardev: str
    mode: str = "control"


@dataclass(frozen=True, slots=True)
class TapNetdev(Switch):
    """`-netdev tap` on an inherited descriptor; QEMU opens and runs nothing."""

    switch: ClassVar[str] = "netdev"
    type: str = field(default="tap", init=False, metadata=HEAD)
    id: str
    fd: int
    vhost: bool = False


@dataclass(frozen=True, slots=True)
class RngObject(Switch):
    """`-object rng-random`."""

    switch: ClassVar[str] = "object"
    qom_type: str = field(default="rng-random", init=False, metadata=HEAD)
    id: str
    filename: str = "/dev/urandom"


@dataclass(frozen=True, slots=True)
class MemfdBackend(Switch):
    """`-object memory-backend-memfd`: the shared pages of an SNP guest (QEMU makes the guest_memfd itself)."""

    switch: ClassVar[str] = "object"
    qom_type: str = field(default="memory-backend-memfd", init=False, metadata=HEAD)
    id: str
    size: str
    share: bool = True
    prealloc: bool = False
    reserve: bool = False


@dataclass(frozen=True, slots=True)
class SevSnpGuest(Switch):
    """`-object sev-snp-guest` (QEMU 9.1 and newer)."""

    switch: ClassVar[str] = "object"
    qom_type: str = field(default="sev-snp-guest", init=False, metadata=HEAD)
    id: str
    cbitpos: int
    reduced_phys_bits: int
    policy: str
    host_data: str
    kernel_hashes: bool = True


@dataclass(frozen=True, slots=True)
class Device(Switch):
    """What every `-device` has."""

    switch: ClassVar[str] = "device"


@dataclass(frozen=True, slots=True)
class VirtioDevice(Device):
    """A virtio PCI device, modern only; `iommu_platform` where the guest's memory is encrypted."""

    disable_legacy: str = field(default="on", kw_only=True)
    iommu_platform: bool | None = field(default=None, kw_only=True, metadata=qemu("iommu_platform"))
    romfile: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class VirtioBlk(VirtioDevice):
    """The root image's disk."""

    driver: str = field(default="virtio-blk-pci", init=False, metadata=HEAD)
    drive: str
    id: str


@dataclass(frozen=True, slots=True)
class VirtioScsi(VirtioDevice):
    """The controller that layers and scratch are plugged into."""

    driver: str = field(default="virtio-scsi-pci", init=False, metadata=HEAD)
    id: str
    max_sectors: int | None = field(default=None, metadata=qemu("max_sectors"))


@dataclass(frozen=True, slots=True)
class VirtioSerial(VirtioDevice):
    """The bus of the named ports."""

    driver: str = field(default="virtio-serial-pci", init=False, metadata=HEAD)
    id: str
    max_ports: int = field(default=4, metadata=qemu("max_ports"))


@dataclass(frozen=True, slots=True)
class VirtSerialPort(Device):
    """A port that the guest finds by `name` in sysfs."""

    driver: str = field(default="virtserialport", init=False, metadata=HEAD)
    bus: str
    nr: int
    chardev: str
    name: str


@dataclass(frozen=True, slots=True)
class VirtioNet(VirtioDevice):
    """The pod's interface. `romfile` empty: no option ROM (PXE) is loaded."""

    driver: str = field(default="virtio-net-pci", init=False, metadata=HEAD)
    netdev: str
    mac: str
    id: str


@dataclass(frozen=True, slots=True)
class VirtioRng(VirtioDevice):
    """Entropy early in the boot (an SNP guest has RDRAND besides)."""

    driver: str = field(default="virtio-rng-pci", init=False, metadata=HEAD)
    rng: str
    id: str


@dataclass(frozen=True, slots=True)
class VhostVsock(VirtioDevice):
    """The channel where the host has vsock; `vhostfd` is an inherited /dev/vhost-vsock."""

    driver: str = field(default="vhost-vsock-pci", init=False, metadata=HEAD)
    guest_cid: int
    vhostfd: int
    id: str


@dataclass(frozen=True, slots=True)
class IsaSerial(Device):
    """ttyS0: the console that is kept."""

    driver: str = field(default="isa-serial", init=False, metadata=HEAD)
    chardev: str
    id: str
