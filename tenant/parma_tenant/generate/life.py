"""The requests of a group's whole life, as the agent asks the policy about them. Pure.

What the platform adds is there by its profile's examples, and what only the cluster will know by an example too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from parma_api.volumes import layer_path, pod_directory, root_path, sandbox_mounts, scratch_path
from parma_tenant.generate.build import command_of
from parma_tenant.generate.model import Container, MountRule
from parma_tenant.generate.run import Generated
from parma_tenant.image.documents import ImageConfig
from parma_tenant.source.model import ContainerSpec

SCRATCH_PATTERN = "/run/gcs/c/[0-9a-fA-F]{64}"
LAYER_PATTERN = "/run/mounts/scsi/m[0-9]+"
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Action:
    """One request: what people call it, and the step that simulates it."""

    title: str
    step: Mapping[str, object]


def actions(generated: Generated) -> Iterator[Action]:
    """In the order in which they come; what is taken down comes at the end."""
    pod = _identity(f"pod {generated.title or generated.group.origin}")
    yield _action("scratch space", "rw_mount_device", target=pod_directory(pod), encrypted=True,
                  ensureFilesystem=True, filesystem="ext4", mountPathRegex=SCRATCH_PATTERN)  # fmt: skip
    devices: dict[str, str] = {}
    members = list(zip(generated.group.containers, generated.policy.containers, strict=True))
    for spec, built in members:
        for root in built.layers:
            if root not in devices:
                devices[root] = layer_path(len(devices))
                yield _action(f"{spec.name}: layer {root[:12]}", "mount_device", target=devices[root],
                              deviceHash=root, mountPathRegex=LAYER_PATTERN)  # fmt: skip
        yield from _start(generated, pod, spec, built, [devices[root] for root in built.layers])
    for port in generated.group.port_forward:
        yield _action(f"port {port}", "port_forward", port=port, protocol="tcp")
    yield _action("statistics", "get_properties")
    for spec, _ in members:
        yield from _stop(pod, spec.name)
    for root, path in devices.items():
        yield _action(f"layer {root[:12]} goes", "unmount_device", unmountTarget=path)
    yield _action("scratch space goes", "rw_unmount_device", unmountTarget=pod_directory(pod))


def _start(
    generated: Generated, pod: str, spec: ContainerSpec, built: Container, paths: Sequence[str]
) -> Iterator[Action]:
    name, container = spec.name, _identity(f"container {spec.name}")
    config = generated.images[spec.image].config
    process = _process(generated, container, spec, built, config)
    yield _action(
        f"{name}: writable folder",
        "scratch_mount",
        target=scratch_path(pod, container),
        encrypted=True,
    )
    yield _action(f"{name}: root file system", "mount_overlay", containerID=container,
                  layerPaths=list(reversed(paths)), target=root_path(container))  # fmt: skip
    yield _action(
        f"{name}: {' '.join(built.command)}",
        "create_container",
        **process,
        argList=list(command_of(spec, config)),
        sandboxDir=sandbox_mounts(pod),
        hugePagesDir=f"{pod_directory(pod)}/hugepages",
        mounts=_mounts(generated, spec, pod),
        devices=[],
        privileged=spec.privileged,
        seccompProfileSHA256=spec.seccomp,
        isSandboxContainer=False,
    )
    for rule in spec.execs:
        yield _action(
            f"{name}: exec {' '.join(rule.command)}",
            "exec_in_container",
            **process,
            argList=list(rule.command),
        )


def _stop(pod: str, name: str) -> Iterator[Action]:
    container = _identity(f"container {name}")
    for signal in (15, 9):
        yield _action(f"{name}: signal {signal}", "signal_container_process", containerID=container,
                      signal=signal, isInitProcess=True, argList=[])  # fmt: skip
    yield _action(f"{name}: end", "shutdown_container", containerID=container)
    yield _action(
        f"{name}: root file system goes", "unmount_overlay", unmountTarget=root_path(container)
    )
    yield _action(
        f"{name}: writable folder goes",
        "scratch_unmount",
        unmountTarget=scratch_path(pod, container),
    )


def _action(title: str, point: str, **members: object) -> Action:
    return Action(title, {"point": point, "input": members})


def _identity(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _process(
    generated: Generated, container: str, spec: ContainerSpec, built: Container, config: ImageConfig
) -> dict[str, object]:
    capabilities = built.capabilities
    assert capabilities is not None
    user, groups = built.user.user.pattern or "0", built.user.groups
    return {
        "containerID": container,
        "envList": _environment(generated, spec, config),
        "workingDir": built.working_dir,
        "noNewPrivileges": spec.no_new_privileges,
        "user": {"id": user, "name": ""},
        "groups": [{"id": group.pattern or "0", "name": ""} for group in groups],
        "umask": built.user.umask,
        "capabilities": capabilities.value(),
    }


def _environment(generated: Generated, spec: ContainerSpec, config: ImageConfig) -> list[str]:
    given = {variable.name: variable.value.example for variable in spec.env}
    image = [text for text in config.env if text.partition("=")[0] not in given]
    added = [entry.example for profile in generated.profiles for entry in profile.env]
    return [*image, *(f"{name}={value}" for name, value in given.items()), *added]


def _mounts(generated: Generated, spec: ContainerSpec, pod: str) -> list[dict[str, object]]:
    found = [
        _mount(rule, rule.example or _ESCAPE.sub(r"\1", rule.source), pod) for rule in spec.mounts
    ]
    for profile in generated.profiles:
        for entry in profile.mounts:
            if not entry.feature or entry.feature not in generated.group.without:
                found.append(_mount(entry.rule, entry.example, pod))
    return found


def _mount(rule: MountRule, source: str, pod: str) -> dict[str, object]:
    path = source.replace("sandbox://", sandbox_mounts(pod), 1)
    return {**rule.value(), "source": path}
