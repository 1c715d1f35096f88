"""Kernel settings that belong to the pod's own namespaces, by an allow-list. Pure, but for `write`.

The list is Kubernetes' safe and namespaced ones. Beneath `net.` everything is the namespace's own, apart from what
reaches other interfaces than the pod's or the kernel's memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from parma_api.status import InvalidArgumentError
from parma_guest.linux.errno import kernel_call

MAX_SYSCTLS = 128
_EXACT = frozenset(
    {
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "fs.mqueue.msg_default",
        "fs.mqueue.msg_max",
        "fs.mqueue.msgsize_default",
        "fs.mqueue.msgsize_max",
        "fs.mqueue.queues_max",
    }
)
_NETWORK = ("net.ipv4.", "net.ipv6.", "net.core.somaxconn", "net.unix.")
_REFUSED = re.compile(
    r"net\.ipv[46]\.(conf|neigh)\.lo\..*"  # loopback stays as it is
    r"|net\.ipv4\.conf\.[^.]+\.route_localnet"  # the wire would reach 127.0.0.0/8
    r"|net\.ipv4\.(tcp|udp)_mem"  # of the whole kernel
    r"|net\.ipv4\.tcp_(allowed|available)_.*"
)
_NAME = re.compile(r"[a-z0-9_]+(\.[A-Za-z0-9_-]+)+")
_VALUE = re.compile(r"[A-Za-z0-9_.,:/ \t-]{0,256}")


def parse_sysctls(rows: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Settings within the list, as given. Raises InvalidArgumentError."""
    found = tuple((name.replace("/", "."), value) for name, value in rows)
    if len(found) > MAX_SYSCTLS or len({name for name, _ in found}) != len(found):
        raise InvalidArgumentError(f"sysctls: at most {MAX_SYSCTLS}, each once")
    for name, value in found:
        allowed = name in _EXACT or (
            name.startswith(_NETWORK) and _NAME.fullmatch(name) and not _REFUSED.fullmatch(name)
        )
        if not allowed:
            raise InvalidArgumentError(f"sysctl {name!r} is not one of the pod's own")
        if not _VALUE.fullmatch(value):
            raise InvalidArgumentError(f"sysctl {name}: the value has characters that none has")
    return found


def path_of(name: str, root: str = "/proc/sys") -> str:
    """The file of a setting."""
    return f"{root}/{name.replace('.', '/')}"


def write(rows: Iterable[tuple[str, str]]) -> None:
    """Write the settings; the calling thread is inside the pod's namespaces. Raises KernelError."""
    for name, value in rows:
        path = path_of(name)
        with (
            kernel_call("write", path),
            open(path, "w", encoding="ascii") as file,  # noqa: PTH123 (pathlib costs an import)
        ):
            file.write(value)
