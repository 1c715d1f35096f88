"""From config.json to what is asked of the guest: pure, so that every refusal is a line in a table of tests.

The document for the guest keeps what policies judge and what the guest bounds. Dropped is what is the host's alone
(annotations, namespaces with their paths, the host's cgroup, hooks never: those are refused by the guest by name).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from parma_api import volumes
from parma_api.ids import ContainerId, SandboxId, guest_id
from parma_shim.config import HostPaths
from parma_shim.errors import RefusedError, UsageError
from parma_shim.sandbox.document import Object, member, objects, text, text_map, texts
from parma_shim.sandbox.mounts import HostVolume, network_files, plan_mounts

CONTAINER_TYPE = "io.kubernetes.cri.container-type"
SANDBOX_ID = "io.kubernetes.cri.sandbox-id"
_HOST_NAMESPACES = {"network": "hostNetwork", "pid": "hostPID", "ipc": "hostIPC"}
_EVERYTHING = frozenset({"CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_RAWIO"})
"""No container has all of these but a privileged one."""
MAX_HOSTNAME = 64


@dataclass(frozen=True, slots=True)
class SandboxPlan:
    """The pod: what its VM is made from."""

    host_id: str
    sandbox_id: SandboxId
    hostname: str
    netns: Path | None
    annotations: Mapping[str, str]
    sysctls: tuple[tuple[str, str], ...]
    cgroups_path: str
    network_files: tuple[tuple[str, str], ...]
    is_cri: bool
    """The task that made it is CRI's pause container, which is not run."""


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """One container."""

    host_id: str
    container_id: ContainerId
    sandbox_id: SandboxId
    document: bytes
    privileged: bool
    share_pod_pid: bool
    volumes: tuple[HostVolume, ...]
    network_files: tuple[tuple[str, str], ...]
    terminal_size: tuple[int, int]
    """Width and height; 0: not stated."""


def plan_sandbox(document: Object, namespace: str, host_id: str) -> SandboxPlan:
    """The pod of the first container of a group. Raises RefusedError, UsageError."""
    annotations = text_map(document, "annotations")
    is_cri = annotations.get(CONTAINER_TYPE) == "sandbox"
    linux = member(document, "linux")
    namespaces = _namespaces(linux)
    for kind, option in _HOST_NAMESPACES.items():
        if kind not in namespaces:
            raise RefusedError(f"{option} is not possible: a utility VM has namespaces of its own")
    if "user" in namespaces or objects(linux, "uidMappings"):
        raise RefusedError("user namespaces are not offered: the container runs in a VM of its own")
    netns = namespaces["network"]
    return SandboxPlan(
        host_id=host_id,
        sandbox_id=_sandbox_id(namespace, host_id, is_cri=is_cri),
        hostname=text(document, "hostname")[:MAX_HOSTNAME],
        netns=Path(netns) if netns else None,
        annotations=annotations,
        sysctls=tuple(sorted(text_map(linux, "sysctl").items())),
        cgroups_path=text(linux, "cgroupsPath"),
        network_files=network_files(document),
        is_cri=is_cri,
    )


def plan_container(
    document: Object,
    namespace: str,
    host_id: str,
    sandbox: SandboxPlan,
    host_paths: HostPaths = HostPaths.REFUSE,
) -> ContainerPlan:
    """A container of `sandbox`. Raises RefusedError, UsageError."""
    linux = member(document, "linux")
    namespaces = _namespaces(linux)
    for kind, option in _HOST_NAMESPACES.items():
        if kind not in namespaces:
            raise RefusedError(f"{option} is not possible: a utility VM has namespaces of its own")
    _refuse_host_things(document, linux)
    mounts = plan_mounts(document, host_paths)
    container_id = ContainerId(guest_id(namespace, host_id))
    process = member(document, "process")
    size = member(process, "consoleSize")
    return ContainerPlan(
        host_id=host_id,
        container_id=container_id,
        sandbox_id=sandbox.sandbox_id,
        document=_guest_document(document, container_id, mounts.mounts),
        privileged=is_privileged(document),
        share_pod_pid=bool(namespaces["pid"]),
        volumes=mounts.volumes,
        network_files=mounts.network_files,
        terminal_size=(_number(size.get("width")), _number(size.get("height"))),
    )


def plan_exec(process: Object, *, terminal: bool) -> bytes:
    """The process object of an exec; containerd's `terminal` counts. Raises UsageError."""
    if not texts(process, "args"):
        raise UsageError("exec: the process has no arguments")
    return json.dumps({**process, "terminal": terminal}, separators=(",", ":")).encode()


def is_privileged(document: Object) -> bool:
    """What containerd makes of `privileged`: all capabilities, nothing masked, nothing read-only."""
    linux = member(document, "linux")
    capabilities = texts(member(member(document, "process"), "capabilities"), "bounding")
    hidden = texts(linux, "maskedPaths") or texts(linux, "readonlyPaths")
    return not hidden and _EVERYTHING.issubset(capabilities)


def _sandbox_id(namespace: str, host_id: str, *, is_cri: bool) -> SandboxId:
    """CRI's pod has an id of its own; a container that is alone needs one beside its own."""
    if is_cri:
        return SandboxId(guest_id(namespace, host_id))
    return SandboxId(hashlib.sha256(f"sandbox/{namespace}/{host_id}".encode()).hexdigest())


def _namespaces(linux: Object) -> dict[str, str]:
    """Type -> path; an empty path is a new one."""
    return {text(item, "type"): text(item, "path") for item in objects(linux, "namespaces")}


def _refuse_host_things(document: Object, linux: Object) -> None:
    devices = objects(linux, "devices")
    if devices:
        raise RefusedError(
            f"device {text(devices[0], 'path')[:100]}: the host's devices cannot be given to a utility VM; for "
            "privileged containers set privileged_without_host_devices = true in containerd's handler"
        )
    hooks = member(document, "hooks")
    if any(hooks.values()):
        raise RefusedError("hooks are not run: they are programs of the host's inside the guest")


def _guest_document(
    document: Object, container_id: ContainerId, mounts: tuple[Object, ...]
) -> bytes:
    dropped = ("annotations", "hooks", "hostname", "domainname")
    guest = {name: value for name, value in document.items() if name not in dropped}
    root = member(document, "root")
    guest["root"] = {**root, "path": volumes.root_path(container_id)}
    guest["mounts"] = list(mounts)
    host_only = ("namespaces", "cgroupsPath", "sysctl", "rootfsPropagation")
    linux = member(document, "linux")
    guest["linux"] = {name: value for name, value in linux.items() if name not in host_only}
    return json.dumps(guest, separators=(",", ":")).encode()


def _number(value: object) -> int:
    return value if type(value) is int and 0 <= value <= 0xFFFF else 0
