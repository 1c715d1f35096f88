"""What becomes of each field that the host can fill: data, read by the parser, by tests, and by docs/fields.md.

Four kinds (design.md 2.4). judged: a point of the policy sees it. constant: the guest's own value, whatever the host
says. bounded: the host's value within the guest's limits. refused: the request fails if it is there and not empty. A
field without a row is refused.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from parma_api.status import InvalidArgumentError


class Kind(enum.StrEnum):
    """What becomes of a field."""

    JUDGED = "judged"
    CONSTANT = "constant"
    BOUNDED = "bounded"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Row:
    """One field: its path (`mounts[].source`), its kind, and the point, value, limit or reason."""

    path: str
    kind: Kind
    detail: str


def table(text: str) -> dict[str, Row]:
    """Rows from lines `path kind detail`."""
    rows: dict[str, Row] = {}
    for line in text.strip().splitlines():
        path, kind, detail = line.split(maxsplit=2)
        if path in rows:
            raise ValueError(f"{path} has two rows")
        rows[path] = Row(path, Kind(kind), detail)
    return rows


def is_empty(value: object) -> bool:
    """Whether a member says nothing: the schema leaves null, false, 0, "" and empty lists and objects out."""
    return value is None or value is False or value in (0, "", [], {})


def check_fields(document: Mapping[str, object], rows: Mapping[str, Row], prefix: str = "") -> None:
    """Raises InvalidArgumentError for the first field that is refused or has no row.

    `prefix` is the path of `document` itself: `process` for an exec's process object.
    """
    parents = {path for row in rows for path in _parents(row)}
    _check_object(document, rows, parents, prefix)


def _parents(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def _check_object(
    document: Mapping[str, object], rows: Mapping[str, Row], parents: set[str], prefix: str
) -> None:
    for name, value in document.items():
        path = f"{prefix}.{name}" if prefix else name
        _check_member(path, value, rows, parents)


def _check_member(path: str, value: object, rows: Mapping[str, Row], parents: set[str]) -> None:
    if f"{path}[]" in parents:
        for item in value if isinstance(value, list) else ():
            if isinstance(item, dict):
                _check_object(item, rows, parents, f"{path}[]")
    elif path in parents:
        if isinstance(value, dict):
            _check_object(value, rows, parents, path)
    elif path not in rows:
        raise InvalidArgumentError(f"{path[:200]}: unknown field, refused")
    elif rows[path].kind is Kind.REFUSED and not is_empty(value):
        raise InvalidArgumentError(f"{path}: refused: {rows[path].detail}")


OCI: Final = table(
    """
