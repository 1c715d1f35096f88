"""What containerd is told of a task, as its events (containerd's api/events/task.proto)."""

from __future__ import annotations

from datetime import UTC, datetime

from parma_api.gen.containerd import events
from parma_api.gen.containerd.task import v2
from parma_shim.task.process import Process, Task
from parma_shim.task.states import Kind


def created(request: v2.CreateTaskRequest, task: Task) -> events.TaskCreate:
    """A container was made; its streams are those that containerd asked for."""
    paths = task.init.paths
    return events.TaskCreate(
        container_id=task.id,
        bundle=request.bundle,
        rootfs=request.rootfs,
        io=events.TaskIo(
            stdin=paths.stdin, stdout=paths.stdout, stderr=paths.stderr, terminal=paths.terminal
        ),
        checkpoint=request.checkpoint,
        pid=task.init.pid,
    )


def started(task: Task, process: Process) -> events.TaskStart | events.TaskExecStarted:
    """A container's first process runs, or an exec."""
    if process.kind is Kind.INIT:
        return events.TaskStart(container_id=task.id, pid=process.pid)
    return events.TaskExecStarted(container_id=task.id, exec_id=process.exec_id, pid=process.pid)


def deleted(task: Task) -> events.TaskDelete:
    """A container is gone."""
    return events.TaskDelete(
        container_id=task.id,
        pid=task.init.pid,
        exit_status=task.init.exit_status,
        exited_at=task.init.exited_at or datetime.now(UTC),
    )


def exited(task: Task, process: Process) -> events.TaskExit:
    """A process that has finished."""
    assert process.exited_at is not None
    return events.TaskExit(
        container_id=task.id,
        id=process.exec_id or task.id,
        pid=process.pid,
        exit_status=process.exit_status,
        exited_at=process.exited_at,
    )


def out_of_memory(task: Task) -> events.TaskOom:
    """The guest's kernel has killed one of its processes."""
    return events.TaskOom(container_id=task.id)
