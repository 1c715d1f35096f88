"""A guest without a VM: the agent's protocol over a socket pair, with real local processes in place of containers.

`FakeMachine` stands where QEMU is (its pid is a sleeping process: killing "the VM" means something), `FakeAgent`
where the agent is. `Behaviour` makes a guest late, silent, wrong or hostile, call by call.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ
from typing import TypeVar

import betterproto

from parma_api.channel.mux import Mux
from parma_api.channel.session import Side
from parma_api.channel.stream import ByteStream, FdStream, SocketStream, StreamClosedError
from parma_api.gen.parma.agent import v1
from parma_api.status import FailedPreconditionError, NotFoundError
from parma_api.ttrpc.server import Proceed, TtrpcServer
from parma_api.ttrpc.service import MethodInfo
from parma_shim.sandbox.ports import Launch
from parma_shim.vmm.disks import DiskAccess, ScsiAddress
from parma_shim.vmm.errors import BootFailureError
from parma_shim.vmm.machine import MachineExit

T = TypeVar("T")
Answer = Callable[[betterproto.Message], Awaitable[betterproto.Message]]


@dataclass
class Behaviour:
    """What a test wants of its guests; shared by all machines of a test."""

    answers: dict[str, Answer] = field(default_factory=dict)
    """Method -> what is done in its place."""
    calls: list[tuple[str, betterproto.Message]] = field(default_factory=list)
    """All calls that came, in order."""
    failing_boots: int = 0
    """So many machines end before their agent answers."""
    machines: list[FakeMachine] = field(default_factory=list)

    def called(self, method: str) -> list[betterproto.Message]:
        """The requests of one method."""
        return [request for name, request in self.calls if name == method]

    held: dict[str, asyncio.Event] = field(default_factory=dict)
    """Calls by method that wait for an event before anything happens."""

    def methods(self) -> list[str]:
        """The names of all calls, in order."""
        return [name for name, _ in self.calls]


@dataclass
class _Process:
    arguments: list[str]
    environment: dict[str, str]
    terminal: bool
    stdio: v1.Stdio
    size: tuple[int, int] = (0, 0)
    popen: subprocess.Popen[bytes] | None = None
    status: int | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    master: int = -1

    def end(self, status: int) -> None:
        if self.status is None:
            self.status = status
            self.ended.set()


class FakeAgent(v1.AgentBase):
    """The agent of one machine."""

    def __init__(self, machine: FakeMachine, behaviour: Behaviour, channel: socket.socket) -> None:
        self._machine = machine
        self._behaviour = behaviour
        self._mux = Mux(SocketStream(channel), side=Side.GUEST)
        self._containers: dict[str, dict[str, _Process]] = {}
        self._layers: dict[str, str] = {}
        self.files: dict[str, bytes] = {}
        self.events: asyncio.Queue[str] = asyncio.Queue()
        self._sequence = 0
        self._tasks: set[asyncio.Task[None]] = set()
        server = TtrpcServer([self], interceptor=self._intercept)
        self._spawn(self._mux.run())
        self._spawn(server.serve(self._mux.control))

    async def close(self) -> None:
        """The VM's end: every process in it is gone."""
        for processes in self._containers.values():
            for process in processes.values():
                _kill(process, signal.SIGKILL)
        self._mux.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for processes in self._containers.values():
            for process in processes.values():
                if process.popen is not None:
                    process.popen.wait()
                    process.popen = None

    @property
    def mounted(self) -> dict[str, str]:
        """Layers by target."""
        return self._layers

    async def _intercept(
        self, info: MethodInfo, request: betterproto.Message, proceed: Proceed
    ) -> betterproto.Message:
        self._behaviour.calls.append((info.method, request))
        held = self._behaviour.held.get(info.method)
        if held is not None:
            await held.wait()
        answer = self._behaviour.answers.get(info.method)
        return await (answer(request) if answer is not None else proceed(request))

    async def health(self, health_request: v1.HealthRequest) -> v1.HealthResponse:
        return v1.HealthResponse(version="fake", variant="stub", kernel="none")

    async def set_policy(self, set_policy_request: v1.SetPolicyRequest) -> v1.SetPolicyResponse:
        import hashlib

        digest = hashlib.sha256(set_policy_request.policy).hexdigest()
        return v1.SetPolicyResponse(policy_sha256=digest)

    async def load_fragment(
        self, load_fragment_request: v1.LoadFragmentRequest
    ) -> v1.LoadFragmentResponse:
        return v1.LoadFragmentResponse()

    async def setup_sandbox(
        self, setup_sandbox_request: v1.SetupSandboxRequest
    ) -> v1.SetupSandboxResponse:
        return v1.SetupSandboxResponse()

    async def put_files(self, put_files_request: v1.PutFilesRequest) -> v1.PutFilesResponse:
        request = put_files_request
        if request.replace:
            for path in [x for x in self.files if x.startswith(request.replace + "/")]:
                del self.files[path]
        for entry in request.entries:
            before = self.files.get(entry.path, b"") if entry.append else b""
            self.files[entry.path] = before + entry.content
        return v1.PutFilesResponse()

    async def mount_scratch(
        self, mount_scratch_request: v1.MountScratchRequest
    ) -> v1.MountScratchResponse:
        return v1.MountScratchResponse()

    async def mount_layer(self, mount_layer_request: v1.MountLayerRequest) -> v1.MountLayerResponse:
        request = mount_layer_request
        if request.target in self._layers:
            raise FailedPreconditionError(f"{request.target} is in use")
        root_hash = self._machine.hash_at(request.device.lun)
        self._layers[request.target] = root_hash
        return v1.MountLayerResponse(root_hash=root_hash)

    async def unmount_layer(
        self, unmount_layer_request: v1.UnmountLayerRequest
    ) -> v1.UnmountLayerResponse:
        del self._layers[unmount_layer_request.target]
        return v1.UnmountLayerResponse()

    async def mount_overlay(
        self, mount_overlay_request: v1.MountOverlayRequest
    ) -> v1.MountOverlayResponse:
        missing = [x for x in mount_overlay_request.layer_paths if x not in self._layers]
        if missing:
            raise FailedPreconditionError(f"no layer at {missing[0]}")
        return v1.MountOverlayResponse()

    async def unmount_overlay(
        self, unmount_overlay_request: v1.UnmountOverlayRequest
    ) -> v1.UnmountOverlayResponse:
        return v1.UnmountOverlayResponse()

    async def create_container(
        self, create_container_request: v1.CreateContainerRequest
    ) -> v1.CreateContainerResponse:
        request = create_container_request
        if request.container_id in self._containers:
            raise FailedPreconditionError("container exists")
        process = self._process(
            json.loads(request.oci_spec)["process"],
            request.stdio,
            (request.terminal_width, request.terminal_height),
        )
        self._containers[request.container_id] = {"": process}
        return v1.CreateContainerResponse(pid=1)

    async def start_container(
        self, start_container_request: v1.StartContainerRequest
    ) -> v1.StartContainerResponse:
        self._run(self._find(start_container_request.container_id, ""))
        return v1.StartContainerResponse()

    async def exec_process(
        self, exec_process_request: v1.ExecProcessRequest
    ) -> v1.ExecProcessResponse:
        request = exec_process_request
        self._find(request.container_id, "")
        process = self._process(
            json.loads(request.oci_process),
            request.stdio,
            (request.terminal_width, request.terminal_height),
        )
        self._containers[request.container_id][request.exec_id] = process
        self._run(process)
        return v1.ExecProcessResponse(pid=2)

    async def signal_process(
        self, signal_process_request: v1.SignalProcessRequest
    ) -> v1.SignalProcessResponse:
        request = signal_process_request
        process = self._find(request.container_id, request.exec_id)
        if process.status is not None:
            raise NotFoundError("process has ended")
        if process.popen is None:
            process.end(128 + request.signal)
            self._drop_streams(process.stdio)
        else:
            _kill(process, request.signal)
        return v1.SignalProcessResponse()

    async def shutdown_container(
        self, shutdown_container_request: v1.ShutdownContainerRequest
    ) -> v1.ShutdownContainerResponse:
        container_id = shutdown_container_request.container_id
        self._find(container_id, "")
        for process in self._containers[container_id].values():
            if process.popen is None:
                process.end(137)
                self._drop_streams(process.stdio)
            else:
                _kill(process, signal.SIGKILL)
                await process.ended.wait()
        del self._containers[container_id]
        return v1.ShutdownContainerResponse()

    async def wait_process(
        self, wait_process_request: v1.WaitProcessRequest
    ) -> v1.WaitProcessResponse:
        process = self._find(wait_process_request.container_id, wait_process_request.exec_id)
        await process.ended.wait()
        assert process.status is not None
        return v1.WaitProcessResponse(exit_status=process.status)

    async def next_event(self, next_event_request: v1.NextEventRequest) -> v1.NextEventResponse:
        container_id = await self.events.get()
        self._sequence += 1
        return v1.NextEventResponse(
            sequence=self._sequence, oom=v1.OutOfMemory(container_id=container_id)
        )

    async def resize_terminal(
        self, resize_terminal_request: v1.ResizeTerminalRequest
    ) -> v1.ResizeTerminalResponse:
        request = resize_terminal_request
        process = self._find(request.container_id, request.exec_id)
        process.size = (request.width, request.height)
        if process.master >= 0:
            _set_size(process.master, *process.size)
        return v1.ResizeTerminalResponse()

    async def update_resources(
        self, update_resources_request: v1.UpdateResourcesRequest
    ) -> v1.UpdateResourcesResponse:
        return v1.UpdateResourcesResponse()

    async def pause_group(self, pause_group_request: v1.PauseGroupRequest) -> v1.PauseGroupResponse:
        self._all(signal.SIGSTOP)
        return v1.PauseGroupResponse()

    async def resume_group(
        self, resume_group_request: v1.ResumeGroupRequest
    ) -> v1.ResumeGroupResponse:
        self._all(signal.SIGCONT)
        return v1.ResumeGroupResponse()

    async def stats(self, stats_request: v1.StatsRequest) -> v1.StatsResponse:
        self._find(stats_request.container_id, "")
        return v1.StatsResponse(
            cpu=v1.CpuStats(usage_usec=1000, user_usec=600, system_usec=400),
            memory=v1.MemoryStats(usage=1 << 20, usage_limit=2**64 - 1, anon=4096),
            pids=v1.PidsStats(current=1, limit=100),
            io=[v1.IoStats(major=8, minor=0, rbytes=1)],
        )

    def _find(self, container_id: str, exec_id: str) -> _Process:
        try:
            return self._containers[container_id][exec_id]
        except KeyError:
            raise NotFoundError(f"no process {container_id[:12]}/{exec_id}") from None

    def _process(self, oci: dict[str, object], stdio: v1.Stdio, size: tuple[int, int]) -> _Process:
        arguments, variables = oci["args"], oci.get("env") or []
        assert isinstance(arguments, list)
        assert isinstance(variables, list)
        environment = dict(item.split("=", 1) for item in variables)
        path = environment.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        if shutil.which(arguments[0], path=path) is None:
            self._drop_streams(stdio)
            raise NotFoundError(f"exec {arguments[0]!r}: executable file not found in $PATH")
        return _Process(arguments, environment, bool(oci.get("terminal")), stdio, size)

    def _run(self, process: _Process) -> None:
        if process.popen is not None:
            raise FailedPreconditionError("it runs already")
        if process.status is not None:
            raise FailedPreconditionError("it has ended")
        if process.terminal:
            self._run_in_terminal(process)
        else:
            self._run_with_pipes(process)
        self._spawn(self._reap(process))

    def _run_with_pipes(self, process: _Process) -> None:
        with contextlib.ExitStack() as theirs:
            fds = []
            for number, stream_id in enumerate(
                (process.stdio.stdin, process.stdio.stdout, process.stdio.stderr)
            ):
                if not stream_id:
                    fds.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
                    theirs.callback(os.close, fds[-1])
                    continue
                read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
                stream = self._mux.open(stream_id)
                fds.append(read_fd if number == 0 else write_fd)
                theirs.callback(os.close, fds[-1])
                if number == 0:
                    self._spawn(_copy(stream, FdStream(write_fd, write_fd)))
                else:
                    self._spawn(_copy(FdStream(read_fd, read_fd), stream))
            process.popen = self._popen(process, fds)

    def _run_in_terminal(self, process: _Process) -> None:
        master, slave = pty.openpty()
        if process.size != (0, 0):
            _set_size(master, *process.size)
        process.master = master
        process.popen = self._popen(process, [slave, slave, slave])
        os.close(slave)
        output = FdStream(master, master)
        if process.stdio.stdout:
            self._spawn(_copy(output, self._mux.open(process.stdio.stdout)))
        if process.stdio.stdin:
            copy = os.dup(master)
            self._spawn(_copy(self._mux.open(process.stdio.stdin), FdStream(copy, copy)))

    def _popen(self, process: _Process, fds: list[int]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            process.arguments,
            stdin=fds[0],
            stdout=fds[1],
            stderr=fds[2],
            env=process.environment or None,
            start_new_session=True,
            cwd="/",
        )

    async def _reap(self, process: _Process) -> None:
        assert process.popen is not None
        pidfd = os.pidfd_open(process.popen.pid)
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
        status = process.popen.wait()
        process.end(status if status >= 0 else 128 - status)

    def _drop_streams(self, stdio: v1.Stdio) -> None:
        for stream_id in (stdio.stdin, stdio.stdout, stdio.stderr):
            if stream_id:
                self._mux.drop(stream_id)

    def _all(self, number: int) -> None:
        for processes in self._containers.values():
            for process in processes.values():
                _kill(process, number)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _kill(process: _Process, number: int) -> None:
    if process.popen is not None and process.status is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.popen.pid, number)


