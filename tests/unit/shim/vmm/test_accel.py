"""Which accelerator is chosen, and what never goes together."""

from __future__ import annotations

from pathlib import Path

import pytest

from parma_api.launch import Variant
from parma_shim.vmm.accel import (
    AcceleratorSetting,
    ImageSetting,
    choose_accelerator,
    choose_variant,
    sev_parameters,
    snp_problem,
)
from parma_shim.vmm.config import Accelerator, SevParameters
from parma_shim.vmm.errors import VmmSetupError
from parma_shim.vmm.kvm import kvm_problem

AUTO, SNP, KVM, TCG = (
    AcceleratorSetting.AUTO,
    AcceleratorSetting.SNP,
    AcceleratorSetting.KVM,
    AcceleratorSetting.TCG,
)


@pytest.mark.parametrize(
    ("variant", "setting", "snp", "kvm", "expected"),
    [
        (Variant.STUB, AUTO, None, None, Accelerator.KVM),
        (Variant.STUB, AUTO, "no", "no", Accelerator.TCG),
        (Variant.STUB, TCG, None, None, Accelerator.TCG),
        (Variant.STUB, KVM, "no", "no", Accelerator.KVM),
        (Variant.STUB, SNP, None, None, "stub refuses SNP"),
        (Variant.RELEASE, AUTO, None, "no", Accelerator.SNP),
        (Variant.RELEASE, AUTO, "broken", None, "broken"),
        (Variant.RELEASE, TCG, None, None, "SEV-SNP only"),
        (Variant.RELEASE, KVM, None, None, "SEV-SNP only"),
    ],
)
def test_choice(
    variant: Variant,
    setting: AcceleratorSetting,
    snp: str | None,
    kvm: str | None,
    expected: Accelerator | str,
) -> None:
    if isinstance(expected, Accelerator):
        choice = choose_accelerator(variant, setting, snp=lambda: snp, kvm=lambda: kvm)
        assert choice.accelerator is expected
        assert choice.reason
    else:
        with pytest.raises(VmmSetupError, match=expected):
            choose_accelerator(variant, setting, snp=lambda: snp, kvm=lambda: kvm)


@pytest.mark.parametrize(
    ("setting", "snp", "expected"),
    [
        (ImageSetting.AUTO, None, Variant.RELEASE),
        (ImageSetting.AUTO, "none", Variant.STUB),
        (ImageSetting.STUB, None, Variant.STUB),
        (ImageSetting.RELEASE, "none", Variant.RELEASE),
    ],
)
def test_image(setting: ImageSetting, snp: str | None, expected: Variant) -> None:
    assert choose_variant(setting, snp=lambda: snp) is expected


def test_snp_needs_parameter_and_device(tmp_path: Path) -> None:
    assert "no kvm_amd" in str(snp_problem(tmp_path))
    parameter = tmp_path / "sys/module/kvm_amd/parameters/sev_snp"
    parameter.parent.mkdir(parents=True)
    parameter.write_text("N\n")
    assert "off" in str(snp_problem(tmp_path))
    parameter.write_text("Y\n")
    assert "/dev/sev" in str(snp_problem(tmp_path))
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/sev").touch()
    assert snp_problem(tmp_path) is None


def test_kvm_needs_hardware_and_a_device_that_works(tmp_path: Path) -> None:
    assert "no hardware virtualisation" in str(kvm_problem(modules=tmp_path))
    (tmp_path / "kvm_intel").mkdir()
    assert "does not run" in str(kvm_problem(tmp_path / "no-kvm", tmp_path))
    (tmp_path / "kvm").touch()
    assert "does not run" in str(kvm_problem(tmp_path / "kvm", tmp_path))


def test_c_bit_from_cpuid(tmp_path: Path) -> None:
    assert sev_parameters(tmp_path / "none") == SevParameters(51, 1)
    device = tmp_path / "cpuid"
    with device.open("wb") as file:
        file.seek(0x8000001F)
        file.write(bytes(4) + (47 | 5 << 6 | 1 << 20).to_bytes(4, "little") + bytes(8))
    assert sev_parameters(device) == SevParameters(47, 5)
