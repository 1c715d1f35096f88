"""The demo's container group: what it runs, as CRI is told and as the policy generator is told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from parma_shim.demo import images

ANNOTATION = "io.parma/policy"


@dataclass(frozen=True, slots=True)
class Member:
    """One container of the group."""

    name: str
    image: str
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    execs: tuple[tuple[str, ...], ...] = ()


WEB = Member(
    "web",
    images.NGINX,
    ("/usr/sbin/nginx", "-c", "/etc/nginx/nginx.conf"),
    (("GREETING", "hello"),),
    (("/bin/cat", "/srv/index.html"),),
)
CACHE = Member(
    "cache",
    images.REDIS,
    ("/usr/bin/redis-server", "--save", "", "--appendonly", "no"),
    execs=(("/usr/bin/redis-cli", "ping"),),
)
GROUP = (WEB, CACHE)


def group_file(members: tuple[Member, ...]) -> str:
    """The container-group file for `parma policy generate` (JSON is YAML)."""
    return json.dumps({"containers": [_described(member) for member in members]}, indent=2)


def _described(member: Member) -> dict[str, object]:
    return {
        "name": member.name,
        "image": member.image,
        "command": list(member.command),
        "env": [{"name": name, "value": value} for name, value in member.env],
        "exec": [list(command) for command in member.execs],
    }


def pod_config(name: str, logs: Path, annotations: dict[str, str]) -> str:
    """CRI's PodSandboxConfig; the container has a pid namespace of its own, as kubelet asks."""
    config = {
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "attempt": 1},
        "hostname": name,
        "log_directory": str(logs),
        "annotations": annotations,
        "linux": {"security_context": {"namespace_options": {"pid": 1}}},
    }
    return json.dumps(config)


def container_config(member: Member, **changes: object) -> str:
    """CRI's ContainerConfig of a member, with some of its fields changed (that is an attack)."""
    config: dict[str, object] = {
        "metadata": {"name": member.name},
        "image": {"image": member.image},
        "command": list(member.command),
        "envs": [{"key": name, "value": value} for name, value in member.env],
        "log_path": f"{member.name}.log",
        "linux": {"security_context": {"namespace_options": {"pid": 1}}},
    }
    return json.dumps(config | changes)
