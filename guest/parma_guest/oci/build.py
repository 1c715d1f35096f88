"""The document that crun gets: judged values, the decision's, and constants; nothing else of the host's. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from parma_api.ids import ContainerId
from parma_api.policy.decision import Capabilities
from parma_guest.linux.cgroup import CONTAINERS, Limits
from parma_guest.oci import devices
from parma_guest.oci.devices import Device
from parma_guest.oci.mounts import SHM, bind_options, is_bind, propagation
from parma_guest.oci.parse import Mount
from parma_guest.oci.resources import oci_resources
from parma_guest.oci.users import Identities

CGROUP: Final = CONTAINERS
"""Above every container's control group."""
VERSION: Final = "1.0.2"
OPEN_FILES: Final = 1048576
CONTEXT_VARIABLE: Final = "UVM_SECURITY_CONTEXT_DIR"
MASKED_PATHS: Final = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
    "/sys/firmware", "/sys/kernel/config",
)  # fmt: skip
READONLY_PATHS: Final = (
    "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """A process as it will run: judged and decided."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    identities: Identities
    capabilities: Capabilities
    no_new_privileges: bool
    terminal: bool = False
    size: tuple[int, int] = (0, 0)
    """Width and height."""


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Paths of the pod's pinned namespaces; pid None: the container's own."""

    ipc: str
    uts: str
    net: str
    pid: str | None = None


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """A container as it will run."""

    container: ContainerId
    process: ProcessPlan
    root: str
    read_only: bool
    mounts: tuple[Mount, ...]
    """As judged; sources of binds by `pins`."""
    namespaces: Namespaces
    seccomp: Mapping[str, object] | None
    limits: Limits
    privileged: bool
    shm: str
    """The pod's /dev/shm."""
    context_dir: str | None = None
    """The security context directory, as the container sees it."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """Judged source -> the agent's own bind mount of it, which nobody can exchange for a link."""
    devices: tuple[Device, ...] = ()
    """For privileged containers: the report device."""
    block_majors: tuple[int, ...] = ()
    """For privileged containers that mount for others: block devices that they may make nodes of."""
    binds: tuple[tuple[str, str], ...] = ()
    """For privileged containers: the agent's own files, (source, destination)."""


def build_container(plan: ContainerPlan) -> dict[str, object]:
    """The whole document."""
    return {
        "ociVersion": VERSION,
        "process": build_process(plan.process, plan.context_dir),
        "root": {"path": plan.root, "readonly": plan.read_only},
        "mounts": _mounts(plan),
        "linux": _linux(plan),
    }


def build_process(plan: ProcessPlan, context_dir: str | None) -> dict[str, object]:
    """A process object, of a container or an exec."""
    who, caps = plan.identities, plan.capabilities
    process: dict[str, object] = {
        "terminal": plan.terminal,
        "user": {
            "uid": who.user.number,
            "gid": who.groups[0].number,
            "additionalGids": [group.number for group in who.groups[1:]],
            "umask": who.umask,
        },
        "args": list(plan.args),
        "env": _environment(plan.env, context_dir),
        "cwd": plan.cwd,
        "capabilities": {
            "bounding": list(caps.bounding),
            "effective": list(caps.effective),
            "inheritable": list(caps.inheritable),
            "permitted": list(caps.permitted),
            "ambient": list(caps.ambient),
        },
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": OPEN_FILES, "hard": OPEN_FILES}],
        "noNewPrivileges": plan.no_new_privileges,
        "oomScoreAdj": 0,
    }
    if plan.terminal and all(plan.size):
        process["consoleSize"] = {"width": plan.size[0], "height": plan.size[1]}
    return process


def _environment(env: Sequence[str], context_dir: str | None) -> list[str]:
    """The variable is the agent's: one of the same name that the host sent does not stand beside it."""
    if context_dir is None:
        return list(env)
    kept = [entry for entry in env if entry.partition("=")[0] != CONTEXT_VARIABLE]
    return [*kept, f"{CONTEXT_VARIABLE}={context_dir}"]


def _mounts(plan: ContainerPlan) -> list[dict[str, object]]:
    found = [_mount(mount, plan) for mount in plan.mounts]
    found += [
        {"destination": inner, "type": "bind", "source": source, "options": ["bind"]}
        for source, inner in plan.binds
        if plan.privileged
    ]
    return found


def _mount(mount: Mount, plan: ContainerPlan) -> dict[str, object]:
    if is_bind(mount):
        return {
            "destination": mount.destination,
            "type": "bind",
            "source": plan.pins[mount.source],
            "options": bind_options(mount, privileged=plan.privileged),
        }
    if mount.destination == SHM and mount.type == "tmpfs":
        # With the pod's IPC namespace goes the pod's shared memory.
        options = ["bind", *(o for o in mount.options if o in ("nosuid", "noexec", "nodev", "ro"))]
        return {"destination": SHM, "type": "bind", "source": plan.shm, "options": options}
    return {
        "destination": mount.destination,
        "type": mount.type,
        "source": mount.source,
        "options": list(mount.options),
    }


def _linux(plan: ContainerPlan) -> dict[str, object]:
    extra, majors = (plan.devices, plan.block_majors) if plan.privileged else ((), ())
    linux: dict[str, object] = {
        "cgroupsPath": f"{CGROUP}/{plan.container}",
        "namespaces": _namespaces(plan.namespaces),
        "resources": {**oci_resources(plan.limits), "devices": devices.rules(extra, majors)},
        "rootfsPropagation": propagation(plan.mounts, privileged=plan.privileged).value,
        "maskedPaths": [] if plan.privileged else list(MASKED_PATHS),
        "readonlyPaths": [] if plan.privileged else list(READONLY_PATHS),
    }
    if extra:
        linux["devices"] = [device.node() for device in extra]
    if plan.seccomp is not None:
        linux["seccomp"] = dict(plan.seccomp)
    return linux


def _namespaces(paths: Namespaces) -> list[dict[str, str]]:
    pid = {"type": "pid"} if paths.pid is None else {"type": "pid", "path": paths.pid}
    return [
        {"type": "mount"},
        {"type": "cgroup"},
        {"type": "ipc", "path": paths.ipc},
        {"type": "uts", "path": paths.uts},
        {"type": "network", "path": paths.net},
        pid,
    ]
