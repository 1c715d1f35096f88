"""The machine made ready for containers: mounts, kernel modules, the control group above all containers."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from parma_api.status import ApiError
from parma_guest.agent.hostlog import say
from parma_guest.attest.image import Image
from parma_guest.boot.early import load_modules, make_mounts
from parma_guest.linux.cgroup import CONTAINERS, ROOT, Cgroup
from parma_guest.linux.errno import KernelError

_CONFIGFS = "/sys/kernel/config"


def prepare_machine(image: Image) -> None:
    """Blocks about a second under emulation, in the kernel for the most part. Raises KernelError."""
    make_mounts()
    if image is Image.RELEASE:
        _prepare_reports()
    load_modules()
    _close_io_uring()
    top = Cgroup(ROOT)
    top.enable()
    parma = Cgroup(ROOT + CONTAINERS)
    parma.create()
    parma.enable()


def _prepare_reports() -> None:
    """Modules and configfs; where there is no SNP this fails, and then there is no policy either."""
    from parma_guest.linux import mount

    with suppress(ApiError):
        load_modules(("snp",))
    try:
        if not os.path.ismount(_CONFIGFS):
            mount.mount("configfs", _CONFIGFS, "configfs")
    except KernelError as error:
        say(f"no configfs: {error.message}")


def _close_io_uring() -> None:
    """The filter refuses it to containers; nobody else needs it (Documentation/admin-guide/sysctl/kernel.rst)."""
    with suppress(OSError):
        Path("/proc/sys/kernel/io_uring_disabled").write_text("2", encoding="ascii")
