"""MachineConfig -> QEMU's argv. Pure: the same configuration gives the same words.

Descriptors get fixed numbers in QEMU (`Slot`), so argv does not depend on what else the shim has open.
"""

from __future__ import annotations

import base64
import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from parma_api.launch import MeasuredFile, SnpLaunch
from parma_shim.vmm import switches as sw
from parma_shim.vmm.config import Accelerator, MachineConfig, SevParameters

CHANNEL_PORT = "parma.channel"
PSP_PORT = "parma.psp"
SCSI_ID = "scsi0"
SCSI_BUS = f"{SCSI_ID}.0"
ROOT_FDSET = 1


class Slot(enum.IntEnum):
    """Descriptor numbers in QEMU's process."""

    QMP = 3
    CONSOLE = 4
    CHANNEL = 5
    KERNEL = 6
    INITRD = 7
    ROOT = 8
    FIRMWARE = 9
    TAP = 10
    PSP = 11
    VSOCK = 12


class Renders(Protocol):
    """Something that gives words of argv."""

    def render(self) -> tuple[str, ...]:
        """The words."""
        ...


@dataclass(frozen=True, slots=True)
class _Boot:
    """What the accelerator decides."""

    accel: sw.Accel
    cpu: str
    machine: sw.Machine
    kernel: MeasuredFile
    extra: tuple[Renders, ...]
    iommu_platform: bool | None


def argv(config: MachineConfig) -> tuple[str, ...]:
    """All words, the program first."""
    words = [str(config.qemu)]
    for switch in _switches(config, _boot(config)):
        words += switch.render()
    return tuple(words)


def boot_files(config: MachineConfig) -> dict[Slot, MeasuredFile]:
    """The files of the image that QEMU finds at which descriptor."""
    files = {
        Slot.KERNEL: _boot(config).kernel,
        Slot.INITRD: config.image.initrd,
        Slot.ROOT: config.image.root,
    }
    if config.snp is not None and config.accelerator is Accelerator.SNP:
        files[Slot.FIRMWARE] = config.snp.firmware
    return files


def _boot(config: MachineConfig) -> _Boot:
    if config.accelerator is Accelerator.SNP:
        assert config.snp is not None
        assert config.sev is not None
        return _snp_boot(config, config.snp, config.sev)
    return _Boot(
        accel=_accel(config.accelerator),
        # `host` under KVM; under TCG `max` halves the time to the agent's first answer (reference/boot.md 2).
        cpu="host" if config.accelerator is Accelerator.KVM else "max",
        machine=sw.Machine(),
        kernel=config.image.vmlinux,
        extra=(sw.Memory(size=f"{config.memory_mib}M"),),
        iommu_platform=None,
    )


def _accel(accelerator: Accelerator) -> sw.Accel:
    """Under TCG one thread runs all vCPUs in turn.

    With a thread for each, a vCPU can run a stale translation of code that another one patches (the kernel's static
    branches, behind an int3), and the guest panics, "Oops: int3": one boot in 100 to 200 did. Pods start as fast.
    """
    return sw.Accel(accelerator.value, "single" if accelerator is Accelerator.TCG else None)


def _snp_boot(config: MachineConfig, launch: SnpLaunch, sev: SevParameters) -> _Boot:
    memory = f"{config.memory_mib}M"
    return _Boot(
        accel=sw.Accel("kvm"),
        cpu=launch.cpu_model,
        machine=sw.Machine(
            confidential_guest_support="sev0",
            memory_backend="ram1",
            kernel_irqchip="split",
        ),
        kernel=launch.kernel,
        extra=(
            sw.Memory(size=memory),
            sw.MemfdBackend(id="ram1", size=memory),
            sw.SevSnpGuest(
                id="sev0",
                cbitpos=sev.cbitpos,
                reduced_phys_bits=sev.reduced_phys_bits,
                policy=f"0x{launch.policy:x}",
                host_data=base64.b64encode(config.host_data).decode(),
            ),
            sw.Plain("bios", _inherited(Slot.FIRMWARE)),
        ),
        iommu_platform=True,
    )


def _switches(config: MachineConfig, boot: _Boot) -> Iterator[Renders]:
    yield from _base(config, boot)
    yield from _kernel(config)
    yield from _console()
    yield from _storage(boot)
    yield from _ports(config, boot)
    if config.mac is not None:
        yield sw.TapNetdev(id="net0", fd=Slot.TAP)
        yield sw.VirtioNet(
            netdev="net0", mac=config.mac, id="nic0", romfile="", iommu_platform=boot.iommu_platform
        )
    yield sw.RngObject(id="rng0")
    yield sw.VirtioRng(rng="rng0", id="entropy0", iommu_platform=boot.iommu_platform)


def _base(config: MachineConfig, boot: _Boot) -> Iterator[Renders]:
    yield sw.Plain("name", "parma")
    yield sw.Flag("no-user-config")
    yield sw.Flag("nodefaults")
    yield sw.Flag("no-reboot")
    yield sw.Plain("display", "none")
    yield sw.Sandbox()
    yield boot.accel
    yield boot.machine
    yield sw.Cpu(boot.cpu)
    yield sw.Smp(cpus=config.size.vcpus, maxcpus=config.size.vcpus)
    yield from boot.extra
    yield sw.Rtc()


def _kernel(config: MachineConfig) -> Iterator[Renders]:
    yield sw.Plain("kernel", _inherited(Slot.KERNEL))
    yield sw.Plain("initrd", _inherited(Slot.INITRD))
    cmdline = config.snp.cmdline if config.snp is not None else config.image.cmdline
    yield sw.Plain("append", cmdline)


def _console() -> Iterator[Renders]:
    yield sw.SocketChardev(id="qmp", fd=Slot.QMP)
    yield sw.Monitor(chardev="qmp")
    yield sw.SocketChardev(id="console", fd=Slot.CONSOLE)
    yield sw.IsaSerial(chardev="console", id="serial0")


def _storage(boot: _Boot) -> Iterator[Renders]:
    yield sw.AddFd(fd=Slot.ROOT, set=ROOT_FDSET)
    yield sw.FileBlockdev(node_name="root", filename=f"/dev/fdset/{ROOT_FDSET}", read_only=True)
    yield sw.VirtioBlk(drive="root", id="disk0", iommu_platform=boot.iommu_platform)
    yield sw.VirtioScsi(id=SCSI_ID, iommu_platform=boot.iommu_platform)


def _ports(config: MachineConfig, boot: _Boot) -> Iterator[Renders]:
    """The channel is a virtio-serial port, or vsock; the stub's PSP is always a port."""
    yield sw.VirtioSerial(id="ports0", iommu_platform=boot.iommu_platform)
    if config.vsock is not None:
        yield sw.VhostVsock(
            guest_cid=config.vsock.guest_cid,
            vhostfd=Slot.VSOCK,
            id="vsock0",
            iommu_platform=boot.iommu_platform,
        )
    else:
        yield sw.SocketChardev(id="channel", fd=Slot.CHANNEL)
        yield sw.VirtSerialPort(bus="ports0.0", nr=1, chardev="channel", name=CHANNEL_PORT)
    if config.psp_fd is not None:
        yield sw.SocketChardev(id="psp", fd=Slot.PSP)
        yield sw.VirtSerialPort(bus="ports0.0", nr=2, chardev="psp", name=PSP_PORT)


def _inherited(slot: Slot) -> str:
    """A path by which QEMU opens a descriptor it inherited, whatever the file's folder permits."""
    return f"/proc/self/fd/{slot.value}"
