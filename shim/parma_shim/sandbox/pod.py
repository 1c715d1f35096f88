"""A running pod: its containers' life in the guest, its end, and who hears of it.

Whatever ends first, the VM, the channel or the agent's connection: the pod is dead then, the VM is killed, and `dead`
is set. Waiting for a process ends with status 137.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from parma_api import volumes
from parma_api.gen.parma.agent import v1
from parma_api.ids import RootHash
from parma_api.status import ApiError, Code
from parma_shim.agent.client import AgentClient, Exit, Streams
from parma_shim.errors import GuestLostError
from parma_shim.io.stdio import Channel
from parma_shim.podconfig import RuntimeOptions
from parma_shim.sandbox.boot import Booted, boot
from parma_shim.sandbox.denial import Denials
from parma_shim.sandbox.layers import GuestLayers
from parma_shim.sandbox.phases import Phases
from parma_shim.sandbox.plan import ContainerPlan, SandboxPlan
from parma_shim.sandbox.portforward import serve_ports
from parma_shim.sandbox.ports import Layer, Ports, RunningMachine

log = logging.getLogger(__name__)

KILLED = 137
STOP_DEADLINE = 15.0
UNDO_DEADLINE = 30.0
REMOVE_DEADLINE = 8.0
"""containerd gives an event, the Delete in it included, 10 s."""
_EVENT_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class GuestContainer:
    """A container that the guest has."""

    plan: ContainerPlan
    layers: tuple[RootHash, ...]

    @property
    def id(self) -> str:
        """In the guest."""
        return self.plan.container_id


class Pod:
    """Made by `start_pod`."""

    def __init__(self, plan: SandboxPlan, booted: Booted, denials: Denials) -> None:
        self.plan = plan
        self.denials = denials
        self.dead = asyncio.Event()
        self.cause = ""
        self._booted = booted
        self._layers = GuestLayers(booted.link.machine, booted.link.agent)
        self._stopping: asyncio.Task[None] | None = None
        self._tasks = [
            asyncio.create_task(self._watch(), name="pod-watch"),
            asyncio.create_task(booted.volumes.keep_fresh(), name="volumes"),
        ]
        if booted.network is not None:
            forward = serve_ports(booted.network, self.agent, self.channel, denials)
            self._tasks.append(asyncio.create_task(forward, name="port-forward"))

    @property
    def agent(self) -> AgentClient:
        """For calls that need nothing else: their errors go through `asked`."""
        return self._booted.link.agent

    @property
    def channel(self) -> Channel:
        """For standard streams."""
        return self._booted.link.mux

    @property
    def pid(self) -> int:
        """The VMM's: what containerd sees."""
        return self._booted.link.machine.pid

    async def asked(self, answer: Awaitable[object]) -> None:
        """A call whose refusal is made readable. Raises ApiError."""
        try:
            await answer
        except ApiError as error:
            raise self._explained(error) from error

    async def create(
        self, plan: ContainerPlan, layers: Sequence[Layer], streams: Streams
    ) -> GuestContainer:
        """A container, ready to be started. Takes over `layers`. Raises ApiError; then nothing is left in the guest."""
        try:
            return await self._create(plan, layers, streams)
        except ApiError as error:
            raise self._explained(error) from error

    async def remove(self, container: GuestContainer) -> None:
        """Removes a container that has ended, within a time; a guest that is stuck keeps it, and nobody waits."""
        if self.dead.is_set():
            return
        try:
            async with asyncio.timeout(REMOVE_DEADLINE):
                await self._undo(self.agent.shutdown_container(container.id), "shutdown")
                await self._unmount(container.plan)
                await self._layers.release(container.layers)
        except TimeoutError:
            log.warning("container %s: the guest does not clean up", container.id[:12])

    async def wait(self, container: GuestContainer, exec_id: str = "") -> Exit:
        """The end of a process; KILLED when the pod dies first, or tells nonsense about it."""
        waiting = asyncio.create_task(self.agent.wait(container.id, exec_id))
        died = asyncio.create_task(self.dead.wait())
        try:
            await asyncio.wait((waiting, died), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done() and not waiting.cancelled():
                error = waiting.exception()
                if error is None:
                    return waiting.result()
                if not isinstance(error, ApiError):
                    raise error
                if error.code is not Code.UNAVAILABLE or self.alive_channel:
                    log.error("waiting for %s failed: %s", container.id[:12], error)
                    await self._kill_quietly(container, exec_id)
                else:
                    await self.dead.wait()
            return Exit(KILLED)
        finally:
            for task in (waiting, died):
                task.cancel()
            await asyncio.wait((waiting, died))

    @property
    def alive_channel(self) -> bool:
        """Whether calls can still be made."""
        return not self._booted.link.moving.done()

    async def stop(self) -> None:
        """Ends the VM and frees all that belongs to the pod. Idempotent, bounded in time."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name="pod-stop")
        await asyncio.shield(self._stopping)

    def on_out_of_memory(self, tell: Callable[[str], None]) -> None:
        """`tell` gets the guest's container ids; the caller checks that they are its own."""
        self._tasks.append(asyncio.create_task(self._listen(tell), name="guest-events"))

    async def _create(
        self, plan: ContainerPlan, layers: Sequence[Layer], streams: Streams
    ) -> GuestContainer:
        phases = Phases()
        async with contextlib.AsyncExitStack() as undo:
            taken = await self._layers.mount(layers)
            undo.push_async_callback(self._layers.release, taken)
            phases.done("layers")
            await self._booted.volumes.send_network_files(plan.network_files)
            await self._booted.volumes.send(plan.volumes)
            phases.done("files")
            await self.agent.mount_overlay(_overlay(plan, self._layers.paths(taken)))
            phases.done("overlay")
            undo.push_async_callback(self._unmount, plan)
            width, height = plan.terminal_size
            await self.agent.create_container(
                v1.CreateContainerRequest(
                    container_id=plan.container_id,
                    oci_spec=plan.document,
                    privileged=plan.privileged,
                    share_pod_pid=plan.share_pod_pid,
                    stdio=streams.message(),
                    terminal_width=width,
                    terminal_height=height,
                )
            )
            undo.pop_all()
        phases.done("create")
        log.info("container %s ready in %s", plan.container_id[:12], phases)
        return GuestContainer(plan, taken)

    async def _unmount(self, plan: ContainerPlan) -> None:
        target = volumes.root_path(plan.container_id)
        await self._undo(self.agent.unmount_overlay(plan.container_id, target), "unmount")

    async def _undo(self, answer: Awaitable[object], what: str) -> None:
        try:
            await answer
        except ApiError as error:
            log.warning("%s in the guest: %s", what, self._explained(error).message)

    async def _kill_quietly(self, container: GuestContainer, exec_id: str) -> None:
        """A process that cannot be watched must not live on unseen."""
        kill = self.agent.signal(container.id, exec_id, 9, every=not exec_id)
        await self._undo(kill, "kill")

    def _explained(self, error: ApiError) -> ApiError:
        if error.code is Code.UNAVAILABLE and self.cause:
            return GuestLostError(self.cause)
        return self.denials.explained(error)

    async def _watch(self) -> None:
        """The first end of the three is the pod's."""
        link = self._booted.link
        machine = asyncio.create_task(link.machine.wait())
        lost = asyncio.create_task(link.agent.wait_lost())
        try:
            await asyncio.wait((machine, lost, link.moving), return_when=asyncio.FIRST_COMPLETED)
            if not machine.done():
                # A VM that ends closes its channel a little earlier: the better cause is worth a moment.
                await asyncio.wait((machine,), timeout=0.5)
            if machine.done():
                self.cause = f"the utility VM has ended: {machine.result().cause}"
            else:
                self.cause = "the channel to the guest's agent is lost"
            log.info("pod %s is over: %s", self.plan.host_id, self.cause)
        finally:
            self.dead.set()
            machine.cancel()
            lost.cancel()
        await link.close()

    async def _listen(self, tell: Callable[[str], None]) -> None:
        after = 0
        try:
            while True:
                after, container_id = await self.agent.next_event(after)
                if container_id:
                    tell(container_id)
                await asyncio.sleep(_EVENT_PAUSE)  # a guest that never stops telling
        except ApiError as error:
            if not self.dead.is_set():
                log.warning("no more events from the guest: %s", error.message)

    async def _stop(self) -> None:
        self.cause = self.cause or "the pod was stopped"
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks, timeout=STOP_DEADLINE)
        self.dead.set()
        try:
            async with asyncio.timeout(STOP_DEADLINE):
                await self._booted.undo.aclose()
        except (ApiError, OSError, TimeoutError) as error:
            log.warning("pod %s is not cleaned up: %r", self.plan.host_id, error)
        self._layers.close()


async def start_pod(
    ports: Ports,
    plan: SandboxPlan,
    options: RuntimeOptions,
    run_dir: Path,
    launched: Callable[[RunningMachine], None],
) -> Pod:
    """Boots it. Raises ApiError, refusals of the policy already readable."""
    denials = Denials(ports.run_dir / "denials", plan.host_id)
    try:
        return Pod(plan, await boot(ports, plan, options, run_dir, launched), denials)
    except ApiError as error:
        raise denials.explained(error) from error


def _overlay(plan: ContainerPlan, paths: list[str]) -> v1.MountOverlayRequest:
    """With scratch for a read-only root too: mount points and the security context are made in it first."""
    return v1.MountOverlayRequest(
        container_id=plan.container_id,
        layer_paths=paths,
        target=volumes.root_path(plan.container_id),
        scratch_path=volumes.scratch_path(plan.sandbox_id, plan.container_id),
    )
