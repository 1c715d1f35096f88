"""The containers of one pod: made, started, ended, removed, with the events in the order that containerd expects.

An end is announced after the start, and a container's own end after those of its execs. Handlers may be cancelled at
any moment (containerd restarts); what must not stop halfway runs in a task of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TypeVar

from parma_api.gen.containerd.task import v2
from parma_api.gen.parma.agent import v1
from parma_api.status import AlreadyExistsError, ApiError
from parma_shim.agent.client import Exit, Streams
from parma_shim.errors import NoTaskError, RefusedError
from parma_shim.io.logger import LoggerIdentity
from parma_shim.io.stdio import ProcessStdio
from parma_shim.io.target import StdioPaths
from parma_shim.podconfig import RuntimeOptions
from parma_shim.sandbox.document import Object, read_document, text_map
from parma_shim.sandbox.plan import CONTAINER_TYPE, plan_container, plan_sandbox
from parma_shim.sandbox.pod import KILLED, Pod, start_pod
from parma_shim.sandbox.ports import Ports, RunningMachine
from parma_shim.sandbox.rootfs import check_rootfs
from parma_shim.sandbox.subpaths import resolve_subpaths
from parma_shim.sandbox.volumes import write_last_words
from parma_shim.task.announcements import created, deleted, exited, out_of_memory, started
from parma_shim.task.events import Publisher
from parma_shim.task.finding import drop_layers, unless_failed
from parma_shim.task.process import Process, Task
from parma_shim.task.states import Action, Kind, Status

log = logging.getLogger(__name__)

DRAIN_DEADLINE = 5.0
"""Seconds that Delete gives to output that nobody reads."""
EXECS_DEADLINE = 2.0
"""Seconds that execs may outlive their container's first process."""

T = TypeVar("T")


