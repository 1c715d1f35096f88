"""Our command lines at a QEMU that knows `sev-snp-guest`: it takes all of them, and lacks the hardware only."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import subprocess
from pathlib import Path

import pytest

from parma_api.launch import measured_file, read_image
from parma_shim.vmm.cmdline import argv
from parma_shim.vmm.config import MachineConfig
from parma_shim.vmm.machine import DiskAccess, start_machine
from tests.tools.machines import snp_config, tiny_machine
from tests.tools.newer_qemu import newer_qemu
from tests.tools.tiny_kernel import write_image

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def qemu(cache: Path) -> Path:
    return newer_qemu(cache)


@pytest.fixture
def snp(tmp_path: Path, qemu: Path) -> MachineConfig:
    """Without a tap: the descriptor that it would need is no tap here."""
    firmware = tmp_path / "OVMF.fd"
    firmware.write_bytes(bytes(65536))
    config = snp_config(read_image(write_image(tmp_path)), measured_file(firmware), tmp_path)
    return dataclasses.replace(config, qemu=qemu, tap_fd=None, mac=None, memory_mib=256)


def test_it_has_every_key_of_the_snp_object(qemu: Path, snp: MachineConfig) -> None:
    words = argv(snp)
    (value,) = (word for word in words if word.startswith("sev-snp-guest,"))
    ours = {part.partition("=")[0] for part in value.split(",")[1:]} - {"id"}
    shown = subprocess.run(
        [qemu, "-object", "sev-snp-guest,help"], capture_output=True, text=True, check=True
    ).stdout
    theirs = set(re.findall(r"^  ([\w-]+)=<", shown, re.MULTILINE))
    # cbitpos and reduced-phys-bits belong to the parent type, which the help leaves out.
    assert ours - theirs == {"cbitpos", "reduced-phys-bits"}


@pytest.mark.parametrize("accelerator", ["kvm", "tcg"])
async def test_the_snp_command_line_lacks_hardware_only(
    snp: MachineConfig, accelerator: str
) -> None:
    """With KVM it needs /dev/kvm or /dev/sev; with TCG in KVM's place it is parsed further, up to the SNP launch."""
    words = list(argv(snp))
    words[words.index("-accel") + 1] = accelerator
    if accelerator == "tcg":
        words = [word.replace("kernel-irqchip=split,", "") for word in words]
    with OtherWords(snp, words) as config:
        machine = await start_machine(config)
        ended = await asyncio.wait_for(machine.wait(), 60)
        await machine.stop()
    assert ended.status == 1
    lacks = r"KVM|kvm|SEV|sev"
    assert re.search(lacks, ended.cause), ended.cause
    assert not re.search(
        r"[Pp]roperty|[Ii]nvalid|not found|expects|unknown|[Uu]nexpected", ended.cause
    ), ended.cause


async def test_the_snp_devices_are_taken(snp: MachineConfig) -> None:
    """The same words without the SNP object, which stops QEMU before it looks at them."""
    words = [
        word.replace("kernel-irqchip=split,", "").replace("confidential-guest-support=sev0,", "")
        for word in argv(snp)
    ]
    words[words.index("-accel") + 1] = "tcg"
    at = next(n for n, word in enumerate(words) if word.startswith("sev-snp-guest,"))
    del words[at - 1 : at + 1]
    with OtherWords(snp, words) as config:
        machine = await start_machine(config)
        assert await machine.query_status() == "running"
        await machine.stop()


class OtherWords:
    """The configuration with a program in QEMU's place that runs QEMU with other words."""

    def __init__(self, config: MachineConfig, words: list[str]) -> None:
        self.config, self.words = config, words

    def __enter__(self) -> MachineConfig:
        script = self.config.run_dir / "qemu"
        quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in self.words)
        script.write_text(f"#!/bin/sh\nexec {quoted}\n")
        script.chmod(0o755)
        return dataclasses.replace(self.config, qemu=script)

    def __exit__(self, *_: object) -> None:
        return


async def test_the_same_machine_as_in_the_hosts_qemu(tmp_path: Path, qemu: Path) -> None:
    config = dataclasses.replace(tiny_machine(tmp_path, "hello\n"), qemu=qemu, privileges=None)
    machine = await start_machine(config)
    fd = os.open(config.image.root.path, os.O_RDONLY)
    try:
        address = await machine.attach_disk(fd, access=DiskAccess.READ_ONLY)
        await machine.detach_disk(address)
        async with asyncio.timeout(60):
            while "hello" not in machine.console_tail():  # noqa: ASYNC110 -- the ring has no event to wait for
                await asyncio.sleep(0.01)
    finally:
        os.close(fd)
        await machine.stop()
