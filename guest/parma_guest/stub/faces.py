"""The stub's faces: the kernel's interfaces, so that programs that know nothing of the stub find what they look for."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from parma_api.status import FailedPreconditionError
from parma_guest.agent.hostlog import say
from parma_guest.agent.places import RUN
from parma_guest.attest.sev_guest import DEVICE
from parma_guest.linux.modules import load, load_groups
from parma_guest.stub import device, tsm_mount
from parma_guest.stub.provider import StubProvider

CONFIGFS: Final = "/sys/kernel/config"
"""Where programs look for configfs. The kernel makes the directory with its module configfs."""
_MODULE: Final = "/usr/lib/parma/modules/configfs.ko"
_TREE: Final = f"{RUN}/stub-configfs"


async def open_faces(provider: StubProvider) -> tuple[tuple[str, str], ...]:
    """Make them, once: /dev/sev-guest in the guest, and the bind mounts that containers get, (source, destination).

    Raises ApiError: no module, or something is there already, as on a machine with SNP.
    """
    fd = await asyncio.to_thread(_open_device)
    driver = device.SevGuestDevice(provider.ask)
    device.serve(fd, driver)
    tsm_mount.serve(await asyncio.to_thread(_open_tree), driver.ask)
    say("/dev/sev-guest and configfs-tsm are the stub's: what it signs proves nothing")
    return ((_TREE, CONFIGFS),)


def _open_device() -> int:
    if os.path.exists(DEVICE):  # noqa: PTH110 (pathlib costs an import)
        raise FailedPreconditionError(f"{DEVICE} is there, and is not the stub's")
    load_groups(("cuse",))
    return device.open_cuse()


def _open_tree() -> int:
    load(_MODULE)
    if not os.path.isdir(CONFIGFS):  # noqa: PTH112
        raise FailedPreconditionError(f"the kernel has no {CONFIGFS}")
    os.makedirs(_TREE, mode=0o755, exist_ok=True)  # noqa: PTH103
    return tsm_mount.open_mount(_TREE)