class Group:
    """All tasks of one shim."""

    def __init__(
        self,
        namespace: str,
        ports: Ports,
        publisher: Publisher,
        run_dir: Path,
        launched: Callable[[RunningMachine, Path | None], None],
    ) -> None:
        """`launched` is told of each machine, and of the pod's network namespace, for the state on disk."""
        self.namespace = namespace
        self.tasks: dict[str, Task] = {}
        self.pod: Pod | None = None
        self._ports = ports
        self._publish = publisher.publish
        self._run_dir = run_dir
        self._launched = launched
        self._creating: set[str] = set()
        self._booting = asyncio.Lock()
        self._background: set[asyncio.Task[object]] = set()

    def task(self, container_id: str) -> Task:
        """Raises NoTaskError."""
        found = self.tasks.get(container_id)
        if found is None:
            raise NoTaskError(f"container {container_id[:64]}")
        return found

    # --- create ----------------------------------------------------------------------------------------------------

    async def create(self, request: v2.CreateTaskRequest, options: RuntimeOptions) -> Task:
        """Raises ApiError; then nothing of the container is left, nor of a pod that was booted for it."""
        name = request.id
        if name in self.tasks or name in self._creating:
            raise AlreadyExistsError(f"container {name[:64]}: already exists")
        self._creating.add(name)
        try:
            async with contextlib.AsyncExitStack() as undo:
                task = await self._create(request, options, undo)
                undo.pop_all()
        finally:
            self._creating.discard(name)
        self.tasks[name] = task
        self._publish(created(request, task))
        if task.guest is not None:
            self._apart(self._watch_init(task))
        else:
            self._apart(self._watch_sandbox(task))
        return task

    async def _create(
        self,
        request: v2.CreateTaskRequest,
        options: RuntimeOptions,
        undo: contextlib.AsyncExitStack,
    ) -> Task:
        bundle = Path(request.bundle)
        check_rootfs(request.rootfs)
        document = await asyncio.to_thread(_read_document, bundle)
        is_sandbox = text_map(document, "annotations").get(CONTAINER_TYPE) == "sandbox"
        paths = StdioPaths(request.stdin, request.stdout, request.stderr, request.terminal)
        task = Task(request.id, bundle, Process(Kind.INIT, paths), is_sandbox)
        if is_sandbox:
            pod = await self._ensure_pod(document, request.id, options, undo)
        else:
            pod = await self._create_in_guest(task, document, options, undo)
        task.init.pid = pod.pid
        return task

    async def _create_in_guest(
        self,
        task: Task,
        document: Object,
        options: RuntimeOptions,
        undo: contextlib.AsyncExitStack,
    ) -> Pod:
        """Layers are converted while the VM boots."""
        known = self.pod.plan if self.pod else plan_sandbox(document, self.namespace, task.id)
        plan = plan_container(document, self.namespace, task.id, known, self._ports.host_paths)
        stdio = await ProcessStdio.open(task.init.paths, self._identity(task.id))
        undo.push_async_callback(stdio.close)
        finding = asyncio.ensure_future(self._ports.layers(task.id))
        async with contextlib.AsyncExitStack() as unclaimed:
            unclaimed.push_async_callback(drop_layers, finding)
            pod = await unless_failed(self._ensure_pod(document, task.id, options, undo), finding)
            layers = await finding
            streams = stdio.connect(pod.channel)
            unclaimed.pop_all()  # `create` takes them over
        task.guest = await pod.create(plan, layers, streams)
        task.init.connected(stdio)
        return pod

    async def _ensure_pod(
        self,
        document: Object,
        host_id: str,
        options: RuntimeOptions,
        undo: contextlib.AsyncExitStack,
    ) -> Pod:
        async with self._booting:
            if self.pod is not None:
                if self.pod.dead.is_set():
                    raise RefusedError(f"the pod is over: {self.pod.cause}")
                return self.pod
            if text_map(document, "annotations").get(CONTAINER_TYPE) == "container":
                raise RefusedError("the pod of this container is not running any more")
            plan = plan_sandbox(document, self.namespace, host_id)
            pod = await start_pod(
                self._ports,
                plan,
                options,
                self._run_dir,
                lambda running: self._launched(running, plan.netns),
            )
            pod.on_out_of_memory(self._out_of_memory)
            self.pod = pod
        undo.push_async_callback(self._stop_pod, pod)
        return pod

    # --- start and end ---------------------------------------------------------------------------------------------

    async def start(self, task: Task, exec_id: str) -> Process:
        """Raises ApiError."""
        process = task.process(exec_id)
        await self._whole(self._start(task, process))
        return process

    async def _start(self, task: Task, process: Process) -> None:
        async with process.lock:
            status = process.require(Action.START)
            if process.kind is Kind.EXEC:
                task.init.require(Action.START_EXEC)
                await self._start_exec(task, process)
            elif task.guest is not None:
                pod = self.require_pod()
                await pod.asked(pod.agent.start_container(task.guest.id))
            process.status = status
            self._publish(started(task, process))
        if process.kind is Kind.EXEC:
            self._apart(self._watch_exec(task, process))

    async def _start_exec(self, task: Task, process: Process) -> None:
        if task.guest is None:
            raise RefusedError(
                "exec: the pod's own container is not run, there is nothing to execute in"
            )
        pod = self.require_pod()
        stdio = await ProcessStdio.open(process.paths, self._identity(task.id))
        size = process.size
        try:
            streams = stdio.connect(pod.channel)
            await pod.asked(pod.agent.exec_process(_exec_request(task, process, streams)))
        except BaseException:
            await stdio.close()
            raise
        process.pid = pod.pid
        process.connected(stdio)
        if process.size != size:
            with contextlib.suppress(ApiError):  # it may have ended
                await pod.agent.resize(task.guest.id, process.exec_id, *process.size)

    async def _watch_init(self, task: Task) -> None:
        assert task.guest is not None
        pod = self.require_pod()
        how = await pod.wait(task.guest)
        running = [x for x in task.execs.values() if x.status is Status.RUNNING]
        if running:
            late = [asyncio.create_task(x.ended.wait()) for x in running]
            _, pending = await asyncio.wait(late, timeout=EXECS_DEADLINE)
            for waiter in pending:
                waiter.cancel()
        for process in running:
            self._ended(task, process, Exit(KILLED))
        if how.last_words:
            await asyncio.to_thread(write_last_words, task.guest.plan.volumes, how.last_words)
        async with task.init.lock:
            if how.oom_killed:
                self._tell_out_of_memory(task)
            self._ended(task, task.init, how)

    async def _watch_exec(self, task: Task, process: Process) -> None:
        assert task.guest is not None
        how = await self.require_pod().wait(task.guest, process.exec_id)
        async with process.lock:
            self._ended(task, process, how)

    async def _watch_sandbox(self, task: Task) -> None:
        """The pause container ends when it is killed, or with its VM."""
        pod = self.require_pod()
        died = asyncio.create_task(pod.dead.wait())
        killed = asyncio.create_task(task.init.ended.wait())
        try:
            await asyncio.wait((died, killed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            died.cancel()
            killed.cancel()
        async with task.init.lock:
            self._ended(task, task.init, Exit(KILLED))

    def end_sandbox(self, task: Task, status: int) -> None:
        """A signal that ends the pause container. Its VM lives until it is deleted."""
        self._ended(task, task.init, Exit(status))

    def _ended(self, task: Task, process: Process, how: Exit) -> None:
        if not process.finish(how):
            return
        self._publish(exited(task, process))
        if process.stdio is not None:
            self._apart(process.stdio.drain(None))

    # --- removal ---------------------------------------------------------------------------------------------------

    async def delete(self, task: Task, exec_id: str) -> Process:
        """Raises ApiError."""
        process = task.process(exec_id)
        await self._whole(self._delete(task, process))
        return process

    async def _delete(self, task: Task, process: Process) -> None:
        async with process.lock:
            if self._gone(task, process):
                raise NoTaskError(f"{process.kind.value} {process.exec_id or task.id}")
            process.require(Action.DELETE)
            process.status = Status.STOPPED
            if process.stdio is not None:
                await process.stdio.drain(DRAIN_DEADLINE)
                self._apart(process.stdio.close())
            if process.kind is Kind.EXEC:
                del task.execs[process.exec_id]
                return
            await self._remove(task)
            del self.tasks[task.id]
            process.finish(Exit(KILLED))
            self._publish(deleted(task))

    def _gone(self, task: Task, process: Process) -> bool:
        if process.kind is Kind.EXEC:
            return task.execs.get(process.exec_id) is not process
        return self.tasks.get(task.id) is not task

    async def _remove(self, task: Task) -> None:
        """The last container takes the VM with it, and so does the pause container: its network goes away next."""
        pod = self.pod
        if pod is None:
            return
        if task.is_sandbox or len(self.tasks) == 1:
            await self._stop_pod(pod)
        elif task.guest is not None:
            await pod.remove(task.guest)

    async def stop(self) -> None:
        """The end of the shim."""
        if self.pod is not None:
            await self._stop_pod(self.pod)
        for task in self.tasks.values():
            for process in (*task.execs.values(), task.init):
                if process.stdio is not None:
                    await process.stdio.drain(0)

    async def _stop_pod(self, pod: Pod) -> None:
        await pod.stop()
        if self.pod is pod and not self.tasks.keys() - {pod.plan.host_id}:
            self.pod = None

    # --- the rest --------------------------------------------------------------------------------------------------

    def require_pod(self) -> Pod:
        """Raises RefusedError when there is none."""
        if self.pod is None:
            raise RefusedError("the pod is not running any more")
        return self.pod

    def _out_of_memory(self, guest_id: str) -> None:
        """The guest names a container: only one of ours counts (attacks.md, K18a)."""
        for task in self.tasks.values():
            if task.guest is not None and task.guest.id == guest_id:
                self._tell_out_of_memory(task)
                return
        log.warning("the guest reports out of memory for a container that it does not have")

    def _tell_out_of_memory(self, task: Task) -> None:
        if not task.oom_told and task.init.exit is None:
            task.oom_told = True
            self._publish(out_of_memory(task))

    def _identity(self, container_id: str) -> LoggerIdentity:
        return LoggerIdentity(container_id, self.namespace)

    async def _whole(self, work: Coroutine[object, object, T]) -> T:
        """Runs to its end even if the caller's connection is lost."""
        return await asyncio.shield(self._apart(work))

    def _apart(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[object]) -> None:
        self._background.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ApiError):
            log.error("an error of the shim's own", exc_info=error)


def _read_document(bundle: Path) -> Object:
    """Raises RefusedError, UsageError."""
    return resolve_subpaths(read_document(bundle))


def _exec_request(task: Task, process: Process, streams: Streams) -> v1.ExecProcessRequest:
    assert task.guest is not None
    width, height = process.size
    return v1.ExecProcessRequest(
        container_id=task.guest.id,
        exec_id=process.exec_id,
        oci_process=process.document,
        stdio=streams.message(),
        terminal_width=width,
        terminal_height=height,
    )
