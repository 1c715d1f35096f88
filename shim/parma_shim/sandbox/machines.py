"""A pod's machine and what stands around it: cgroups, user, vsock, and for the stub image the PSP's process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from parma_api.launch import UvmImage, Variant, snp_launch
from parma_api.status import ApiError
from parma_shim.config import ChannelSetting, Config
from parma_shim.psp.measure import measurement
from parma_shim.sandbox.ports import Launch
from parma_shim.sandbox.processor import StubProcessor, start_processor
from parma_shim.vmm import vsock
from parma_shim.vmm.accel import choose_accelerator, choose_variant, sev_parameters
from parma_shim.vmm.cgroup import PodCgroups, make_pod_cgroups
from parma_shim.vmm.config import Accelerator, MachineConfig, Vsock
from parma_shim.vmm.image import find_image
from parma_shim.vmm.machine import Machine, start_machine
from parma_shim.vmm.privileges import vmm_privileges

log = logging.getLogger(__name__)

STOP_DEADLINE = 6.0


@dataclass(slots=True)
class HostMachine:
    """See `ports.RunningMachine`."""

    machine: Machine
    _cgroups: PodCgroups
    _processor: StubProcessor | None

    @property
    def cgroups(self) -> tuple[Path, ...]:
        return self._cgroups.made

    async def certificates(self) -> bytes:
        return b"" if self._processor is None else await self._processor.certificates()

    async def close(self) -> None:
        try:
            async with asyncio.timeout(STOP_DEADLINE):
                await self.machine.stop()
        except (ApiError, TimeoutError) as error:
            log.warning("machine %d: %r", self.machine.pid, error)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.machine.pid, signal.SIGKILL)
        if self._processor is not None:
            await self._processor.close()
        await asyncio.to_thread(self._cgroups.remove)


class Launcher:
    """Starts machines as the host's configuration says."""

    def __init__(self, config: Config, environment: Mapping[str, str]) -> None:
        self._config = config
        self._environment = environment

    async def __call__(self, launch: Launch) -> HostMachine:
        """Raises VmmSetupError, VmmError and what the image's files raise; then nothing is left."""
        config = self._config
        variant = choose_variant(config.image)
        choice = choose_accelerator(variant, config.accelerator)
        log.info("accelerator %s: %s", choice.accelerator, choice.reason)
        image = find_image(self._environment, variant)
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as closing:
            cgroups = _cgroups(launch.cgroups_path)
            undo.callback(cgroups.remove)
            processor, psp_fd = self._processor(image, launch, closing)
            if processor is not None:
                undo.callback(processor.kill)
            machine = await start_machine(
                self._machine_config(image, launch, choice.accelerator, cgroups, psp_fd, closing)
            )
            undo.pop_all()
        return HostMachine(machine, cgroups, processor)

    def _machine_config(
        self,
        image: UvmImage,
        launch: Launch,
        accelerator: Accelerator,
        cgroups: PodCgroups,
        psp_fd: int | None,
        closing: contextlib.ExitStack,
    ) -> MachineConfig:
        config, pod, network = self._config, launch.pod, launch.network
        is_snp = accelerator is Accelerator.SNP
        return MachineConfig(
            image=image,
            size=pod.size,
            memory_mib=pod.memory_mib,
            accelerator=accelerator,
            run_dir=launch.run_dir,
            host_data=pod.policy.host_data,
            tap_fd=network.tap_fd if network is not None else None,
            mac=network.mac if network is not None else None,
            psp_fd=psp_fd,
            vsock=self._vsock(closing),
            snp=snp_launch(image, config.firmware, pod.size) if is_snp else None,
            sev=sev_parameters() if is_snp else None,
            cgroups=cgroups.directories,
            privileges=vmm_privileges(accelerator, config.uid_base, os.getpid()),
            qemu=config.qemu,
        )

    def _vsock(self, closing: contextlib.ExitStack) -> Vsock | None:
        setting = self._config.channel
        if setting is ChannelSetting.VIRTIO_SERIAL:
            return None
        if setting is ChannelSetting.AUTO and not vsock.vsock_available():
            return None
        found = vsock.allocate()
        closing.callback(os.close, found.fd)
        return found

    def _processor(
        self, image: UvmImage, launch: Launch, closing: contextlib.ExitStack
    ) -> tuple[StubProcessor | None, int | None]:
        """The stub's security processor, for the stub image alone; and the end of its socket that QEMU gets."""
        if image.variant is not Variant.STUB:
            return None, None
        ours, theirs = socket.socketpair()
        closing.enter_context(ours)
        closing.enter_context(theirs)
        measured, _ = measurement(image, self._config.firmware, launch.pod.size)
        values = {
            "measurement": measured.hex(),
            "host_data": launch.pod.policy.host_data.hex(),
            "folder": str(self._config.lib_dir / "stub"),
        }
        return start_processor(ours.fileno(), values), theirs.fileno()


def _cgroups(path: str) -> PodCgroups:
    return make_pod_cgroups(path) if path and os.geteuid() == 0 else PodCgroups((), ())
