"""Before the gate: conditions that no policy lifts, facts that the agent finds out itself, and the questions to ask.

Nothing here changes anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

from parma_api.gen.parma.agent.v1 import (
    CreateContainerRequest,
    DumpStacksRequest,
    ExecExternalRequest,
    ExecProcessRequest,
    ForwardPortRequest,
    ListProcessesRequest,
    MountLayerRequest,
    MountOverlayRequest,
    MountScratchRequest,
    ShutdownContainerRequest,
    SignalProcessRequest,
    StatsRequest,
    UnmountLayerRequest,
    UnmountOverlayRequest,
    UnmountScratchRequest,
)
from parma_api.ids import ContainerId, parse_container_id, parse_exec_id
from parma_api.policy.decision import PointRequest
from parma_api.policy.gate import DEVICES
from parma_api.policy.paths import plain_path
from parma_api.policy.points import Point
from parma_api.status import InvalidArgumentError
from parma_api.volumes import root_path, scratch_path
from parma_guest.agent.sandbox import Group
from parma_guest.linux.blockdev import ScsiAddress
from parma_guest.oci import mounts, users
from parma_guest.oci.parse import User, parse_container, parse_exec
from parma_guest.policy import inputs
from parma_guest.policy.inputs import ContainerFacts, ProcessFacts
from parma_guest.policy.judged import Prepared
from parma_guest.storage import paths

EXTERNAL: Final = "external"
"""The queue of processes in the machine itself."""
SIGKILL: Final = 9
MAX_SIGNAL: Final = 64


async def mount_scratch(group: Group, request: MountScratchRequest) -> Prepared:
    target = plain_path(request.target)
    pod = paths.sandbox_of_scratch(target)
    group.check_sandbox(pod)
    group.storage.check_mount_scratch(_address(request), target, pod)
    return Prepared(DEVICES, (inputs.mount_scratch(request),), pod)


async def unmount_scratch(group: Group, request: UnmountScratchRequest) -> Prepared:
    group.storage.check_unmount_scratch(plain_path(request.target))
    return Prepared(DEVICES, (inputs.unmount(Point.RW_UNMOUNT_DEVICE, request.target),))


async def mount_layer(group: Group, request: MountLayerRequest) -> Prepared:
    address = _address(request)
    group.storage.check_mount_layer(address, plain_path(request.target))
    found = await group.storage.read_claim(address)
    return Prepared(DEVICES, (inputs.mount_layer(request.target, found.claim.root_hash),), found)


async def unmount_layer(group: Group, request: UnmountLayerRequest) -> Prepared:
    group.storage.check_unmount_layer(plain_path(request.target))
    return Prepared(DEVICES, (inputs.unmount(Point.UNMOUNT_DEVICE, request.target),))


async def mount_overlay(group: Group, request: MountOverlayRequest) -> Prepared:
    container = parse_container_id(request.container_id)
    layers = tuple(plain_path(path) for path in request.layer_paths)
    scratch = plain_path(request.scratch_path) or None
    group.storage.check_mount_overlay(container, layers, plain_path(request.target), scratch)
    questions: list[PointRequest] = []
    if scratch is not None:
        encrypted = group.storage.is_encrypted(scratch)
        questions.append(inputs.scratch_mount(scratch, encrypted=encrypted))
    questions.append(inputs.mount_overlay(container, layers, request.target))
    return Prepared(DEVICES, tuple(questions), scratch)


async def unmount_overlay(group: Group, request: UnmountOverlayRequest) -> Prepared:
    container = parse_container_id(request.container_id)
    group.storage.check_unmount_overlay(plain_path(request.target), container)
    questions = [inputs.unmount(Point.UNMOUNT_OVERLAY, request.target)]
    scratch = scratch_path(group.require_sandbox(), container)
    if scratch in group.storage.snapshot().scratch_mounts:
        questions.append(inputs.unmount(Point.SCRATCH_UNMOUNT, scratch))
    return Prepared(DEVICES, tuple(questions))


async def create_container(group: Group, request: CreateContainerRequest) -> Prepared:
    container = parse_container_id(request.container_id)
    pod = group.require_sandbox()
    document = parse_container(request.oci_spec)
    if plain_path(document.root_path) != root_path(container):
        raise InvalidArgumentError(f"root.path must be {root_path(container)}")
    resolved = mounts.resolve(document.mounts, pod)
    network = mounts.network_mounts(resolved, pod, read_only=document.root_readonly)
    who = await _identities(group, container, document.process.user)
    facts = ContainerFacts(container, document, who, (*resolved, *network), network)
    question = inputs.create_container(facts, pod, privileged=request.privileged)
    return Prepared(container, (question,), facts)


async def exec_process(group: Group, request: ExecProcessRequest) -> Prepared:
    container = parse_container_id(request.container_id)
    parse_exec_id(request.exec_id)
    process = parse_exec(request.oci_process)
    who = await _identities(group, container, process.user)
    facts = ProcessFacts(container, process, who)
    return Prepared(container, (inputs.exec_process(facts),), facts)


async def exec_external(_group: Group, request: ExecExternalRequest) -> Prepared:
    parse_exec_id(request.exec_id)
    return Prepared(EXTERNAL, (inputs.exec_external(request),))


async def signal_process(group: Group, request: SignalProcessRequest) -> Prepared:
    if not 0 <= request.signal <= MAX_SIGNAL:
        raise InvalidArgumentError(f"signal {request.signal} does not exist")
    if request.all and request.exec_id:
        raise InvalidArgumentError("`all` goes to the whole container, not to one of its processes")
    container = parse_container_id(request.container_id) if request.container_id else EXTERNAL
    questions = _signal_questions(group, request)
    return Prepared(container, questions)


def _signal_questions(group: Group, request: SignalProcessRequest) -> tuple[PointRequest, ...]:
    """Of `all`, each process that the agent started is judged; SIGKILL of the first ends the others by itself."""
    known = group.processes.commands(request.container_id)
    first = [(True, known.get("", ()))]
    others = [(False, command) for exec_id, command in known.items() if exec_id]
    if request.exec_id:
        wanted = [(False, known.get(request.exec_id, ()))]
    elif request.all and request.signal != SIGKILL:
        wanted = [*first, *dict.fromkeys(others)]
    else:
        wanted = first
    return tuple(
        inputs.signal_process(request.container_id, request.signal, command, first=is_first)
        for is_first, command in wanted
    )


async def shutdown_container(_group: Group, request: ShutdownContainerRequest) -> Prepared:
    container = parse_container_id(request.container_id)
    return Prepared(container, (inputs.shutdown_container(container),))


async def get_properties(_group: Group, request: StatsRequest | ListProcessesRequest) -> Prepared:
    parse_container_id(request.container_id)
    return Prepared("", (inputs.get_properties(),))


async def dump_stacks(_group: Group, _request: DumpStacksRequest) -> Prepared:
    return Prepared("", (inputs.dump_stacks(),))


async def forward_port(_group: Group, request: ForwardPortRequest) -> Prepared:
    if not 1 <= request.port <= 65535:
        raise InvalidArgumentError(f"port {request.port} does not exist")
    return Prepared("", (inputs.forward_port(request),))


def _address(request: MountScratchRequest | MountLayerRequest) -> ScsiAddress:
    return ScsiAddress(request.device.controller, request.device.lun)


async def _identities(group: Group, container: ContainerId, user: User) -> users.Identities:
    """Looked up in the container's root; where there is none, the policy says that the container is unknown."""
    target = root_path(container)
    if target not in group.storage.snapshot().overlay_targets:
        return users.identify(user, (), ())
    return await asyncio.to_thread(users.resolve, group.layout.real(target), user)


Preparer: TypeAlias = Callable[[Group, Any], Awaitable[Prepared]]
PREPARERS: Final[Mapping[str, Preparer]] = {
    "MountScratch": mount_scratch,
    "UnmountScratch": unmount_scratch,
    "MountLayer": mount_layer,
    "UnmountLayer": unmount_layer,
    "MountOverlay": mount_overlay,
    "UnmountOverlay": unmount_overlay,
    "CreateContainer": create_container,
    "ExecProcess": exec_process,
    "ExecExternal": exec_external,
    "SignalProcess": signal_process,
    "ShutdownContainer": shutdown_container,
    "Stats": get_properties,
    "ListProcesses": get_properties,
    "DumpStacks": dump_stacks,
    "ForwardPort": forward_port,
}
"""LoadFragment has none: the gate opens the envelope and asks."""
