"""The agent of a real guest: its parts, made and started."""

from __future__ import annotations

import os

from parma_api.ids import SandboxId
from parma_api.policy import child
from parma_guest.agent.assemble import Agent, Parts, assemble
from parma_guest.agent.facilities import RealFacilities
from parma_guest.agent.front import Front
from parma_guest.agent.layout import Layout
from parma_guest.agent.pod import Pod
from parma_guest.agent.policy_half import PolicyHalf
from parma_guest.agent.sources import Sources
from parma_guest.clock import keep_time
from parma_guest.linux.cgroup import CONTAINERS, ROOT, Cgroup
from parma_guest.process.reaper import Reaper
from parma_guest.process.runtime import Crun
from parma_guest.process.spawn import Spawner
from parma_guest.storage.files import PodFiles
from parma_guest.storage.service import Storage


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
            facilities=RealFacilities(policy),
        ),
        front,
    )
    agent.group.background.spawn(keep_time(), "clock")
    return agent


def _pod_files(directory: str) -> PodFiles:
    return PodFiles(SandboxId(""), directory)
