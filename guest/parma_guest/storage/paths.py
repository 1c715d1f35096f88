"""The guest paths that requests may name (policy.md 16), each in one exact form. Pure."""

from __future__ import annotations

import re

from parma_api.ids import ContainerId, SandboxId
from parma_api.status import InvalidArgumentError
from parma_api.volumes import GUEST_ROOT, LAYER_ROOT

_LAYER = re.compile(rf"{LAYER_ROOT}/m(0|[1-9][0-9]{{0,5}})")
_SCRATCH = re.compile(rf"{GUEST_ROOT}/([0-9a-f]{{64}})")
_ROOT = re.compile(rf"{GUEST_ROOT}/([0-9a-f]{{64}})/rootfs")
_CONTAINER_SCRATCH = re.compile(rf"{GUEST_ROOT}/([0-9a-f]{{64}})/scratch/([0-9a-f]{{64}})")


def check_layer_target(target: str) -> None:
    """Raises InvalidArgumentError unless it is `/run/mounts/scsi/m<number>`."""
    if not _LAYER.fullmatch(target):
        raise InvalidArgumentError(f"a layer is mounted at {LAYER_ROOT}/m<number>, not {target!r}")


def sandbox_of_scratch(target: str) -> SandboxId:
    """The pod whose scratch is mounted at `target`. Raises InvalidArgumentError."""
    found = _SCRATCH.fullmatch(target)
    if not found:
        raise InvalidArgumentError(f"scratch is mounted at {GUEST_ROOT}/<pod id>, not {target!r}")
    return SandboxId(found[1])


def container_of_root(target: str) -> ContainerId:
    """The container whose root file system is `target`. Raises InvalidArgumentError."""
    found = _ROOT.fullmatch(target)
    if not found:
        raise InvalidArgumentError(
            f"an overlay is mounted at {GUEST_ROOT}/<container id>/rootfs, not {target!r}"
        )
    return ContainerId(found[1])


def parse_container_scratch(path: str) -> tuple[str, ContainerId]:
    """Where the pod's scratch is mounted, and the container whose directory on it `path` is."""
    found = _CONTAINER_SCRATCH.fullmatch(path)
    if not found:
        raise InvalidArgumentError(
            f"a container's scratch is {GUEST_ROOT}/<pod id>/scratch/<container id>, not {path!r}"
        )
    return f"{GUEST_ROOT}/{found[1]}", ContainerId(found[2])
