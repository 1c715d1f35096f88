"""What a machine is made of, before QEMU's spelling of it."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from pathlib import Path

from parma_api.launch import SnpLaunch, UvmImage, VmSize
from parma_api.status import InvalidArgumentError

MIN_MEMORY_MIB = 192
MAX_MEMORY_MIB = 1 << 20
HOST_DATA_SIZE = 32

_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")


class Accelerator(enum.StrEnum):
    """What runs the guest's instructions."""

    SNP = "snp"
    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class SevParameters:
    """CPUID 0x8000001F EBX of this host."""

    cbitpos: int
    reduced_phys_bits: int


@dataclass(frozen=True, slots=True)
class Privileges:
    """Who QEMU runs as. Ids need no entry in /etc/passwd."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    """For /dev/kvm and /dev/sev where their group may use them."""


@dataclass(frozen=True, slots=True)
class Vsock:
    """A /dev/vhost-vsock whose guest CID is set."""

    fd: int
    guest_cid: int


@dataclass(frozen=True, slots=True)
class MachineConfig:
    """One utility VM. Nothing in it is text that QEMU or the guest's kernel would interpret.

    Descriptors stay the caller's: they are duplicated into QEMU, and may be closed once `start_machine` returned.
    """

    image: UvmImage
    size: VmSize
    memory_mib: int
    accelerator: Accelerator
    run_dir: Path
    """The pod's folder; a machine leaves nothing in it, all that it needs is passed as descriptors."""
    host_data: bytes = bytes(HOST_DATA_SIZE)
    """SHA-256 of the policy; enters the report on SNP, and goes to the stub PSP otherwise."""
    tap_fd: int | None = None
    mac: str | None = None
    psp_fd: int | None = None
    vsock: Vsock | None = None
    snp: SnpLaunch | None = None
    sev: SevParameters | None = None
    cgroups: tuple[Path, ...] = ()
    """Directories whose `cgroup.procs` takes QEMU: one on version 2, one for each controller on version 1."""
    privileges: Privileges | None = None
    """None keeps the caller's user: for a shim that is not root itself."""
    qemu: Path = field(default=Path("/usr/bin/qemu-system-x86_64"))

    def __post_init__(self) -> None:
        if not MIN_MEMORY_MIB <= self.memory_mib <= MAX_MEMORY_MIB:
            raise InvalidArgumentError(
                f"memory of {self.memory_mib} MiB: a utility VM has {MIN_MEMORY_MIB} to {MAX_MEMORY_MIB} MiB"
            )
        if len(self.host_data) != HOST_DATA_SIZE:
            raise InvalidArgumentError(
                f"HOST_DATA has {len(self.host_data)} bytes: it has {HOST_DATA_SIZE}"
            )
        if (self.tap_fd is None) != (self.mac is None):
            raise InvalidArgumentError("a tap and a MAC address come together")
        if self.mac is not None and not _MAC.fullmatch(self.mac):
            raise InvalidArgumentError(
                "the MAC address is not six pairs of lower-case hexadecimal digits"
            )
        if self.accelerator is Accelerator.SNP and (self.snp is None or self.sev is None):
            raise InvalidArgumentError(
                "an SNP machine needs its launch configuration and the host's C-bit position"
            )
