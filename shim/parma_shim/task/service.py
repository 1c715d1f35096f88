"""containerd's task service, versions 2 and 3: each request translated, each answer put together (containerd.md 3)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import grpclib.const
from betterproto.lib.google.protobuf import Any, Empty

from parma_api.gen.containerd import events
from parma_api.gen.containerd.task import v2
from parma_api.gen.containerd.v1 import types
from parma_api.gen.io.containerd.cgroups import v2 as cgroups
from parma_api.gen.runtimeoptions.v1 import Options
from parma_api.status import (
    AlreadyExistsError,
    ApiError,
    Code,
    InvalidArgumentError,
    UnimplementedError,
)
from parma_api.ttrpc.service import ServiceBase
from parma_api.wire.strict import Unknown, decode
from parma_shim.errors import NoTaskError
from parma_shim.io.target import StdioPaths
from parma_shim.podconfig import RuntimeOptions
from parma_shim.sandbox.document import parse_object
from parma_shim.sandbox.plan import plan_exec
from parma_shim.task.events import Publisher
from parma_shim.task.group import Group
from parma_shim.task.metrics import metrics, packed
from parma_shim.task.process import Process, Task
from parma_shim.task.resources import parse_resources
from parma_shim.task.states import Action, Kind, Status

MAX_SIGNAL = 64
MAX_EXECS = 4096
_OPTIONS = "runtimeoptions.v1.Options"
_TYPES_PREFIX = "type.googleapis.com/"
_PAUSE_SIGNALS = {signal.SIGTERM: 0, signal.SIGINT: 0, signal.SIGKILL: 128 + signal.SIGKILL}
"""What ends the pause container, which nobody runs, and with which status: as the real one's handlers do."""
V2, V3 = "/containerd.task.v2.Task/", "/containerd.task.v3.Task/"


