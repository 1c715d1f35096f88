"""Whether KVM runs guests as they are: asked of sysfs, then of KVM itself with a guest of five bytes.

A /dev/kvm that opens proves little. Software KVMs (module kvm_pvm) offer the whole interface and run only kernels made
for them: there the five bytes run, and a stock kernel spins for ever before its first line, so the module that offers
hardware virtualisation must be there too. Inside a VM whose hypervisor forbids nesting the module is there and the five
bytes fail. Numbers: include/uapi/linux/kvm.h, x86-64.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

KVM_GET_API_VERSION = 0xAE00
KVM_CREATE_VM = 0xAE01
KVM_GET_VCPU_MMAP_SIZE = 0xAE04
KVM_CREATE_VCPU = 0xAE41
KVM_SET_USER_MEMORY_REGION = 0x4020AE46
KVM_RUN = 0xAE80
KVM_SET_REGS = 0x4090AE82
KVM_GET_SREGS = 0x8138AE83
KVM_SET_SREGS = 0x4138AE84
KVM_EXIT_IO = 2

API_VERSION = 12
SREGS_SIZE = 312
_PROGRAM = bytes.fromhex("b01fe610f4")
"""mov al, 0x1f; out 0x10, al; hlt."""
_ENTRY = 0x1000
_MEMORY = 0x4000
HARDWARE_MODULES = ("kvm_amd", "kvm_intel")


def kvm_problem(device: Path = Path("/dev/kvm"), modules: Path = Path("/sys/module")) -> str | None:
    """Why KVM cannot be used here, in one line; None if it can."""
    if not any((modules / name).exists() for name in HARDWARE_MODULES):
        return "no hardware virtualisation: neither kvm_amd nor kvm_intel is in the kernel"
    try:
        _run_program(device)
    except OSError as error:
        return f"{device} does not run a guest: {error.strerror}"
    return None


def _run_program(device: Path) -> None:
    """Raises OSError if the guest does not come to its `out`."""
    with ExitStack() as stack:
        kvm = stack.enter_context(_descriptor(os.open(device, os.O_RDWR | os.O_CLOEXEC)))
        if fcntl.ioctl(kvm, KVM_GET_API_VERSION, 0) != API_VERSION:
            raise OSError(0, "another version of the interface")
        vm = stack.enter_context(_descriptor(fcntl.ioctl(kvm, KVM_CREATE_VM, 0)))
        memory = mmap.mmap(-1, _MEMORY)
        memory[_ENTRY : _ENTRY + len(_PROGRAM)] = _PROGRAM
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        region = struct.pack("=IIQQQ", 0, 0, 0, _MEMORY, address)
        fcntl.ioctl(vm, KVM_SET_USER_MEMORY_REGION, region)
        vcpu = stack.enter_context(_descriptor(fcntl.ioctl(vm, KVM_CREATE_VCPU, 0)))
        run = stack.enter_context(mmap.mmap(vcpu, fcntl.ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0)))
        _enter_at(vcpu, _ENTRY)
        fcntl.ioctl(vcpu, KVM_RUN, 0)
        (reason,) = struct.unpack_from("=I", run, 8)
        if reason != KVM_EXIT_IO:
            raise OSError(0, f"exit reason {reason}")


def _enter_at(vcpu: int, address: int) -> None:
    """Real mode, code segment at 0."""
    sregs = bytearray(SREGS_SIZE)
    fcntl.ioctl(vcpu, KVM_GET_SREGS, sregs)
    struct.pack_into("=QIH", sregs, 0, 0, 0xFFFF, 0)
    fcntl.ioctl(vcpu, KVM_SET_SREGS, bytes(sregs))
    general = [0] * 16
    fcntl.ioctl(vcpu, KVM_SET_REGS, struct.pack("=18Q", *general, address, 2))


@contextmanager
def _descriptor(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)
