"""The agent of a real guest: its parts, made and started."""

from __future__ import annotations

import asyncio
import os
import stat
from contextlib import suppress
from pathlib import Path

from parma_api.ids import SandboxId
from parma_api.policy import child
from parma_api.policy.gate import Gate
from parma_api.policy.opa import OpaLoader, import_client
from parma_api.policy.sidecar import prewarm
from parma_api.status import ApiError
from parma_guest.agent.assemble import Agent, Parts, assemble
from parma_guest.agent.boot import BUNDLES, OPA, RUN
from parma_guest.agent.containers import Facilities
from parma_guest.agent.front import Front
from parma_guest.agent.hostlog import HostLog, install, say
from parma_guest.agent.layout import Layout
from parma_guest.agent.pod import Pod
from parma_guest.agent.sources import Sources
from parma_guest.attest import choose
from parma_guest.attest.image import Image, Kernel
from parma_guest.attest.provider import ReportProvider
from parma_guest.attest.sev_guest import DEVICE
from parma_guest.boot.early import load_modules, make_mounts
from parma_guest.clock import keep_time
from parma_guest.linux.cgroup import ROOT, Cgroup
from parma_guest.linux.errno import KernelError
from parma_guest.oci.build import CGROUP
from parma_guest.oci.devices import Device
from parma_guest.process.reaper import Reaper
from parma_guest.process.runtime import Crun
from parma_guest.process.spawn import Spawner
from parma_guest.storage.files import PodFiles
from parma_guest.storage.service import Storage

OPA_RUN = f"{RUN}/opa"
REPORT_SOCKETS = f"{RUN}/report"
"""What privileged containers see of the agent: reports and transcript over a Unix socket beneath it."""
_CONFIGFS = "/sys/kernel/config"


async def build(front: Front, image: Image) -> Agent:
    """Make the machine ready for containers and put the agent together. Raises ApiError."""
    log = HostLog()
    install(log)
    warm = _warm_engine()
    await asyncio.to_thread(_prepare_machine, image)
    reaper = Reaper(orphans=os.getpid() == 1, others=child.owned)
    spawner = Spawner(reaper)
    gate = Gate(OpaLoader(Path(OPA), Path(BUNDLES), Path(OPA_RUN)))
    layout = Layout()
    agent = assemble(
        Parts(
            gate=gate,
            provider=_Provider(image),
            storage=Storage(),
            network=Pod(),
            sources=Sources(layout),
            runtime=Crun(spawner),
            spawner=spawner,
            freezer=Cgroup(ROOT + CGROUP),
            files=_pod_files,
            layout=layout,
            on_logging_allowed=log.allow,
            facilities=facilities,
        ),
        front,
    )
    agent.group.background.spawn(keep_time(), "clock")
    agent.group.background.spawn(_import_client(), "policy client")
    if warm is not None:
        agent.group.background.spawn(_reaped(warm), "policy engine's pages")
    return agent


class _Provider:
    """The image's one report provider, sought when it is first needed."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._found: ReportProvider | None = None

    async def __call__(self) -> ReportProvider:
        if self._found is None:
            self._found = await asyncio.to_thread(choose.choose, self._image, Kernel())
        return self._found


def _warm_engine() -> child.Child | None:
    """Pull the engine's 40 MB through verity while this side imports: it starts only when the policy is known."""
    with suppress(OSError):
        return prewarm(Path(OPA))
    return None


async def _reaped(warm: child.Child) -> None:
    await warm.wait()


async def _import_client() -> None:
    """Half a second of CPU, before the policy needs it."""
    await asyncio.to_thread(import_client)


def _pod_files(directory: str) -> PodFiles:
    return PodFiles(SandboxId(""), directory)


def _prepare_machine(image: Image) -> None:
    make_mounts()
    Path(OPA_RUN).mkdir(mode=0o700, parents=True, exist_ok=True)
    load_modules()
    if image is Image.RELEASE:
        _prepare_reports()
    _close_io_uring()
    top = Cgroup(ROOT)
    top.enable()
    parma = Cgroup(ROOT + CGROUP)
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


def facilities() -> Facilities:
    """What is there for privileged containers now."""
    devices: tuple[Device, ...] = ()
    try:
        about = Path(DEVICE).stat()
    except OSError:
        about = None
    if about is not None and stat.S_ISCHR(about.st_mode):
        devices = (Device(DEVICE, os.major(about.st_rdev), os.minor(about.st_rdev)),)
    binds = ((REPORT_SOCKETS, REPORT_SOCKETS),) if Path(REPORT_SOCKETS).is_dir() else ()
    return Facilities(devices, binds)