ociVersion constant the document that the guest writes says 1.0.2
root.path judged mount_overlay (must be the root that was assembled for this id)
root.readonly bounded true makes the root read-only, false leaves it as it was assembled
hostname constant the pod's, set once with the sandbox
domainname refused the pod has a host name only
annotations constant none reach the runtime
process.terminal bounded refused where the policy withholds standard streams
process.consoleSize.height bounded 0 to 65535
process.consoleSize.width bounded 0 to 65535
process.user.uid judged create_container, exec_in_container
process.user.gid judged create_container, exec_in_container
process.user.umask judged create_container, exec_in_container
process.user.additionalGids judged create_container, exec_in_container
process.user.username judged create_container, exec_in_container (resolved inside the container's root)
process.args judged create_container, exec_in_container
process.commandLine refused Windows only; the arguments are judged one by one
process.env judged create_container, exec_in_container
process.cwd judged create_container, exec_in_container
process.capabilities.bounding judged create_container, exec_in_container
process.capabilities.effective judged create_container, exec_in_container
process.capabilities.inheritable judged create_container, exec_in_container
process.capabilities.permitted judged create_container, exec_in_container
process.capabilities.ambient judged create_container, exec_in_container
process.noNewPrivileges judged create_container, exec_in_container
process.rlimits constant RLIMIT_NOFILE 1048576, everything else the kernel's default
process.apparmorProfile constant none: the guest's kernel has no AppArmor
process.selinuxLabel constant none: the guest's kernel has no SELinux
process.oomScoreAdj constant 0: no container is spared more than another
process.scheduler refused the guest's scheduler is nobody's to set
process.ioPriority refused the guest's scheduler is nobody's to set
process.execCPUAffinity refused the guest's scheduler is nobody's to set
mounts[].destination judged create_container
mounts[].type judged create_container
mounts[].source judged create_container (prefixes replaced, in plain form)
mounts[].options judged create_container
mounts[].uidMappings refused there are no user namespaces
mounts[].gidMappings refused there are no user namespaces
hooks.prestart refused programs that would run in the agent's own namespaces
hooks.createRuntime refused programs that would run in the agent's own namespaces
hooks.createContainer refused programs that would run in the agent's own namespaces
hooks.startContainer refused programs that would run outside what the policy names
hooks.poststart refused programs that would run in the agent's own namespaces
hooks.poststop refused programs that would run in the agent's own namespaces
linux.namespaces constant mount and cgroup of its own; ipc, uts and net of the pod; pid its own, or the pod's
linux.uidMappings refused there are no user namespaces
linux.gidMappings refused there are no user namespaces
linux.timeOffsets refused the guest keeps its own time
linux.devices refused policies cannot describe devices; the standard ones are there
linux.netDevices refused no interface is moved into a container
linux.cgroupsPath constant /parma/<container id>
linux.rootfsPropagation constant private; rslave or rshared where the judged mounts say so
linux.maskedPaths constant the guest's list; none for privileged containers
linux.readonlyPaths constant the guest's list; none for privileged containers
linux.mountLabel refused the guest's kernel has no SELinux
linux.personality refused one execution domain
linux.intelRdt refused not offered by a virtual machine
linux.memoryPolicy refused one memory node
linux.sysctl refused namespaced settings are the pod's, made once with the sandbox
linux.seccomp.defaultAction judged create_container (digest of the canonical profile)
linux.seccomp.defaultErrnoRet judged create_container (digest of the canonical profile)
linux.seccomp.architectures judged create_container (digest of the canonical profile)
linux.seccomp.flags judged create_container (digest of the canonical profile)
linux.seccomp.listenerPath refused a listener would decide over system calls outside the policy
linux.seccomp.listenerMetadata refused a listener would decide over system calls outside the policy
linux.seccomp.syscalls judged create_container (digest of the canonical profile)
linux.resources.devices constant everything denied but the standard devices
linux.resources.memory.limit bounded at most the VM's memory; less than 1 is no limit
linux.resources.memory.reservation bounded at most the VM's memory
linux.resources.memory.swap constant the VM has no swap
linux.resources.memory.kernel refused not in control groups version 2
linux.resources.memory.kernelTCP refused not in control groups version 2
linux.resources.memory.swappiness constant the VM has no swap
linux.resources.memory.disableOOMKiller refused not in control groups version 2
linux.resources.memory.useHierarchy constant always, in control groups version 2
linux.resources.memory.checkBeforeUpdate constant no: a limit is set as it is asked for
linux.resources.cpu.shares bounded 2 to 262144
linux.resources.cpu.quota bounded at most the period times the VM's processors; less than 1 is no limit
linux.resources.cpu.burst refused not offered
linux.resources.cpu.period bounded 1000 to 1000000
linux.resources.cpu.realtimeRuntime refused not in control groups version 2
linux.resources.cpu.realtimePeriod refused not in control groups version 2
linux.resources.cpu.cpus bounded those that the VM has; none of them is no limit
linux.resources.cpu.mems constant one memory node
linux.resources.cpu.idle refused not offered
linux.resources.pids.limit bounded less than 1 is no limit
linux.resources.blockIO refused the VM's disks are the agent's
linux.resources.hugepageLimits constant the VM has no huge pages of its own
linux.resources.network refused not in control groups version 2
linux.resources.rdma refused the VM has no such device
linux.resources.unified refused names files of the control group at will
solaris refused another operating system's
windows refused another operating system's
vm refused the container runs in this VM already
zos refused another operating system's
freebsd refused another operating system's
"""
)
"""The OCI runtime specification 1.2, config.md and config-linux.md, and what newer drafts added."""
