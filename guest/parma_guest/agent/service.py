"""The handlers. Each is called only behind the interceptor, uses what was judged, and does little itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from parma_api.channel.stream import SocketStream
from parma_api.gen.parma.agent.v1 import (
    AgentBase,
    CreateContainerRequest,
    CreateContainerResponse,
    DumpStacksRequest,
    DumpStacksResponse,
    ExecExternalRequest,
    ExecExternalResponse,
    ExecProcessRequest,
    ExecProcessResponse,
    ForwardPortRequest,
    ForwardPortResponse,
    HealthRequest,
    HealthResponse,
    ListProcessesRequest,
    ListProcessesResponse,
    LoadFragmentRequest,
    LoadFragmentResponse,
    MountLayerRequest,
    MountLayerResponse,
    MountOverlayRequest,
    MountOverlayResponse,
    MountScratchRequest,
    MountScratchResponse,
    NextEventRequest,
    NextEventResponse,
    OutOfMemory,
    PauseGroupRequest,
    PauseGroupResponse,
    PutFilesRequest,
    PutFilesResponse,
    ResizeTerminalRequest,
    ResizeTerminalResponse,
    ResumeGroupRequest,
    ResumeGroupResponse,
    SetPolicyRequest,
    SetPolicyResponse,
    SetupSandboxRequest,
    SetupSandboxResponse,
    ShutdownContainerRequest,
    ShutdownContainerResponse,
    SignalProcessRequest,
    SignalProcessResponse,
    StartContainerRequest,
    StartContainerResponse,
    StatsRequest,
    StatsResponse,
    UnmountLayerRequest,
    UnmountLayerResponse,
    UnmountOverlayRequest,
    UnmountOverlayResponse,
    UnmountScratchRequest,
    UnmountScratchResponse,
    UpdateResourcesRequest,
    UpdateResourcesResponse,
    WaitProcessRequest,
    WaitProcessResponse,
)
from parma_api.ids import parse_container_id, parse_sandbox_id
from parma_api.policy.decision import Decision
from parma_api.status import FailedPreconditionError, InvalidArgumentError
from parma_api.volumes import pod_directory
from parma_guest.agent import answers
from parma_guest.agent.containers import Containers, Shape
from parma_guest.agent.external import External
from parma_guest.agent.policy_setup import PolicySetup
from parma_guest.agent.ports import FilesPort
from parma_guest.agent.sandbox import Group
from parma_guest.linux.blockdev import ScsiAddress
from parma_guest.net.config import InterfaceRequest, RouteRequest
from parma_guest.oci.resources import bounded, machine
from parma_guest.policy.inputs import ContainerFacts, ProcessFacts
from parma_guest.policy.judged import facts_of, judged
from parma_guest.process.pumps import join
from parma_guest.process.table import Key
from parma_guest.storage.files import Entry, Kind
from parma_guest.storage.layers import LayerClaim

_START_SECONDS = 30.0


class AgentService(AgentBase):
    """The real service behind the interceptor."""

    def __init__(
        self,
        group: Group,
        containers: Containers,
        external: External,
        policy: PolicySetup,
        files: Callable[[str], FilesPort],
        health: Callable[[], HealthResponse],
    ) -> None:
        """`files` makes the writer of a pod's files from its directory."""
        self._group = group
        self._containers = containers
        self._external = external
        self._policy = policy
        self._make_files = files
        self._files: FilesPort | None = None
        self._files_lock = asyncio.Lock()
        self._health = health

    # The policy

    async def health(self, health_request: HealthRequest) -> HealthResponse:
        return self._health()

    async def set_policy(self, set_policy_request: SetPolicyRequest) -> SetPolicyResponse:
        return await self._policy.set_policy(set_policy_request)

    async def load_fragment(
        self, load_fragment_request: LoadFragmentRequest
    ) -> LoadFragmentResponse:
        return LoadFragmentResponse()  # the gate has loaded it

    # The pod

    async def setup_sandbox(
        self, setup_sandbox_request: SetupSandboxRequest
    ) -> SetupSandboxResponse:
        request = setup_sandbox_request
        sandbox = parse_sandbox_id(request.sandbox_id)
        self._group.check_sandbox(sandbox)
        await self._group.network.setup(
            sandbox,
            request.hostname,
            [
                InterfaceRequest(link.mac, link.name, link.mtu, tuple(link.addresses))
                for link in request.interfaces
            ],
            [
                RouteRequest(route.destination, route.gateway, route.source, route.metric)
                for route in request.routes
            ],
            [(row.name, row.value) for row in request.sysctls],
        )
        self._group.adopt(sandbox)
        return SetupSandboxResponse()

    async def put_files(self, put_files_request: PutFilesRequest) -> PutFilesResponse:
        directory = pod_directory(self._group.require_sandbox())
        if directory not in self._group.storage.snapshot().rw_devices:
            raise FailedPreconditionError("the pod has no scratch yet: call MountScratch first")
        entries = [
            Entry(
                path=entry.path,
                kind=Kind(int(entry.kind)),
                mode=entry.mode,
                uid=entry.uid,
                gid=entry.gid,
                content=entry.content,
                append=entry.append,
                size=entry.size,
            )
            for entry in put_files_request.entries
        ]
        async with self._files_lock:
            if self._files is None:
                self._files = self._make_files(self._group.layout.real(directory))
            await _outlasting(
                asyncio.to_thread(self._files.put, entries, put_files_request.replace)
            )
        return PutFilesResponse()

    async def pause_group(self, pause_group_request: PauseGroupRequest) -> PauseGroupResponse:
        await _outlasting(asyncio.to_thread(self._group.freezer.freeze))
        self._containers.paused = True
        return PauseGroupResponse()

    async def resume_group(self, resume_group_request: ResumeGroupRequest) -> ResumeGroupResponse:
        await _outlasting(asyncio.to_thread(self._group.freezer.thaw))
        self._containers.paused = False
        return ResumeGroupResponse()

    async def next_event(self, next_event_request: NextEventRequest) -> NextEventResponse:
        sequence, container = await self._group.events.after(next_event_request.after)
        return NextEventResponse(sequence=sequence, oom=OutOfMemory(container_id=container))

    # Storage

    async def mount_scratch(
        self, mount_scratch_request: MountScratchRequest
    ) -> MountScratchResponse:
        if not mount_scratch_request.encrypted:
            raise InvalidArgumentError("scratch is always encrypted here: ask for it so")
        target = _text(judged().decision, "target")
        device = mount_scratch_request.device
        address = ScsiAddress(device.controller, device.lun)
        sandbox = parse_sandbox_id(facts_of(str))
        self._group.check_sandbox(sandbox)
        await self._group.storage.mount_scratch(address, target, sandbox)
        self._group.adopt(sandbox)
        return MountScratchResponse()

    async def unmount_scratch(
        self, unmount_scratch_request: UnmountScratchRequest
    ) -> UnmountScratchResponse:
        target = _text(judged().decision, "unmountTarget")
        self._group.storage.check_unmount_scratch(target)  # no container uses it any more
        async with self._files_lock:
            if (sandbox := self._group.sandbox) is not None:
                await _outlasting(asyncio.to_thread(self._group.sources.unshare, sandbox))
            if self._files is not None:
                await _outlasting(asyncio.to_thread(self._files.release))
        await self._group.storage.unmount_scratch(target)
        return UnmountScratchResponse()

    async def mount_layer(self, mount_layer_request: MountLayerRequest) -> MountLayerResponse:
        found = facts_of(LayerClaim)
        await self._group.storage.mount_layer(found, _text(judged().decision, "target"))
        return MountLayerResponse(root_hash=found.claim.root_hash)

    async def unmount_layer(
        self, unmount_layer_request: UnmountLayerRequest
    ) -> UnmountLayerResponse:
        await self._group.storage.unmount_layer(_text(judged().decision, "unmountTarget"))
        return UnmountLayerResponse()

    async def mount_overlay(
        self, mount_overlay_request: MountOverlayRequest
    ) -> MountOverlayResponse:
        decision = judged().decision
        container = parse_container_id(_text(decision, "containerID"))
        layers = decision.input["layerPaths"]
        assert isinstance(layers, list | tuple)
        scratch = judged().facts
        await self._group.storage.mount_overlay(
            container,
            [str(path) for path in layers],
            _text(decision, "target"),
            None if scratch is None else str(scratch),
        )
        return MountOverlayResponse()

    async def unmount_overlay(
        self, unmount_overlay_request: UnmountOverlayRequest
    ) -> UnmountOverlayResponse:
        target = _text(judged().decisions[0], "unmountTarget")
        await self._group.storage.unmount_overlay(target)
        return UnmountOverlayResponse()

    # Containers

    async def create_container(
        self, create_container_request: CreateContainerRequest
    ) -> CreateContainerResponse:
        request, verdict = create_container_request, judged()
        pid = await self._containers.create(
            facts_of(ContainerFacts),
            verdict.decision,
            Shape(request.stdio, request.terminal_width, request.terminal_height),
            share_pid=request.share_pod_pid,
            deadline=verdict.deadline,
        )
        return CreateContainerResponse(pid=pid)

    async def start_container(
        self, start_container_request: StartContainerRequest
    ) -> StartContainerResponse:
        container = parse_container_id(start_container_request.container_id)
        deadline = asyncio.get_running_loop().time() + _START_SECONDS
        await self._containers.start(container, deadline)
        return StartContainerResponse()

    async def exec_process(self, exec_process_request: ExecProcessRequest) -> ExecProcessResponse:
        request, verdict = exec_process_request, judged()
        pid = await self._containers.execute(
            facts_of(ProcessFacts),
            verdict.decision,
            request.exec_id,
            Shape(request.stdio, request.terminal_width, request.terminal_height),
            verdict.deadline,
        )
        return ExecProcessResponse(pid=pid)

    async def exec_external(
        self, exec_external_request: ExecExternalRequest
    ) -> ExecExternalResponse:
        pid = self._external.start(
            judged().decision, exec_external_request.exec_id, exec_external_request.stdio
        )
        return ExecExternalResponse(pid=pid)

    async def signal_process(
        self, signal_process_request: SignalProcessRequest
    ) -> SignalProcessResponse:
        request = signal_process_request
        if not request.container_id:
            self._group.processes.signal(Key("", request.exec_id), request.signal)
        elif request.all:
            self._containers.signal_all(parse_container_id(request.container_id), request.signal)
        else:
            container = parse_container_id(request.container_id)
            self._containers.signal(container, request.exec_id, request.signal)
        return SignalProcessResponse()

    async def shutdown_container(
        self, shutdown_container_request: ShutdownContainerRequest
    ) -> ShutdownContainerResponse:
        container = parse_container_id(shutdown_container_request.container_id)
        await self._containers.shutdown(container, judged().deadline)
        return ShutdownContainerResponse()

    async def wait_process(self, wait_process_request: WaitProcessRequest) -> WaitProcessResponse:
        request = wait_process_request
        how = await self._group.processes.wait(Key(request.container_id, request.exec_id))
        log = b""
        if request.container_id and not request.exec_id:
            log = await self._containers.termination_log(parse_container_id(request.container_id))
        return WaitProcessResponse(
            exit_status=how.status,
            exited_at_nsec=how.at_nsec,
            oom_killed=how.oom_killed,
            termination_log=log,
        )

    async def resize_terminal(
        self, resize_terminal_request: ResizeTerminalRequest
    ) -> ResizeTerminalResponse:
        request = resize_terminal_request
        if not (0 <= request.width <= 65535 and 0 <= request.height <= 65535):
            raise InvalidArgumentError("a terminal has at most 65535 columns and rows")
        key = Key(request.container_id, request.exec_id)
        self._group.processes.resize(key, request.width, request.height)
        return ResizeTerminalResponse()

    async def update_resources(
        self, update_resources_request: UpdateResourcesRequest
    ) -> UpdateResourcesResponse:
        request = update_resources_request
        container = parse_container_id(request.container_id)
        self._group.processes.get(Key(container))
        limits = bounded(answers.resource_request(request.resources), machine())
        cgroup = self._group.runtime.cgroup(container)
        await _outlasting(asyncio.to_thread(cgroup.apply, limits))
        return UpdateResourcesResponse()

    # What may be seen

    async def stats(self, stats_request: StatsRequest) -> StatsResponse:
        container = parse_container_id(stats_request.container_id)
        self._group.processes.get(Key(container))
        found = await asyncio.to_thread(self._group.runtime.cgroup(container).stats)
        return answers.stats(found)

    async def list_processes(
        self, list_processes_request: ListProcessesRequest
    ) -> ListProcessesResponse:
        container = parse_container_id(list_processes_request.container_id)
        self._group.processes.get(Key(container))
        return ListProcessesResponse(pids=list(self._group.runtime.pids(container)))

    async def dump_stacks(self, dump_stacks_request: DumpStacksRequest) -> DumpStacksResponse:
        return DumpStacksResponse(stacks=answers.stacks())

    async def forward_port(self, forward_port_request: ForwardPortRequest) -> ForwardPortResponse:
        port = judged().decision.input["port"]
        assert isinstance(port, int)
        fd = await self._group.network.connect(port)
        peer = SocketStream(socket.socket(fileno=fd))
        try:
            stream = self._group.channel()(forward_port_request.stream)
        except BaseException:
            peer.abort()
            raise
        self._group.background.spawn(join(stream, peer), f"port {port}")
        return ForwardPortResponse()


def _text(decision: Decision, name: str) -> str:
    """A member of the input as judged: in plain form."""
    return str(decision.input[name])


async def _outlasting(work: Awaitable[None]) -> None:
    """A thread cannot be cancelled: what it does is over before this returns, whoever has gone away meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
