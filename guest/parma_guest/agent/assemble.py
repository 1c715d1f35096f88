"""Puts the agent together from its parts: the guest's real ones, or a test's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from parma_api.gen.parma.agent.v1 import HealthResponse, Stance
from parma_api.ids import ContainerId
from parma_api.policy import gate as gates
from parma_guest.agent.containers import Containers, FacilitiesFor, no_facilities
from parma_guest.agent.external import External
from parma_guest.agent.front import Back, Front, offered
from parma_guest.agent.layout import Layout
from parma_guest.agent.policy_half import PolicyHalf
from parma_guest.agent.ports import (
    FilesPort,
    FreezerPort,
    NetworkPort,
    SourcesPort,
    StoragePort,
)
from parma_guest.agent.sandbox import Events, Group
from parma_guest.agent.service import AgentService
from parma_guest.agent.transcript import Transcript
from parma_guest.policy.interceptor import Interceptor
from parma_guest.process.background import Background
from parma_guest.process.oom import MemoryWatch
from parma_guest.process.processes import Processes
from parma_guest.process.runtime import Runtime
from parma_guest.process.spawn import Spawner
from parma_guest.process.stdio import Opener

_STANCES = {
    gates.Stance.DENY_ALL: Stance.DENY_ALL,
    gates.Stance.POLICY: Stance.POLICY,
    gates.Stance.INCONSISTENT: Stance.INCONSISTENT,
}


@dataclass(frozen=True, slots=True)
class Parts:
    """What the agent is made of."""

    policy: PolicyHalf
    storage: StoragePort
    network: NetworkPort
    sources: SourcesPort
    runtime: Runtime
    spawner: Spawner
    freezer: FreezerPort
    files: Callable[[str], FilesPort]
    """Writer of the pod's files, from the directory where they really are."""
    layout: Layout
    facilities: FacilitiesFor = no_facilities


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent that is ready to serve."""

    back: Back
    group: Group
    transcript: Transcript


def assemble(parts: Parts, front: Front) -> Agent:
    """In a running loop. `front` then describes this agent, but is not told that it is ready."""
    background, events = Background(), Events()
    memory = MemoryWatch(events.out_of_memory)
    processes = Processes(
        background,
        on_first_ended=lambda container: parts.runtime.kill_all(ContainerId(container)),
        was_oom_killed=lambda container: memory.was_killed(
            container, parts.runtime.cgroup(ContainerId(container))
        ),
    )
    group = Group(
        parts.storage,
        parts.network,
        parts.sources,
        parts.runtime,
        parts.spawner,
        parts.freezer,
        processes,
        background,
        parts.layout,
        events,
    )
    gate, policy = parts.policy.gate, parts.policy.setup

    def describe(answer: HealthResponse) -> None:
        answer.stance = Stance(_STANCES[gate.stance])
        answer.policy_sha256 = policy.policy_sha256
        answer.report_provider = policy.provider_name

    front.describe = describe
    containers = Containers(group, memory, policy.context_files, parts.facilities)
    service = AgentService(
        group, containers, External(group), policy, parts.files, front.health_now
    )

    def on_channel(opener: Opener | None) -> None:
        group.opener = opener

    async def close() -> None:
        await background.close()
        memory.close()
        await gate.close()

    interceptor = Interceptor(gate, parts.policy.envelopes, group, offered())
    back = Back(service, interceptor, on_channel, close)
    return Agent(back, group, parts.policy.transcript)
