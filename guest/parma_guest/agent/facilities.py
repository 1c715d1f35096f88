"""What privileged containers, which the policy must allow, get of the agent: reports, the transcript, and those that
mount file systems for the others block devices.

Made when the first such container is created: a group without one pays nothing for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat

from parma_api.status import ApiError
from parma_guest.agent.containers import Facilities
from parma_guest.agent.places import RUN
from parma_guest.agent.policy_half import PolicyHalf
from parma_guest.agent.volume_devices import VolumeDevices, open_volume_devices
from parma_guest.attest.image import Image, this_image
from parma_guest.attest.sev_guest import DEVICE
from parma_guest.oci.devices import Device
from parma_guest.oci.mounts import Propagation

log = logging.getLogger(__name__)

REPORTS = f"{RUN}/report"
"""The directory of the agent's socket, in the guest and in privileged containers (parma_guest.attest.report_socket)."""


class RealFacilities:
    """Of a real guest. A part that cannot be had is left out, and the log says so."""

    def __init__(self, policy: PolicyHalf) -> None:
        self._policy = policy
        self._lock = asyncio.Lock()
        self._volumes: VolumeDevices | None = None
        self._binds: tuple[tuple[str, str], ...] | None = None

    async def __call__(self, propagation: Propagation) -> Facilities:
        """What is there now."""
        async with self._lock:
            if self._binds is None:
                self._binds = await self._open()
            if propagation is Propagation.SHARE and self._volumes is None:
                self._volumes = await asyncio.to_thread(open_volume_devices)
        volumes = self._volumes if propagation is Propagation.SHARE else None
        devices = report_device(DEVICE)
        if volumes is None:
            return Facilities(devices, binds=self._binds)
        return Facilities((*devices, *volumes.nodes), volumes.block_majors, self._binds)

    async def _open(self) -> tuple[tuple[str, str], ...]:
        from parma_guest.attest.report_socket import ReportSocket

        binds: list[tuple[str, str]] = []
        try:
            await ReportSocket(self._policy.transcript, self._policy.provider).listen(REPORTS)
            binds.append((REPORTS, REPORTS))
        except OSError as error:
            log.warning("no socket for reports: %s", error.strerror)
        if this_image() is Image.STUB:
            binds += await self._stub_faces()
        return tuple(binds)

    async def _stub_faces(self) -> tuple[tuple[str, str], ...]:
        from parma_guest.stub.faces import open_faces
        from parma_guest.stub.provider import StubProvider

        try:
            provider = await self._policy.provider()
            assert isinstance(provider, StubProvider)
            return await open_faces(provider)
        except ApiError as error:
            log.warning("the stub's devices cannot be had: %s", error.message)
            return ()


def report_device(path: str) -> tuple[Device, ...]:
    """The node at `path`, if it is a character device."""
    try:
        about = os.stat(path)  # noqa: PTH116 (pathlib costs an import)
    except OSError:
        return ()
    if not stat.S_ISCHR(about.st_mode):
        return ()
    return (Device(path, os.major(about.st_rdev), os.minor(about.st_rdev)),)
