"""Which accelerator this host gives: SNP, else KVM, else TCG; or what the configuration insists on."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from parma_api.launch import Variant
from parma_shim.vmm.config import Accelerator, SevParameters
from parma_shim.vmm.errors import VmmSetupError
from parma_shim.vmm.kvm import kvm_problem

_TRUE = {"1", "y", "Y"}


class AcceleratorSetting(enum.StrEnum):
    """`accelerator` in config.toml."""

    AUTO = "auto"
    SNP = "snp"
    KVM = "kvm"
    TCG = "tcg"


class ImageSetting(enum.StrEnum):
    """`image` in config.toml."""

    AUTO = "auto"
    STUB = "stub"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Choice:
    """The accelerator, and in one line why none better."""

    accelerator: Accelerator
    reason: str


def snp_problem(root: Path = Path("/")) -> str | None:
    """Why SNP guests cannot be started here, in one line; None if they can."""
    parameter = root / "sys/module/kvm_amd/parameters/sev_snp"
    try:
        enabled = parameter.read_text().strip() in _TRUE
    except OSError:
        return "no SEV-SNP: the kernel has no kvm_amd with sev_snp (AMD EPYC Milan or newer, Linux 6.11 or newer)"
    if not enabled:
        return "no SEV-SNP: kvm_amd has sev_snp off (enable it in the firmware, and the IOMMU)"
    if not (root / "dev/sev").exists():
        return "no SEV-SNP: /dev/sev is missing (module ccp)"
    return None


def choose_variant(
    setting: ImageSetting, *, snp: Callable[[], str | None] = snp_problem
) -> Variant:
    """The image to start: under `auto` the release image where SNP is, else the stub.

    This is the host's choice of what to launch, and weakens nothing: the two images have different measurements, and
    neither has the other's report provider in it.
    """
    if setting is ImageSetting.AUTO:
        return Variant.STUB if snp() else Variant.RELEASE
    return Variant(setting.value)


def choose_accelerator(
    variant: Variant,
    setting: AcceleratorSetting = AcceleratorSetting.AUTO,
    *,
    snp: Callable[[], str | None] = snp_problem,
    kvm: Callable[[], str | None] = kvm_problem,
) -> Choice:
    """What runs an image of `variant`. Raises VmmSetupError when image, setting and host do not fit together.

    The release image refuses to work without SNP, the stub image with it: neither is ever started in the wrong place.
    """
    if variant is Variant.RELEASE:
        return _release(setting, snp)
    if setting is AcceleratorSetting.SNP:
        raise VmmSetupError(
            "accelerator = snp with the stub image: the stub refuses SNP; use the release image"
        )
    if setting is AcceleratorSetting.TCG:
        return Choice(Accelerator.TCG, "configured")
    if setting is AcceleratorSetting.KVM:
        return Choice(Accelerator.KVM, "configured")
    problem = kvm()
    return (
        Choice(Accelerator.TCG, problem) if problem else Choice(Accelerator.KVM, "KVM runs guests")
    )


def _release(setting: AcceleratorSetting, snp: Callable[[], str | None]) -> Choice:
    if setting not in (AcceleratorSetting.AUTO, AcceleratorSetting.SNP):
        raise VmmSetupError(
            f"accelerator = {setting} with the release image: it works under SEV-SNP only"
        )
    problem = snp()
    if problem:
        raise VmmSetupError(
            f"{problem}; the release image needs it, for development use the stub image"
        )
    return Choice(Accelerator.SNP, "SEV-SNP is there")


def sev_parameters(cpuid: Path = Path("/dev/cpu/0/cpuid")) -> SevParameters:
    """C-bit position and lost address bits: CPUID 0x8000001F EBX[5:0] and [11:6] (AMD APM 3, E.4.17).

    Read from the cpuid device; without it the values of every SNP-capable part so far, Milan and newer.
    """
    try:
        with cpuid.open("rb", buffering=0) as device:
            device.seek(0x8000001F)
            ebx = int.from_bytes(device.read(16)[4:8], "little")
    except OSError:
        return SevParameters(cbitpos=51, reduced_phys_bits=1)
    return SevParameters(cbitpos=ebx & 0x3F, reduced_phys_bits=(ebx >> 6) & 0x3F)
