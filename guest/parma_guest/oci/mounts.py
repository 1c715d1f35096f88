"""Mounts of a container: how they are judged, and which sources the guest accepts at all. Pure.

The policy sees each source with its prefix replaced and in plain form; exactly that is used. What a bind mount shows
must be the pod's own (its directory on the scratch), and no other file system than the kernel's own is mounted: a host
that found a gap in a policy's rules gains nothing by it (K2, K10).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from parma_api.ids import SandboxId
from parma_api.policy.paths import plain_path
from parma_api.status import InvalidArgumentError
from parma_api.volumes import (
    LOG_NAMES,
    NETWORK_FILES,
    SANDBOX_PREFIX,
    huge_pages,
    pod_directory,
    sandbox_mounts,
)
from parma_guest.oci.parse import Mount

HUGE_PAGES_PREFIX: Final = "hugepages://"
PLAN9_PREFIX: Final = "plan9://"
SHM: Final = "/dev/shm"  # noqa: S108 (the destination inside a container)
_BIND: Final = ("bind", "rbind")
_VIRTUAL: Final = frozenset({"proc", "tmpfs", "devpts", "mqueue", "sysfs", "cgroup", "cgroup2"})
_PROPAGATION: Final = ("private", "slave", "shared", "unbindable")
_SHARING: Final = frozenset({"shared", "rshared"})
_RECEIVING: Final = frozenset({"slave", "rslave"})
_BIND_OPTIONS: Final = frozenset(
    {*_BIND, "ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "relatime"}
    | {*_PROPAGATION, *(f"r{word}" for word in _PROPAGATION)}
)
_VIRTUAL_OPTION: Final = re.compile(r"[a-z]+(=[A-Za-z0-9]{1,20})?")


class Propagation(enum.Enum):
    """What a container has to do with file systems that are mounted beneath its volumes later."""

    PRIVATE = "private"
    RECEIVE = "rslave"
    """Sees what a privileged container of the pod mounts there."""
    SHARE = "rshared"
    """Its mounts are seen by the others: privileged containers only."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a bind mount shows: a path of the pod's, to be opened beneath the pod's directory through no link."""

    path: str
    inner: str
    """The path beneath the pod's directory."""


def is_bind(mount: Mount) -> bool:
    """Whether it shows something that is there already; for the runtime the options decide as well as the type."""
    return mount.type == "bind" or any(option in _BIND for option in mount.options)


def propagation(mounts: Iterable[Mount], *, privileged: bool) -> Propagation:
    """What the judged options ask for; who is not privileged cannot mount, and receives where it asks to share."""
    asked = {option for mount in mounts if is_bind(mount) for option in mount.options}
    if not asked & (_SHARING | _RECEIVING):
        return Propagation.PRIVATE
    return Propagation.SHARE if privileged and asked & _SHARING else Propagation.RECEIVE


def propagating(mounts: Iterable[Mount]) -> frozenset[str]:
    """Sources of binds beneath which later mounts shall be seen."""
    words = _SHARING | _RECEIVING
    return frozenset(m.source for m in mounts if is_bind(m) and words.intersection(m.options))


def bind_options(mount: Mount, *, privileged: bool) -> list[str]:
    """As the runtime gets them: only a privileged container shares."""
    if privileged:
        return list(mount.options)
    return [option.replace("shared", "slave") for option in mount.options]


def resolve(mounts: Iterable[Mount], pod: SandboxId) -> tuple[Mount, ...]:
    """Prefixes replaced, absolute sources in plain form. Raises InvalidArgumentError for what leaves its directory."""
    return tuple(
        Mount(mount.destination, mount.type, _source(mount.source, pod), mount.options)
        for mount in mounts
    )


