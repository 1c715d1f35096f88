"""Golden command lines, and the proof that nothing from outside gets into one (K3, K25)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.launch import MeasuredFile, Sha256Hex, VmSize
from parma_api.status import InvalidArgumentError
from parma_shim.vmm import switches as sw
from parma_shim.vmm.cmdline import Slot, argv, boot_files
from parma_shim.vmm.config import Accelerator, MachineConfig, Vsock
from tests.tools.machines import paper_image, snp_config

GOLDEN = Path(__file__).parent / "golden"


def plain(accelerator: Accelerator) -> MachineConfig:
    return MachineConfig(
        image=paper_image(),
        size=VmSize.MEDIUM,
        memory_mib=512,
        accelerator=accelerator,
        run_dir=Path("/run/parma/x"),
        tap_fd=50,
        mac="02:00:00:00:00:01",
        psp_fd=51,
    )


def snp() -> MachineConfig:
    return snp_config(paper_image(), MeasuredFile(Path("/fw"), Sha256Hex("1" * 64), 1))


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("tcg", plain(Accelerator.TCG)),
        ("kvm", plain(Accelerator.KVM)),
        ("snp", snp()),
        ("vsock", dataclasses.replace(plain(Accelerator.KVM), vsock=Vsock(60, 77), psp_fd=None)),
        ("no_network", dataclasses.replace(plain(Accelerator.TCG), tap_fd=None, mac=None)),
    ],
)
def test_golden(name: str, config: MachineConfig) -> None:
    assert "\n".join(argv(config)) + "\n" == (GOLDEN / f"{name}.txt").read_text()


@pytest.mark.parametrize(
    ("size", "count"), [(VmSize.SMALL, 1), (VmSize.MEDIUM, 2), (VmSize.LARGE, 4)]
)
def test_named_sizes(size: VmSize, count: int) -> None:
    words = argv(dataclasses.replace(plain(Accelerator.TCG), size=size))
    assert words[words.index("-smp") + 1] == f"cpus={count},maxcpus={count}"


def test_snp_starts_what_is_measured() -> None:
    config = snp()
    assert config.snp is not None
    files = boot_files(config)
    assert files[Slot.KERNEL] is config.snp.kernel
    assert files[Slot.INITRD] is config.snp.initrd
    assert files[Slot.FIRMWARE] is config.snp.firmware
    words = argv(config)
    assert words[words.index("-append") + 1] == config.snp.cmdline
    assert words[words.index("-cpu") + 1] == config.snp.cpu_model


def test_only_the_image_and_the_host_decide() -> None:
    """K3: of what differs between pods, memory, MAC address, HOST_DATA and the presence of devices alone is in argv."""
    outside = {
        f.name
        for f in dataclasses.fields(MachineConfig)
        if f.type in ("str", "str | None", "dict[str, str]")
    }
    assert outside == {"mac"}


@pytest.mark.parametrize(
    "mac", ["", "02:00:00:00:00:01,script=/x", "02:00:00:00:00:0g", "02:00:00:00:00:01\n"]
)
def test_a_hostile_mac_has_no_way_in(mac: str) -> None:
    with pytest.raises(InvalidArgumentError):
        dataclasses.replace(plain(Accelerator.TCG), mac=mac)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\n")))
def test_a_value_stays_one_value(value: str) -> None:
    """QEMU's own rule undone: split at single commas, then two commas are one."""
    (_, word) = sw.VirtSerialPort(bus="b", nr=1, chardev="c", name=value).render()
    parts, current, index = [], "", 0
    while index < len(word):
        if word.startswith(",,", index):
            current, index = current + ",", index + 2
        elif word[index] == ",":
            parts, current, index = [*parts, current], "", index + 1
        else:
            current, index = current + word[index], index + 1
    assert [*parts, current] == ["virtserialport", "bus=b", "nr=1", "chardev=c", f"name={value}"]


@pytest.mark.parametrize("value", ["a\0b", "a\nb"])
def test_unspeakable_values(value: str) -> None:
    with pytest.raises(InvalidArgumentError):
        sw.Cpu(value).render()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"memory_mib": 64}, "MiB"),
        ({"memory_mib": 1 << 30}, "MiB"),
        ({"host_data": b"short"}, "HOST_DATA"),
        ({"tap_fd": None}, "come together"),
        ({"accelerator": Accelerator.SNP}, "SNP"),
    ],
)
def test_configurations_that_cannot_be(change: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        dataclasses.replace(plain(Accelerator.TCG), **change)  # type: ignore[arg-type]
