"""A policy of many containers, and the requests of their life: for figures and for tests of scale."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from parma_api.policy.decision import PointRequest
from parma_api.policy.defaults import default_sets
from parma_api.policy.points import Point

POD = "d" * 64
POD_DIR = f"/run/gcs/c/{POD}"
LAYER_REGEX = "/run/mounts/scsi/m[0-9]+"
RULES = 50


def container_id(index: int) -> str:
    return hashlib.sha256(f"container {index}".encode()).hexdigest()


def layer(index: int, depth: int) -> str:
    return hashlib.sha256(f"layer {index} {depth}".encode()).hexdigest()


def target(index: int, depth: int) -> str:
    return f"/run/mounts/scsi/m{2 * index + depth}"


def env_rules(index: int) -> list[dict[str, Any]]:
    fixed = [
        {"pattern": f"NAME_{i}=value {index}", "strategy": "string", "required": i == 0}
        for i in range(RULES - 5)
    ]
    patterns = [
        {"pattern": f"PLATFORM_{i}_[A-Z]+=.+", "strategy": "re2", "required": False}
        for i in range(5)
    ]
    return fixed + patterns


def environment(index: int) -> list[str]:
    return [f"NAME_{i}=value {index}" for i in range(RULES - 5)] + [
        f"PLATFORM_{i}_X=y" for i in range(5)
    ]


def description(index: int) -> dict[str, Any]:
    return {
        "name": f"c{index}",
        "layers": [layer(index, 0), layer(index, 1)],
        "command": ["/bin/app", str(index)],
        "env_rules": env_rules(index),
        "working_dir": "/",
        "mounts": [
            {
                "source": "sandbox:///data/.+",
                "destination": "/data",
                "type": "bind",
                "options": ["rbind", "rshared", "rw"],
            }
        ],
        "exec_processes": [{"command": ["/bin/probe"], "signals": [9]}],
        "signals": [15],
        "user": {
            "user_idname": {"pattern": "", "strategy": "any"},
            "group_idnames": [{"pattern": "", "strategy": "any"}],
            "umask": "0022",
        },
        "capabilities": None,
        "seccomp_profile_sha256": "",
        "allow_elevated": False,
        "allow_stdio_access": True,
        "no_new_privileges": False,
    }


def policy(containers: int) -> bytes:
    bound = "\n".join(f"{point} := data.framework.{point}" for point in Point)
    described = json.dumps([description(index) for index in range(containers)], indent=1)
    text = (
        'package policy\n\napi_version := "0.12.0"\nframework_version := "0.5.0"\n\n'
        f"containers := {described}\n\n{bound}\n\nreason := data.framework.reason\n"
    )
    return text.encode()


def mount_device(index: int, depth: int) -> PointRequest:
    document = {
        "target": target(index, depth),
        "deviceHash": layer(index, depth),
        "mountPathRegex": LAYER_REGEX,
    }
    return PointRequest(Point.MOUNT_DEVICE, document)


def unmount_device(index: int, depth: int) -> PointRequest:
    return PointRequest(Point.UNMOUNT_DEVICE, {"unmountTarget": target(index, depth)})


def mount_overlay(index: int, container: str | None = None) -> PointRequest:
    name = container or container_id(index)
    document = {
        "containerID": name,
        "layerPaths": [target(index, 1), target(index, 0)],
        "target": f"/run/gcs/c/{name}/rootfs",
    }
    return PointRequest(Point.MOUNT_OVERLAY, document)


def process(index: int, command: list[str], container: str | None = None) -> dict[str, Any]:
    return {
        "containerID": container or container_id(index),
        "argList": command,
        "envList": environment(index),
        "workingDir": "/",
        "noNewPrivileges": False,
        "user": {"id": "0", "name": "root"},
        "groups": [{"id": "0", "name": "root"}],
        "umask": "0022",
        "capabilities": default_sets(privileged=False),
    }


def create(index: int, container: str | None = None, **changed: Any) -> PointRequest:
    document = {
        **process(index, ["/bin/app", str(index)], container),
        "sandboxDir": f"{POD_DIR}/sandboxMounts",
        "hugePagesDir": f"{POD_DIR}/hugepages",
        "mounts": [
            {
                "destination": "/data",
                "source": f"{POD_DIR}/sandboxMounts/data/x",
                "options": ["rbind", "rshared", "rw"],
                "type": "bind",
            },
            {
                "destination": "/proc",
                "source": "proc",
                "options": ["nosuid", "noexec", "nodev"],
                "type": "proc",
            },
        ],
        "devices": [],
        "privileged": False,
        "seccompProfileSHA256": "",
        "isSandboxContainer": False,
        **changed,
    }
    return PointRequest(Point.CREATE_CONTAINER, document)


def execute(
    index: int, command: tuple[str, ...] = ("/bin/probe",), container: str | None = None
) -> PointRequest:
    return PointRequest(Point.EXEC_IN_CONTAINER, process(index, list(command), container))


def signal(index: int, number: int = 15, container: str | None = None) -> PointRequest:
    document = {
        "containerID": container or container_id(index),
        "signal": number,
        "isInitProcess": True,
        "argList": ["/bin/app", str(index)],
    }
    return PointRequest(Point.SIGNAL_CONTAINER_PROCESS, document)


def shutdown(index: int, container: str | None = None) -> PointRequest:
    return PointRequest(Point.SHUTDOWN_CONTAINER, {"containerID": container or container_id(index)})
