"""Containers: what is done once the gate has allowed it. Each step is taken back if a later one fails."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from parma_api.gen.parma.agent.v1 import Stdio as StdioMessage
from parma_api.ids import ContainerId
from parma_api.policy.decision import Decision
from parma_api.status import FailedPreconditionError, InvalidArgumentError
from parma_api.volumes import root_path
from parma_guest.agent import context_dir, net_admin
from parma_guest.agent.sandbox import Group
from parma_guest.oci import mounts
from parma_guest.oci.build import ContainerPlan, ProcessPlan, build_container, build_process
from parma_guest.oci.devices import Device
from parma_guest.oci.mounts import Propagation
from parma_guest.oci.parse import Process
from parma_guest.oci.resources import bounded, machine
from parma_guest.oci.users import Identities
from parma_guest.policy.inputs import ContainerFacts, ProcessFacts
from parma_guest.process.console import MAX_SIZE
from parma_guest.process.oom import MemoryWatch
from parma_guest.process.runtime import Started
from parma_guest.process.stdio import Access, Console, Stdio, StreamIds
from parma_guest.process.table import Key

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Facilities:
    """What privileged containers, which the policy must allow, get besides: report device, the agent's own files."""

    devices: tuple[Device, ...] = ()
    block_majors: tuple[int, ...] = ()
    binds: tuple[tuple[str, str], ...] = ()


FacilitiesFor = Callable[[Propagation], Awaitable[Facilities]]
"""By what the container does for the others: who mounts file systems for them gets what that takes."""


async def no_facilities(_propagation: Propagation) -> Facilities:
    """Where there are none."""
    return Facilities()


@dataclass(frozen=True, slots=True)
class Shape:
    """What the host says about a process's streams."""

    stdio: StdioMessage
    width: int
    height: int