def _set_size(fd: int, width: int, height: int) -> None:
    ioctl(fd, TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


async def _copy(source: ByteStream, target: ByteStream) -> None:
    """EIO on a terminal's master is its end."""
    try:
        with contextlib.suppress(StreamClosedError):
            while data := await source.read():
                await target.write(data)
        with contextlib.suppress(StreamClosedError):
            await target.finish()
    finally:
        for end in (source, target):
            if isinstance(end, FdStream):
                end.abort()


class FakeMachine:
    """A sleeping process with an agent beside it."""

    def __init__(self, launch: Launch, behaviour: Behaviour) -> None:
        ours, theirs = socket.socketpair()
        self.launch = launch
        self.channel: ByteStream = SocketStream(ours)
        self.disks: dict[ScsiAddress, int] = {}
        self.hashes: dict[int, str] = {}
        self.detached: list[ScsiAddress] = []
        self._behaviour = behaviour
        self._process = subprocess.Popen(["sleep", "infinity"], start_new_session=True)
        self._luns = 0
        self._end: asyncio.Task[MachineExit] = asyncio.create_task(self._watch())
        self.fails = behaviour.failing_boots > 0
        if self.fails:
            behaviour.failing_boots -= 1
            self._process.kill()
            theirs.close()
            self.agent = None
        else:
            self.agent = FakeAgent(self, behaviour, theirs)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process.poll() is None

    def hash_at(self, lun: int) -> str:
        """The root hash of the layer that is plugged in there: the file's content."""
        return os.pread(self.disks[ScsiAddress(0, lun)], 64, 0).decode()

    def kill(self) -> None:
        """As a crash of QEMU."""
        self._process.kill()

    async def attach_disk(self, fd: int, *, access: DiskAccess) -> ScsiAddress:
        address = ScsiAddress(0, self._luns)
        self._luns += 1
        self.disks[address] = os.dup(fd)
        return address

    async def detach_disk(self, address: ScsiAddress) -> None:
        os.close(self.disks.pop(address))
        self.detached.append(address)

    async def wait(self) -> MachineExit:
        return await asyncio.shield(self._end)

    async def until_answer(self, answer: Awaitable[T], deadline: float) -> T:
        task = asyncio.ensure_future(answer)
        await asyncio.wait((task, self._end), return_when=asyncio.FIRST_COMPLETED, timeout=deadline)
        if not task.done() or self.fails:
            task.cancel()
            await asyncio.wait((task,))
            raise BootFailureError("no answer")
        return task.result()

    async def stop(self) -> MachineExit:
        self._process.kill()
        return await self.wait()

    async def _watch(self) -> MachineExit:
        pidfd = os.pidfd_open(self._process.pid)
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
        self._process.wait()
        if self.agent is not None:
            await self.agent.close()
        self.channel.abort()
        for fd in self.disks.values():
            os.close(fd)
        self.disks.clear()
        return MachineExit(137, "killed")


@dataclass
class FakeRunning:
    """See `ports.RunningMachine`."""

    machine: FakeMachine
    cgroups: tuple[Path, ...] = ()

    async def certificates(self) -> bytes:
        return b"the stub's"

    async def close(self) -> None:
        await self.machine.stop()


def launcher(behaviour: Behaviour) -> Callable[[Launch], Awaitable[FakeRunning]]:
    """For `ports.Ports.launch`."""

    async def launch(wanted: Launch) -> FakeRunning:
        machine = FakeMachine(wanted, behaviour)
        behaviour.machines.append(machine)
        return FakeRunning(machine)

    return launch