def _source(text: str, pod: SandboxId) -> str:
    if text.startswith(PLAN9_PREFIX):
        raise InvalidArgumentError("mount source plan9://: the host's shares do not exist here")
    for prefix, directory in (
        (SANDBOX_PREFIX, sandbox_mounts(pod)),
        (HUGE_PAGES_PREFIX, huge_pages(pod)),
    ):
        if text.startswith(prefix):
            joined = plain_path(directory + text.removeprefix(prefix))
            if _beneath(joined, directory) is None:
                raise InvalidArgumentError(
                    f"mount source {text[:200]!r} leaves the pod's directory"
                )
            return joined
    return plain_path(text)


def _beneath(path: str, directory: str) -> str | None:
    """The part of `path` below `directory`, compared part by part; None if it is not inside."""
    parts, above = path.split("/"), directory.split("/")
    inside = len(parts) > len(above) and parts[: len(above)] == above
    return "/".join(parts[len(above) :]) if inside else None


def network_mounts(
    mounts: Sequence[Mount], pod: SandboxId, *, read_only: bool
) -> tuple[Mount, ...]:
    """The pod's three network files, but for destinations that the request serves itself (policy.md 7)."""
    own = {mount.destination for mount in mounts}
    options = ("bind", "ro") if read_only else ("bind",)
    return tuple(
        Mount(destination, "bind", f"{pod_directory(pod)}/{name}", options)
        for destination, name in NETWORK_FILES.items()
        if destination not in own
    )


def judged(mount: Mount) -> dict[str, object]:
    """As the policy sees it."""
    return {
        "destination": mount.destination,
        "source": mount.source,
        "options": list(mount.options),
        "type": mount.type,
    }


def check(mounts: Iterable[Mount], pod: SandboxId) -> None:
    """The guest's own limits, which no policy lifts. Raises InvalidArgumentError."""
    for mount in mounts:
        if not mount.destination.startswith("/"):
            raise InvalidArgumentError(f"mount at {mount.destination[:200]!r}: not absolute")
        if is_bind(mount):
            bind_source(mount, pod)
        else:
            _check_virtual(mount)


def bind_source(mount: Mount, pod: SandboxId) -> Source:
    """What a bind mount shows. Raises InvalidArgumentError for anything but the pod's own."""
    if unknown := set(mount.options) - _BIND_OPTIONS:
        raise InvalidArgumentError(f"mount at {mount.destination}: option {min(unknown)!r} refused")
    if mount.type not in ("bind", "none", ""):
        raise InvalidArgumentError(f"mount at {mount.destination}: a bind of type {mount.type!r}")
    directory = pod_directory(pod)
    inner = _beneath(mount.source, directory)
    inside = any(_beneath(mount.source, own(pod)) for own in (sandbox_mounts, huge_pages))
    if inner is None or not (inside or inner in NETWORK_FILES.values()):
        raise InvalidArgumentError(
            f"mount at {mount.destination}: source {mount.source[:200]!r} is none of the pod's own"
        )
    return Source(mount.source, inner)


def termination_log(mounts: Iterable[Mount], pod: SandboxId) -> str | None:
    """The path beneath the pod's directory of a container's termination log, if a judged mount shows one."""
    logs = f"{sandbox_mounts(pod)}{LOG_NAMES}"
    found = (_beneath(mount.source, logs) for mount in mounts if is_bind(mount))
    inner = next((path for path in found if path is not None), None)
    return None if inner is None else f"sandboxMounts{LOG_NAMES}/{inner}"


def _check_virtual(mount: Mount) -> None:
    if mount.type not in _VIRTUAL:
        raise InvalidArgumentError(
            f"mount at {mount.destination}: type {mount.type[:32]!r} refused: the kernel's own file systems only"
        )
    if mount.source.startswith("/"):
        raise InvalidArgumentError(f"mount at {mount.destination}: {mount.type} has no source path")
    for option in mount.options:
        if not _VIRTUAL_OPTION.fullmatch(option):
            raise InvalidArgumentError(
                f"mount at {mount.destination}: option {option[:64]!r} refused"
            )
