"""Bringing a pod up: network, machine, first answer, policy, settings, scratch, files; each step undone on failure.

A machine that ends before the agent's first answer is started once more, counted and reported (reference/boot.md 9).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from parma_api import volumes
from parma_api.channel.mux import Mux
from parma_api.channel.session import Side
from parma_api.channel.stream import StreamClosedError
from parma_api.gen.parma.agent import v1
from parma_api.status import ApiError, Code
from parma_shim.agent.client import AgentClient, GuestFacts
from parma_shim.podconfig import PodConfig, RuntimeOptions, unknown_annotations
from parma_shim.sandbox.layers import message
from parma_shim.sandbox.phases import Phases
from parma_shim.sandbox.plan import SandboxPlan
from parma_shim.sandbox.ports import Launch, Machine, Network, Ports, RunningMachine
from parma_shim.sandbox.volumes import PodVolumes
from parma_shim.vmm.disks import DiskAccess
from parma_shim.vmm.errors import BootFailureError, VmmGoneError

log = logging.getLogger(__name__)

BOOT_ATTEMPTS = 2
UNPLUG_DEADLINE = 5.0
REAP_DEADLINE = 0.5
REPORT_FILE = "report.bin"
"""In the pod's run directory: what the guest compared with HOST_DATA, for whoever wants to verify it."""


@dataclass(frozen=True, slots=True)
class Link:
    """The way to a running agent."""

    running: RunningMachine
    mux: Mux
    moving: asyncio.Task[None]
    """The multiplexer at work; it ends with the channel."""
    agent: AgentClient
    facts: GuestFacts

    @property
    def machine(self) -> Machine:
        return self.running.machine

    async def close(self) -> None:
        """Ends the VM and everything about it. Idempotent, bounded in time."""
        try:
            # Before the machine, which closes the descriptor that the multiplexer waits on.
            await _close_channel(self.mux, self.moving, self.agent)
        finally:
            await self.running.close()


@dataclass(frozen=True, slots=True)
class Booted:
    """A pod that is ready for containers, and what undoes it."""

    link: Link
    network: Network | None
    volumes: PodVolumes
    undo: contextlib.AsyncExitStack


async def boot(
    ports: Ports,
    plan: SandboxPlan,
    options: RuntimeOptions,
    run_dir: Path,
    launched: Callable[[RunningMachine], None],
) -> Booted:
    """Raises ApiError; then nothing is left. `launched` is told of every machine as soon as it exists."""
    config = ports.pod_config(dict(plan.annotations), options)
    for name in unknown_annotations(plan.annotations):
        log.warning("annotation %s means nothing: mistyped?", name)
    phases = Phases()
    async with ports.turn(), contextlib.AsyncExitStack() as undo:
        phases.done("turn")
        network = None
        if plan.netns is not None:
            network = await ports.plug(plan.netns)
            undo.push_async_callback(_unplug, network)
            phases.done("network")
        scratch = ports.scratch()
        undo.callback(os.close, scratch)
        launch = Launch(config, network, plan.cgroups_path, run_dir)
        link = await _start(ports, launch, launched, phases)
        undo.push_async_callback(link.close)
        files = PodVolumes(link.agent)
        try:
            # Before it may be mounted: the guest finds the disk while its policy is checked.
            address = await link.machine.attach_disk(scratch, access=DiskAccess.READ_WRITE)
            report = await _set_policy(link, ports, config)
            await asyncio.to_thread((run_dir / REPORT_FILE).write_bytes, report)
            phases.done("policy")
            await link.agent.setup_sandbox(_setup_request(plan, network))
            phases.done("sandbox")
            await link.agent.mount_scratch(message(address), volumes.pod_directory(plan.sandbox_id))
            phases.done("scratch")
            await files.send_defaults(plan.hostname)
            await files.send_network_files(plan.network_files)
            phases.done("files")
        except ApiError as error:
            raise await _cause(link, error) from error
        log.info("pod ready in %s", phases)
        return Booted(link, network, files, undo.pop_all())


