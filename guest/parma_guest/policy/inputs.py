"""From a request to the input document of its point (policy.md 6): one pure function for each, of normalised values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from parma_api.gen.parma.agent.v1 import (
    ExecExternalRequest,
    ForwardPortRequest,
    MountScratchRequest,
)
from parma_api.ids import ContainerId, RootHash, SandboxId
from parma_api.policy.decision import Capabilities, PointRequest
from parma_api.policy.points import Point
from parma_api.policy.seccomp_digest import seccomp_digest
from parma_api.volumes import GUEST_ROOT, LAYER_ROOT, huge_pages, sandbox_mounts
from parma_guest.oci import mounts as rules
from parma_guest.oci.parse import Document, Mount, Process
from parma_guest.oci.users import Identities

LAYER_REGEX: Final = f"{LAYER_ROOT}/m[0-9]+"
SCRATCH_REGEX: Final = f"{GUEST_ROOT}/[0-9a-fA-F]{{64}}"


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """A creation, normalised: what is judged and what will be used."""

    container: ContainerId
    document: Document
    identities: Identities
    mounts: tuple[Mount, ...]
    """Prefixes replaced, network files added."""
    network: tuple[Mount, ...]


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """A further process, normalised."""

    container: ContainerId
    process: Process
    identities: Identities


def mount_scratch(request: MountScratchRequest) -> PointRequest:
    """The agent always makes the file system itself, so it is always ensured."""
    return PointRequest(
        Point.RW_MOUNT_DEVICE,
        {
            "target": request.target,
            "encrypted": request.encrypted,
            "ensureFilesystem": True,
            "filesystem": request.filesystem,
            "mountPathRegex": SCRATCH_REGEX,
        },
    )


def mount_layer(target: str, root_hash: RootHash) -> PointRequest:
    """`root_hash`: what the device claims, read by the agent."""
    return PointRequest(
        Point.MOUNT_DEVICE,
        {"target": target, "deviceHash": root_hash, "mountPathRegex": LAYER_REGEX},
    )


def unmount(point: Point, target: str) -> PointRequest:
    """Every point that takes something down."""
    return PointRequest(point, {"unmountTarget": target})


def scratch_mount(path: str, *, encrypted: bool) -> PointRequest:
    """`encrypted`: as the agent's own books have it."""
    return PointRequest(Point.SCRATCH_MOUNT, {"target": path, "encrypted": encrypted})


def mount_overlay(container: ContainerId, layers: Sequence[str], target: str) -> PointRequest:
    """`layers`: top first."""
    return PointRequest(
        Point.MOUNT_OVERLAY,
        {"containerID": container, "layerPaths": list(layers), "target": target},
    )


def create_container(facts: ContainerFacts, pod: SandboxId, *, privileged: bool) -> PointRequest:
    """The longest of them; the pod itself is no container here, so no request is for the pause container."""
    document = facts.document
    return PointRequest(
        Point.CREATE_CONTAINER,
        {
            **_process(facts.container, document.process, facts.identities),
            "sandboxDir": sandbox_mounts(pod),
            "hugePagesDir": huge_pages(pod),
            "mounts": _mounts(facts.mounts),
            "devices": [],
            "privileged": privileged,
            "seccompProfileSHA256": seccomp_digest(document.seccomp),
            "isSandboxContainer": False,
        },
        network_mounts=tuple(_mounts(facts.network)),
    )


def exec_process(facts: ProcessFacts) -> PointRequest:
    """A further process of a container."""
    return PointRequest(
        Point.EXEC_IN_CONTAINER, _process(facts.container, facts.process, facts.identities)
    )


def exec_external(request: ExecExternalRequest) -> PointRequest:
    """A process of the machine itself."""
    return PointRequest(
        Point.EXEC_EXTERNAL,
        {
            "argList": list(request.args),
            "envList": list(request.env),
            "workingDir": request.working_dir,
        },
    )


def signal_process(
    container: str, number: int, command: Sequence[str], *, first: bool
) -> PointRequest:
    """`command`: as the agent remembers it of the process."""
    return PointRequest(
        Point.SIGNAL_CONTAINER_PROCESS,
        {
            "containerID": container,
            "signal": number,
            "isInitProcess": first,
            "argList": list(command),
        },
    )


def shutdown_container(container: ContainerId) -> PointRequest:
    """End a container."""
    return PointRequest(Point.SHUTDOWN_CONTAINER, {"containerID": container})


def get_properties() -> PointRequest:
    """Process list or statistics."""
    return PointRequest(Point.GET_PROPERTIES, {})


def dump_stacks() -> PointRequest:
    """Stacks of the agent."""
    return PointRequest(Point.DUMP_STACKS, {})


def forward_port(request: ForwardPortRequest) -> PointRequest:
    """A connection to a port of the pod's loopback."""
    return PointRequest(Point.PORT_FORWARD, {"port": request.port, "protocol": "tcp"})


def _process(container: ContainerId, process: Process, who: Identities) -> dict[str, object]:
    return {
        "containerID": container,
        "argList": list(process.args),
        "envList": list(process.env),
        "workingDir": process.cwd,
        "noNewPrivileges": process.no_new_privileges,
        "user": who.user.judged(),
        "groups": [group.judged() for group in who.groups],
        "umask": who.umask_text,
        "capabilities": _capabilities(process.capabilities),
    }


def _capabilities(caps: Capabilities) -> dict[str, object]:
    return {
        "bounding": list(caps.bounding),
        "effective": list(caps.effective),
        "inheritable": list(caps.inheritable),
        "permitted": list(caps.permitted),
        "ambient": list(caps.ambient),
    }


def _mounts(found: Iterable[Mount]) -> list[dict[str, object]]:
    return [rules.judged(mount) for mount in found]
