"""OCI documents as a shim sends them, each with what an attack changes."""

from __future__ import annotations

import json
from collections.abc import Mapping

from parma_api.policy.defaults import default_sets
from parma_api.volumes import root_path
from parma_shim.attack.policy import IDLE, PATH

Json = dict[str, object]

_MOUNTS = (
    ("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    (
        "/dev/shm",  # noqa: S108 - a container's
        "tmpfs",
        "shm",
        ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
    ),
    ("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
)


def process(args: tuple[str, ...] = IDLE, **changed: object) -> Json:
    """A process object."""
    return {
        "args": list(args),
        "env": [PATH],
        "cwd": "/",
        "user": {"uid": 0, "gid": 0},
        "capabilities": default_sets(privileged=False),
        **changed,
    }


def default_mounts() -> list[Json]:
    """What every container has."""
    return [
        {"destination": to, "type": kind, "source": source, "options": list(options)}
        for to, kind, source, options in _MOUNTS
    ]


def document(container: str, args: tuple[str, ...] = IDLE, **changed: object) -> Json:
    """A whole document; `changed` replaces members."""
    return {
        "ociVersion": "1.0.2",
        "process": process(args),
        "root": {"path": root_path(container)},
        "mounts": default_mounts(),
        "linux": {},
        **changed,
    }


def encode(value: Mapping[str, object]) -> bytes:
    """As it goes over the wire."""
    return json.dumps(value, separators=(",", ":")).encode()
