"""Launch digests with Debian's AmdSev firmware: ours are those of sev-snp-measure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sevsnpmeasure import guest, vcpu_types
from sevsnpmeasure.sev_mode import SevMode

from parma_api.cli import run
from parma_api.launch import SNP_CPU_MODEL, SNP_GUEST_FEATURES, read_image
from parma_api.snp.measure.firmware import SectionKind, parse_firmware
from tests.tools.ovmf_amdsev import ovmf_amdsev
from tests.tools.tiny_kernel import write_image


@pytest.fixture(scope="module")
def firmware(cache: Path) -> Path:
    return ovmf_amdsev(cache)


def compare(image: Path, firmware: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["measure", "--image", str(image), "--ovmf", str(firmware), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    described = read_image(image)
    for count in (1, 2, 4):
        theirs = guest.calc_launch_digest(
            SevMode.SEV_SNP,
            count,
            vcpu_types.CPU_SIGS[SNP_CPU_MODEL],
            str(firmware),
            str(described.bzimage.path),
            str(described.initrd.path),
            described.cmdline,
            SNP_GUEST_FEATURES,
        )
        assert printed["measurements"][str(count)] == theirs.hex()


@pytest.mark.slow
def test_the_firmware_checks_kernels(firmware: Path) -> None:
    parsed = parse_firmware(firmware.read_bytes())
    assert parsed.checks_kernel
    kinds = {section.kind for section in parsed.sections}
    assert kinds >= {SectionKind.SECRETS, SectionKind.CPUID, SectionKind.KERNEL_HASHES}


@pytest.mark.slow
def test_a_tiny_image(firmware: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare(write_image(tmp_path), firmware, capsys)


@pytest.mark.vm
@pytest.mark.parametrize("variant", ["release", "stub"])
def test_our_images(
    variant: str, firmware: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare((cache / "uvm" / variant / "current").resolve(), firmware, capsys)