async def _cause(link: Link, error: ApiError) -> ApiError:
    """The better one, where the machine has ended: its channel closes a little earlier, and says nothing."""
    if error.code is not Code.UNAVAILABLE:
        return error
    try:
        async with asyncio.timeout(REAP_DEADLINE):
            how = await link.machine.wait()
    except TimeoutError:
        return error
    return VmmGoneError(f"the utility VM ended while the pod was set up: {how.cause}")


async def _start(
    ports: Ports, launch: Launch, launched: Callable[[RunningMachine], None], phases: Phases
) -> Link:
    attempt = 1
    while True:
        try:
            return await _start_once(ports, launch, launched, phases)
        except ApiError as error:
            if attempt == BOOT_ATTEMPTS or error.code is not Code.UNAVAILABLE:
                raise
            log.warning("boot %d of %d failed: %s", attempt, BOOT_ATTEMPTS, error.message)
            attempt += 1


async def _start_once(
    ports: Ports, launch: Launch, launched: Callable[[RunningMachine], None], phases: Phases
) -> Link:
    running = await ports.launch(launch)
    phases.done("machine")
    async with contextlib.AsyncExitStack() as undo:
        undo.push_async_callback(running.close)
        launched(running)
        mux = Mux(running.machine.channel, side=Side.HOST)
        moving = asyncio.create_task(mux.run(), name="channel")
        agent = AgentClient(mux.control)
        undo.push_async_callback(_close_channel, mux, moving, agent)
        try:
            facts = await running.machine.until_answer(agent.health(), ports.boot_deadline)
        except ApiError as error:
            raise _boot_failure(error, moving) from error
        phases.done("answer")
        log.info("agent %s (%s) answers, kernel %s", facts.version, facts.variant, facts.kernel)
        undo.pop_all()
    return Link(running, mux, moving, agent, facts)


def _boot_failure(error: ApiError, moving: asyncio.Task[None]) -> ApiError:
    """The better cause, where it is one: a guest that speaks, and not as an agent does."""
    if isinstance(error, BootFailureError) or not moving.done() or moving.cancelled():
        return error
    broken = moving.exception()
    said = str(broken) if broken is not None else "it was closed"
    return BootFailureError(f"the channel to the agent ended before its first answer: {said}")


async def _set_policy(link: Link, ports: Ports, config: PodConfig) -> bytes:
    """The guest's report. Policy first: before it the guest refuses everything."""
    policy = config.policy.text
    digest = hashlib.sha256(policy).hexdigest()
    log.info("policy %s from %s", digest, config.policy.source)
    certificates = await asyncio.to_thread(ports.certificates) or await link.running.certificates()
    report = await link.agent.set_policy(policy, certificates, b"", digest)
    for envelope in config.fragments:
        await link.agent.load_fragment(envelope)
    return report


def _setup_request(plan: SandboxPlan, network: Network | None) -> v1.SetupSandboxRequest:
    request = v1.SetupSandboxRequest(
        sandbox_id=plan.sandbox_id,
        hostname=plan.hostname,
        sysctls=[v1.Sysctl(name=name, value=value) for name, value in plan.sysctls],
    )
    interface = network.interface if network is not None else None
    if interface is not None:
        request.interfaces = [
            v1.Interface(
                mac=interface.mac,
                name=interface.name,
                mtu=interface.mtu,
                addresses=list(interface.addresses),
            )
        ]
        request.routes = [
            v1.Route(
                destination=route.destination,
                gateway=route.gateway,
                source=route.source,
                metric=route.metric,
            )
            for route in interface.routes
        ]
    return request


async def _close_channel(mux: Mux, moving: asyncio.Task[None], agent: AgentClient) -> None:
    mux.abort()
    moving.cancel()
    await asyncio.wait((moving,))
    if not moving.cancelled() and (error := moving.exception()) is not None:
        log.warning("the channel ended: %s", error)
    with contextlib.suppress(StreamClosedError):
        await agent.close()


async def _unplug(network: Network) -> None:
    try:
        async with asyncio.timeout(UNPLUG_DEADLINE):
            await network.unplug()
    except (ApiError, OSError, TimeoutError) as error:
        log.warning("the pod's network is not unplugged: %s", error)
