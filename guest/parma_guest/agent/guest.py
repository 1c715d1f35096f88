"""The agent of a real guest: its parts, made and started."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from parma_api.ids import SandboxId
from parma_api.policy import child
from parma_guest.agent.assemble import Agent, Parts, assemble
from parma_guest.agent.boot import RUN
from parma_guest.agent.containers import Facilities
from parma_guest.agent.front import Front
from parma_guest.agent.layout import Layout
from parma_guest.agent.pod import Pod
from parma_guest.agent.policy_half import PolicyHalf
from parma_guest.agent.sources import Sources
from parma_guest.attest.sev_guest import DEVICE
from parma_guest.clock import keep_time
from parma_guest.linux import blockdev
from parma_guest.linux.cgroup import CONTAINERS, ROOT, Cgroup
from parma_guest.oci.devices import Device
from parma_guest.process.reaper import Reaper
from parma_guest.process.runtime import Crun
from parma_guest.process.spawn import Spawner
from parma_guest.storage.files import PodFiles
from parma_guest.storage.service import Storage

REPORT_SOCKETS = f"{RUN}/report"
"""What privileged containers see of the agent: reports and transcript over a Unix socket beneath it."""


def build(front: Front, policy: PolicyHalf) -> Agent:
    """Put the agent together, on a machine that has been made ready."""
    reaper = Reaper(orphans=os.getpid() == 1, others=child.owned)
    spawner = Spawner(reaper)
    layout = Layout()
    agent = assemble(
        Parts(
            policy=policy,
            storage=Storage(),
            network=Pod(),
            sources=Sources(layout),
            runtime=Crun(spawner),
            spawner=spawner,
            freezer=Cgroup(ROOT + CONTAINERS),
            files=_pod_files,
            layout=layout,
            facilities=facilities,
        ),
        front,
    )
    agent.group.background.spawn(keep_time(), "clock")
    agent.group.background.spawn(asyncio.to_thread(blockdev.prepare), "disks")
    return agent


def _pod_files(directory: str) -> PodFiles:
    return PodFiles(SandboxId(""), directory)


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
