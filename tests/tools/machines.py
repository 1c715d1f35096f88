"""Machine configurations for tests: pure ones for golden command lines, real ones around the tiny kernel."""

from __future__ import annotations

import os
from pathlib import Path

from parma_api.launch import (
    MeasuredFile,
    Sha256Hex,
    SnpLaunch,
    UvmImage,
    Variant,
    VmSize,
    read_image,
)
from parma_shim.vmm.config import Accelerator, MachineConfig, Privileges, SevParameters
from tests.tools.tiny_kernel import HALT, write_image

UID = 0x70000000 + os.getpid()
PRIVILEGES = Privileges(UID, UID)


def paper_image(cmdline: str = "console=ttyS0 quiet panic=-1") -> UvmImage:
    """An image whose files do not exist."""

    def file(name: str) -> MeasuredFile:
        return MeasuredFile(Path("/image") / name, Sha256Hex("0" * 64), 1)

    return UvmImage(
        directory=Path("/image"),
        variant=Variant.STUB,
        kernel_version="6.12",
        cmdline=cmdline,
        vmlinux=file("vmlinux"),
        bzimage=file("bzImage"),
        initrd=file("initrd.img"),
        root=file("root.img"),
    )


def snp_config(
    image: UvmImage, firmware: MeasuredFile, run_dir: Path = Path("/run")
) -> MachineConfig:
    """An SNP machine with a tap."""
    return MachineConfig(
        image=image,
        size=VmSize.LARGE,
        memory_mib=512,
        accelerator=Accelerator.SNP,
        run_dir=run_dir,
        host_data=bytes(range(32)),
        tap_fd=50,
        mac="02:00:00:00:00:01",
        snp=SnpLaunch(firmware, image.bzimage, image.initrd, image.cmdline, vcpus=4),
        sev=SevParameters(cbitpos=51, reduced_phys_bits=1),
    )


def tiny_machine(folder: Path, text: str = "tiny\n", ending: bytes = HALT) -> MachineConfig:
    """A TCG machine that prints `text` and ends with `ending`, as QEMU runs it for a pod."""
    image = read_image(write_image(folder, text, ending))
    return MachineConfig(
        image=image,
        size=VmSize.MEDIUM,
        memory_mib=256,
        accelerator=Accelerator.TCG,
        run_dir=folder,
        privileges=PRIVILEGES if os.geteuid() == 0 else None,
    )
