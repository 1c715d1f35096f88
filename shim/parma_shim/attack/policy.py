"""The tenant's policy that the attacks are played against: strict, three containers out of three layers."""

from __future__ import annotations

import json
from collections.abc import Mapping

from parma_api.ids import RootHash
from parma_api.policy.points import API_VERSION, FRAMEWORK_VERSION, Point
from parma_shim.attack.program import CANARY, COPY, TOOL

PATH = "PATH=/usr/bin:/bin"
GREETING = "GREETING=hello"
IDLE = (TOOL,)
"""The command of the group's long-lived container."""
READ = (TOOL, CANARY)
"""The command of the containers that read the canary, and an exec that the first one may have."""
WRITE = (TOOL, CANARY, COPY)
READ_BACK = (TOOL, COPY)
OPEN_VSOCK = (TOOL, "open", "a", "vsock")
MAKE_NODE = (TOOL, "make", "a", "device", "node")
DATA_MOUNT = {
    "source": "sandbox:///data/.+",
    "destination": "/data",
    "type": "bind",
    "options": ["rbind", "rshared", "rw"],
}
_ANYBODY = {
    "user_idname": {"pattern": "", "strategy": "any"},
    "group_idnames": [{"pattern": "", "strategy": "any"}],
    "umask": "0022",
}


def policy_text(base: RootHash, top: RootHash, extra: RootHash) -> bytes:
    """The text: `app` and `reader` are `top` over `base`; `quiet` is `extra`, and its streams are withheld."""
    execs = (READ, WRITE, READ_BACK, OPEN_VSOCK, MAKE_NODE)
    containers = (
        _container("app", (base, top), IDLE, execs=execs, mounts=[DATA_MOUNT]),
        _container("reader", (base, top), READ),
        _container("quiet", (extra,), READ, stdio=False),
    )
    lists = json.dumps(containers, indent=1)
    points = "\n".join(f"{point} := data.framework.{point}" for point in Point)
    return (
        f'package policy\n\napi_version := "{API_VERSION}"\nframework_version := "{FRAMEWORK_VERSION}"\n\n'
        f"containers := {lists}\n\n{points}\n\nreason := data.framework.reason\n"
    ).encode()


def _container(
    name: str,
    layers: tuple[RootHash, ...],
    command: tuple[str, ...],
    *,
    execs: tuple[tuple[str, ...], ...] = (),
    mounts: list[Mapping[str, object]] | None = None,
    stdio: bool = True,
) -> dict[str, object]:
    return {
        "name": name,
        "layers": list(layers),
        "command": list(command),
        "env_rules": [
            {"pattern": PATH, "strategy": "string", "required": True},
            {"pattern": GREETING, "strategy": "string", "required": False},
        ],
        "working_dir": "/",
        "mounts": mounts or [],
        "exec_processes": [{"command": list(one), "signals": [9]} for one in execs],
        "signals": [9],
        "user": _ANYBODY,
        "capabilities": None,
        "seccomp_profile_sha256": "",
        "allow_elevated": False,
        "allow_stdio_access": stdio,
        "no_new_privileges": False,
    }