class Containers:
    """The containers of the group."""

    def __init__(
        self,
        group: Group,
        memory: MemoryWatch,
        context_files: Callable[[], Mapping[str, bytes]],
        facilities: FacilitiesFor = no_facilities,
    ) -> None:
        """`context_files`: of the security context directory, as they are now."""
        self._group = group
        self._memory = memory
        self._context_files = context_files
        self._facilities = facilities
        self._context_dirs: dict[str, str | None] = {}
        self._logs: dict[ContainerId, str] = {}
        self.paused = False

    async def create(
        self,
        facts: ContainerFacts,
        decision: Decision,
        shape: Shape,
        *,
        share_pid: bool,
        deadline: float,
    ) -> int:
        """Set a judged container up; its first process waits. The pid. Raises ApiError, with nothing left behind."""
        group, container = self._group, facts.container
        self._require_not_paused()
        group.processes.require_new(Key(container))
        mounts.check(facts.mounts, group.require_sandbox())
        process = facts.document.process
        with ExitStack() as undo:
            target = root_path(container)
            group.storage.hold_overlay(target, container)
            undo.callback(group.storage.release_overlay, target, container)
            stdio = self._stdio(process, facts.identities, decision, shape)
            undo.callback(stdio.discard)
            name = self._write_context(container, undo)
            plan = await self._plan(facts, decision, stdio, shape, name, share_pid=share_pid)
            try:
                document = build_container(plan)
                started = await group.runtime.create(
                    container, document, stdio.descriptors, deadline
                )
            finally:
                group.sources.unpin(container)
            await self._adopt(Key(container), process.args, started, stdio, shape)
            undo.pop_all()
        self._context_dirs[container] = plan.context_dir
        log_file = mounts.termination_log(facts.mounts, group.require_sandbox())
        if log_file is not None and decision.allow_stdio_access:
            self._logs[container] = log_file
        self._memory.add(container, group.runtime.cgroup(container))
        return started.pid

    def _write_context(self, container: ContainerId, undo: ExitStack) -> str | None:
        root = self._group.layout.root(container)
        name = context_dir.write(root, self._context_files())
        if name is None:
            log.warning("container %s has no security context directory", container[:12])
            return None
        undo.callback(context_dir.remove, root, name)
        return name

    async def _plan(
        self,
        facts: ContainerFacts,
        decision: Decision,
        stdio: Stdio,
        shape: Shape,
        context_name: str | None,
        *,
        share_pid: bool,
    ) -> ContainerPlan:
        group, document, container = self._group, facts.document, facts.container
        pod = group.require_sandbox()
        found = [mounts.bind_source(m, pod) for m in facts.mounts if mounts.is_bind(m)]
        namespaces = await group.network.namespaces(share_pid=share_pid)
        shm = group.sources.shared_memory(pod)
        privileged = bool(decision.input["privileged"])
        assert decision.caps is not None
        await net_admin.prepare(decision.caps)
        extra = Facilities()
        if privileged:
            extra = await self._facilities(mounts.propagation(facts.mounts, privileged=True))
        shown = {source.path: source.inner for source in found}
        shared = mounts.propagating(facts.mounts)
        pins = await group.sources.pin(pod, container, shown, shared)
        return ContainerPlan(
            container=container,
            process=_process_plan(document.process, facts.identities, decision, stdio, shape),
            root=group.layout.root(container),
            read_only=document.root_readonly,
            mounts=facts.mounts,
            namespaces=namespaces,
            seccomp=document.seccomp,
            limits=bounded(document.resources, machine()),
            privileged=privileged,
            shm=shm,
            context_dir=None if context_name is None else f"/{context_name}",
            pins=pins,
            devices=extra.devices,
            block_majors=extra.block_majors,
            binds=extra.binds,
        )

    async def _adopt(
        self, key: Key, args: tuple[str, ...], started: Started, stdio: Stdio, shape: Shape
    ) -> None:
        """Take a process that exists into the books; should that fail, its container goes again."""
        try:
            if started.terminal is not None:
                stdio.attach_terminal(started.terminal, (shape.width, shape.height))
            self._group.processes.add(key, args, started, stdio)
        except BaseException:
            with suppress(ProcessLookupError):
                os.kill(started.pid, signal.SIGKILL)
            if not key.exec_id:
                soon = asyncio.get_running_loop().time() + 10.0
                await self._group.runtime.delete(ContainerId(key.container), soon)
            raise

    async def start(self, container: ContainerId, deadline: float) -> None:
        """Run the first process, once. Raises NotFoundError, FailedPreconditionError, InternalError."""
        self._require_not_paused()
        self._group.network.close()
        self._group.processes.start(container)
        try:
            await self._group.runtime.start(container, deadline)
        except BaseException:
            self._group.runtime.kill_all(container)  # half started is not a state
            raise

    async def execute(
        self, facts: ProcessFacts, decision: Decision, exec_id: str, shape: Shape, deadline: float
    ) -> int:
        """Run a judged further process. Raises ApiError; then it does not run."""
        key = Key(facts.container, exec_id)
        self._require_not_paused()
        self._group.processes.require_new(key)
        if facts.process.terminal and not decision.allow_stdio_access:
            raise FailedPreconditionError(
                "a terminal is refused: the policy withholds this container's standard streams"
            )
        stdio = self._stdio(facts.process, facts.identities, decision, shape)
        try:
            plan = _process_plan(facts.process, facts.identities, decision, stdio, shape)
            document = build_process(plan, self._context_dirs.get(facts.container))
            runtime = self._group.runtime
            started = await runtime.execute(facts.container, document, stdio.descriptors, deadline)
            await self._adopt(key, facts.process.args, started, stdio, shape)
        except BaseException:
            stdio.discard()
            raise
        return started.pid

    def signal(self, container: ContainerId, exec_id: str, number: int) -> None:
        """To one process. Raises NotFoundError."""
        self._group.processes.signal(Key(container, exec_id), number)

    def signal_all(self, container: ContainerId, number: int) -> None:
        """To every process of the container. Raises NotFoundError if it has ended."""
        if not self._group.processes.commands(container):
            self._group.processes.signal(Key(container), 0)  # says why not
        if number == signal.SIGKILL:
            self._group.runtime.kill_all(container)
            return
        for pid in self._group.runtime.pids(container):
            with suppress(ProcessLookupError):
                handle = os.pidfd_open(pid)
                try:
                    signal.pidfd_send_signal(handle, number)
                finally:
                    os.close(handle)

    async def termination_log(self, container: ContainerId) -> bytes:
        """The end of a container's log file; empty without one, or where the policy withholds standard streams."""
        inner = self._logs.get(container)
        if inner is None:
            return b""
        return await self._group.sources.last_words(self._group.require_sandbox(), inner)

    async def shutdown(self, container: ContainerId, deadline: float) -> None:
        """End all of its processes and forget it; one that is not there is fine. Raises ApiError."""
        group = self._group
        if container not in group.processes.containers():
            return
        group.runtime.kill_all(container)
        await group.processes.wait_all(container)
        await group.runtime.delete(container, deadline)
        group.processes.forget(container)
        group.storage.release_overlay(root_path(container), container)
        self._memory.remove(container)
        self._context_dirs.pop(container, None)
        self._logs.pop(container, None)

    def _stdio(self, process: Process, who: Identities, decision: Decision, shape: Shape) -> Stdio:
        if shape.width > MAX_SIZE or shape.height > MAX_SIZE:
            raise InvalidArgumentError("a terminal has at most 65535 columns and rows")
        return Stdio(
            self._group.background,
            self._group.channel(),
            StreamIds(shape.stdio.stdin, shape.stdio.stdout, shape.stdio.stderr),
            Access.GRANTED if decision.allow_stdio_access else Access.WITHHELD,
            Console.TERMINAL if process.terminal else Console.PIPES,
            (who.user.number, who.groups[0].number),
        )

    def _require_not_paused(self) -> None:
        if self.paused:
            raise FailedPreconditionError("the group is paused: resume it first")


def _process_plan(
    process: Process, who: Identities, decision: Decision, stdio: Stdio, shape: Shape
) -> ProcessPlan:
    assert decision.env_list is not None
    assert decision.caps is not None
    return ProcessPlan(
        args=process.args,
        env=decision.env_list,
        cwd=process.cwd,
        identities=who,
        capabilities=decision.caps,
        no_new_privileges=process.no_new_privileges,
        terminal=stdio.has_terminal,
        size=(shape.width, shape.height),
    )
