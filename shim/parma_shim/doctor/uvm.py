"""The utility VM's image."""

from __future__ import annotations

from parma_api.launch import Variant
from parma_api.status import ApiError
from parma_shim.doctor.result import Check, Finding, Host, fail, note, ok
from parma_shim.vmm.accel import choose_variant
from parma_shim.vmm.image import find_image


def run(host: Host) -> Finding:
    """Is it there, and are its files the ones that its description names?"""
    variant = choose_variant(host.config.image)
    try:
        image = find_image(host.environment, variant)
        for file in image.files:
            file.verify()
    except ApiError as error:
        return fail(f"no usable {variant} image", error.message)
    size = sum(file.size for file in image.files) >> 20
    summary = f"{image.variant}, Linux {image.kernel_version}, {size} MiB, {image.directory}"
    if image.variant is not variant:
        return fail(
            summary,
            f"this host starts the {variant} image: change `image` in config.toml, or PARMA_UVM",
        )
    return (
        note(summary, "development image: not confidential")
        if image.variant is Variant.STUB
        else ok(summary)
    )


CHECK = Check("uvm", run)