class TaskService(v2.TaskBase):
    """`on_shutdown` is called once, when containerd wants the shim to end and no container is left."""

    def __init__(self, group: Group, publisher: Publisher, on_shutdown: Callable[[], None]) -> None:
        self._group = group
        self._publish = publisher.publish
        self._on_shutdown = on_shutdown

    async def create(self, create_task_request: v2.CreateTaskRequest) -> v2.CreateTaskResponse:
        request = create_task_request
        if request.checkpoint:
            raise UnimplementedError("checkpoints are not offered: not implemented")
        task = await self._group.create(request, runtime_options(request.options))
        return v2.CreateTaskResponse(pid=task.init.pid)

    async def start(self, start_request: v2.StartRequest) -> v2.StartResponse:
        task = self._group.task(start_request.id)
        process = await self._group.start(task, start_request.exec_id)
        return v2.StartResponse(pid=process.pid)

    async def delete(self, delete_request: v2.DeleteRequest) -> v2.DeleteResponse:
        task = self._group.task(delete_request.id)
        process = await self._group.delete(task, delete_request.exec_id)
        return v2.DeleteResponse(
            pid=process.pid, exit_status=process.exit_status, **process.times()
        )

    async def state(self, state_request: v2.StateRequest) -> v2.StateResponse:
        task, process = self._find(state_request.id, state_request.exec_id)
        return task.state(process)

    async def wait(self, wait_request: v2.WaitRequest) -> v2.WaitResponse:
        _, process = self._find(wait_request.id, wait_request.exec_id)
        await process.ended.wait()
        return v2.WaitResponse(exit_status=process.exit_status, **process.times())

    async def kill(self, kill_request: v2.KillRequest) -> Empty:
        request = kill_request
        if not 0 <= request.signal <= MAX_SIGNAL:
            raise InvalidArgumentError(f"signal {request.signal} does not exist")
        task, process = self._find(request.id, request.exec_id)
        process.require(Action.KILL)
        if request.signal == 0:
            return Empty()
        if task.guest is None:
            if request.signal in _PAUSE_SIGNALS:
                self._group.end_sandbox(task, _PAUSE_SIGNALS[signal.Signals(request.signal)])
            return Empty()
        await self._signal(task, process, request)
        return Empty()

    async def exec(self, exec_process_request: v2.ExecProcessRequest) -> Empty:
        request = exec_process_request
        task = self._group.task(request.id)
        if not request.exec_id or request.exec_id in task.execs:
            raise AlreadyExistsError(f"exec {request.exec_id[:64]}: already exists")
        task.init.require(Action.EXEC)
        if len(task.execs) >= MAX_EXECS:
            raise InvalidArgumentError(f"more than {MAX_EXECS} execs that nobody deleted")
        paths = StdioPaths(request.stdin, request.stdout, request.stderr, request.terminal)
        paths.targets()
        document = plan_exec(
            parse_object(request.spec.value, "exec: the process"), terminal=request.terminal
        )
        task.execs[request.exec_id] = Process(Kind.EXEC, paths, document, request.exec_id)
        self._publish(events.TaskExecAdded(container_id=task.id, exec_id=request.exec_id))
        return Empty()

    async def resize_pty(self, resize_pty_request: v2.ResizePtyRequest) -> Empty:
        request = resize_pty_request
        task, process = self._find(request.id, request.exec_id)
        size = min(request.width, 0xFFFF), min(request.height, 0xFFFF)
        if not process.paths.terminal or task.guest is None or process.status is Status.STOPPED:
            return Empty()
        process.size = size
        if process.kind is Kind.INIT or process.status is not Status.CREATED:
            pod = self._group.require_pod()
            await pod.asked(pod.agent.resize(task.guest.id, request.exec_id, *size))
        return Empty()

    async def close_io(self, close_io_request: v2.CloseIoRequest) -> Empty:
        _, process = self._find(close_io_request.id, close_io_request.exec_id)
        if close_io_request.stdin:
            process.end_input()
        return Empty()

    async def pids(self, pids_request: v2.PidsRequest) -> v2.PidsResponse:
        task = self._group.task(pids_request.id)
        return v2.PidsResponse(processes=[types.ProcessInfo(pid=task.init.pid)])

    async def pause(self, pause_request: v2.PauseRequest) -> Empty:
        task = self._alone(pause_request.id)
        status = task.init.require(Action.PAUSE)
        pod = self._group.require_pod()
        await pod.asked(pod.agent.pause())
        self._turn(task, Status.RUNNING, status)
        self._publish(events.TaskPaused(container_id=task.id))
        return Empty()

    async def resume(self, resume_request: v2.ResumeRequest) -> Empty:
        task = self._alone(resume_request.id)
        status = task.init.require(Action.RESUME)
        pod = self._group.require_pod()
        await pod.asked(pod.agent.resume())
        self._turn(task, Status.PAUSED, status)
        self._publish(events.TaskResumed(container_id=task.id))
        return Empty()

    async def checkpoint(self, checkpoint_task_request: v2.CheckpointTaskRequest) -> Empty:
        raise UnimplementedError("checkpoints are not offered: not implemented")

    async def update(self, update_task_request: v2.UpdateTaskRequest) -> Empty:
        task = self._group.task(update_task_request.id)
        task.init.require(Action.UPDATE)
        resources = parse_resources(update_task_request.resources.value)
        if task.guest is not None:
            pod = self._group.require_pod()
            await pod.asked(pod.agent.update(task.guest.id, resources))
        return Empty()

    async def stats(self, stats_request: v2.StatsRequest) -> v2.StatsResponse:
        """Of a stopped container: what the guest still knows, else the last that it told."""
        task = self._group.task(stats_request.id)
        pod = self._group.pod
        if task.guest is not None and pod is not None and not pod.dead.is_set():
            try:
                found = metrics(await pod.agent.stats(task.guest.id))
                task.last_stats = v2.StatsResponse(stats=packed(found))
            except ApiError as error:
                if task.init.exit is None:
                    raise pod.denials.explained(error) from error
        return task.last_stats or v2.StatsResponse(stats=packed(_final_metrics(task)))

    async def connect(self, connect_request: v2.ConnectRequest) -> v2.ConnectResponse:
        """Also for an id that nobody knows: containerd asks whether the shim lives."""
        task = self._group.tasks.get(connect_request.id)
        pid = task.init.pid if task is not None else 0
        return v2.ConnectResponse(shim_pid=os.getpid(), task_pid=pid)

    async def shutdown(self, shutdown_request: v2.ShutdownRequest) -> Empty:
        """Answered first: the server ends when this call's answer is written."""
        if not self._group.tasks:
            asyncio.get_running_loop().call_soon(self._on_shutdown)
        return Empty()

    def _find(self, container_id: str, exec_id: str) -> tuple[Task, Process]:
        task = self._group.task(container_id)
        return task, task.process(exec_id)

    async def _signal(self, task: Task, process: Process, request: v2.KillRequest) -> None:
        assert task.guest is not None
        pod = self._group.require_pod()
        every = request.all and process.kind is Kind.INIT
        try:
            await pod.agent.signal(task.guest.id, request.exec_id, request.signal, every=every)
        except ApiError as error:
            if error.code is Code.NOT_FOUND or pod.dead.is_set():
                raise NoTaskError("process already finished") from error
            is_end = request.signal == signal.SIGKILL and process.kind is Kind.INIT
            if error.code is not Code.PERMISSION_DENIED or not is_end:
                raise pod.denials.explained(error) from error
            # A policy that names no signals: the container is ended by the point that is made for it.
            await pod.asked(pod.agent.shutdown_container(task.guest.id))

    def _alone(self, container_id: str) -> Task:
        """The guest freezes a whole group. Raises UnimplementedError for one container of several."""
        task = self._group.task(container_id)
        others = [x for x in self._group.tasks.values() if x is not task and x.guest is not None]
        if others:
            raise UnimplementedError(
                "a utility VM pauses its whole group, not one container of it: not implemented"
            )
        return task

    def _turn(self, task: Task, before: Status, status: Status) -> None:
        """Unless it ended meanwhile."""
        if task.init.status is before:
            task.init.status = status


class TaskServiceV3(ServiceBase):
    """The same object under the name of version 3: the messages are equal field for field."""

    def __init__(self, service: TaskService) -> None:
        self._service = service

    def __mapping__(self) -> dict[str, grpclib.const.Handler]:
        return {
            route.replace(V2, V3): handler for route, handler in self._service.__mapping__().items()
        }


def runtime_options(packed_options: Any) -> RuntimeOptions:
    """Options of another runtime's kind say nothing to us. Raises InvalidArgumentError."""
    if packed_options.type_url.removeprefix(_TYPES_PREFIX) != _OPTIONS:
        return RuntimeOptions()
    options = decode(Options, packed_options.value, unknown=Unknown.IGNORE)
    return RuntimeOptions(options.config_path, options.config_body)


def _final_metrics(task: Task) -> cgroups.Metrics:
    """Of a container that the guest has no numbers of: nothing runs, and whether memory was its end."""
    oom = int(task.init.exit is not None and task.init.exit.oom_killed)
    return cgroups.Metrics(
        pids=cgroups.PidsStat(),
        cpu=cgroups.CpuStat(),
        memory=cgroups.MemoryStat(),
        memory_events=cgroups.MemoryEvents(oom=oom, oom_kill=oom),
    )
