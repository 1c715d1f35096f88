"""The stub's faces: the kernel's interfaces, so that programs that know nothing of the stub find what they look for."""

from __future__ import annotations

import asyncio
import os

from parma_api.status import FailedPreconditionError
from parma_guest.agent.hostlog import say
from parma_guest.attest.sev_guest import DEVICE
from parma_guest.linux.modules import load_groups
from parma_guest.stub import device
from parma_guest.stub.provider import StubProvider


async def open_faces(provider: StubProvider) -> tuple[tuple[str, str], ...]:
    """Make them, once; what containers get by bind mounts besides the device's node.

    Raises ApiError: no module, or something is there already, as on a machine with SNP.
    """
    fd = await asyncio.to_thread(_open_device)
    device.serve(fd, provider.ask)
    say("/dev/sev-guest is the stub's: what it signs proves nothing")
    return ()


def _open_device() -> int:
    if os.path.exists(DEVICE):  # noqa: PTH110 (pathlib costs an import)
        raise FailedPreconditionError(f"{DEVICE} is there, and is not the stub's")
    load_groups(("cuse",))
    return device.open_cuse()
