"""SNP, KVM or TCG."""

from __future__ import annotations

from parma_api.launch import Variant
from parma_api.status import ApiError
from parma_shim.doctor.result import Check, Finding, Host, fail, note, ok
from parma_shim.vmm.accel import choose_accelerator, choose_variant
from parma_shim.vmm.config import Accelerator
from parma_shim.vmm.privileges import DEVICES, device_groups


def run(host: Host) -> Finding:
    """What a VM would run on now, and why on nothing better."""
    try:
        variant = choose_variant(host.config.image)
        choice = choose_accelerator(variant, host.config.accelerator)
        device_groups(DEVICES[choice.accelerator])
    except ApiError as error:
        return fail(f"image {host.config.image} cannot start here", error.message)
    if variant is Variant.RELEASE:
        return ok(f"{choice.accelerator}: {choice.reason}")
    summary = f"{choice.accelerator} ({choice.reason})"
    if choice.accelerator is Accelerator.TCG:
        return note(
            summary, "emulated: right for development and tests, slow, and not confidential"
        )
    return note(
        summary, 'the stub image is not confidential: image = "release" on an SEV-SNP host is'
    )


CHECK = Check("accelerator", run)
