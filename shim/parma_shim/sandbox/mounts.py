"""A container's mounts as the guest gets them: what is dropped, rewritten, refused. Pure.

| mount of the host's document                    | in the guest                                              |
|-------------------------------------------------|-----------------------------------------------------------|
| /etc/hosts, /etc/hostname, /etc/resolv.conf     | dropped; content sent, the agent binds its own            |
| a path of kubelet's (`parma_api.volumes`)       | `sandbox://` and the volume's name                        |
| /dev/shm bound from the host                    | tmpfs, as a container outside Kubernetes has it           |
| cgroup, cgroup2                                 | type cgroup with the options that policies know           |
| proc, sysfs, tmpfs, devpts, mqueue              | as they are                                               |
| anything else from the host                     | refused, or a copy where `host_paths` offers it           |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from parma_api.volumes import NETWORK_FILES, Volume, VolumeKind, host_copy, volume_of
from parma_shim.config import HostPaths
from parma_shim.errors import RefusedError, UsageError
from parma_shim.sandbox.document import Object, objects, text, texts

VIRTUAL = frozenset({"proc", "sysfs", "tmpfs", "devpts", "mqueue"})
_CGROUP = frozenset({"cgroup", "cgroup2"})
_PROPAGATION = frozenset({"shared", "rshared", "slave", "rslave"})
_SHM_OPTIONS = ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]


@dataclass(frozen=True, slots=True)
class HostVolume:
    """A volume of the pod and where the host has its content."""

    volume: Volume
    source: str
    container_path: str


@dataclass(frozen=True, slots=True)
class MountPlan:
    """The guest's mounts; what has to be sent; files of the network by name beneath the pod's directory."""

    mounts: tuple[Object, ...]
    volumes: tuple[HostVolume, ...]
    network_files: tuple[tuple[str, str], ...]


def plan_mounts(document: Object, host_paths: HostPaths = HostPaths.REFUSE) -> MountPlan:
    """Raises RefusedError, UsageError."""
    mounts: list[Object] = []
    volumes: list[HostVolume] = []
    network: list[tuple[str, str]] = []
    for mount in objects(document, "mounts"):
        destination, source = text(mount, "destination"), text(mount, "source")
        if not destination.startswith("/"):
            raise UsageError("config.json: a mount's destination is not absolute")
        if not _is_bind(mount):
            mounts.append(_virtual(mount, destination))
        elif destination in NETWORK_FILES:
            network.append((NETWORK_FILES[destination], source))
        elif destination == "/dev/shm":  # noqa: S108
            mounts.append(_memory(destination))
        else:
            volume = _volume(mount, destination, source, host_paths)
            volumes.append(volume)
            mounts.append({**mount, "source": volume.volume.policy_source})
    return MountPlan(tuple(mounts), tuple(volumes), tuple(network))


def network_files(document: Object) -> tuple[tuple[str, str], ...]:
    """The network files alone, of a sandbox's document, whose mounts nobody else uses. Raises UsageError."""
    return tuple(
        (NETWORK_FILES[text(mount, "destination")], text(mount, "source"))
        for mount in objects(document, "mounts")
        if text(mount, "destination") in NETWORK_FILES and _is_bind(mount)
    )


def _is_bind(mount: Object) -> bool:
    kind = text(mount, "type")
    return kind == "bind" or (kind in ("", "none") and _has_bind(texts(mount, "options")))


def _has_bind(options: Sequence[str]) -> bool:
    return "bind" in options or "rbind" in options


def _virtual(mount: Object, destination: str) -> Object:
    kind = text(mount, "type")
    options = texts(mount, "options")
    if kind in _CGROUP:
        access = "rw" if "rw" in options else "ro"
        chosen = ["nosuid", "noexec", "nodev", "relatime", access]
        return {**mount, "type": "cgroup", "source": "cgroup", "options": chosen}
    if kind not in VIRTUAL or _has_bind(options):
        raise RefusedError(
            f"mount at {destination[:100]}: a file system of type {kind[:32]!r} cannot be given to a utility VM"
        )
    return dict(mount)


def _memory(destination: str) -> Object:
    return {"destination": destination, "type": "tmpfs", "source": "shm", "options": _SHM_OPTIONS}


def _volume(mount: Object, destination: str, source: str, host_paths: HostPaths) -> HostVolume:
    where = f"mount at {destination[:100]}"
    volume = volume_of(source)
    if volume.kind is VolumeKind.REFUSED and host_paths is HostPaths.COPY:
        volume = host_copy(source)
    if volume.kind is VolumeKind.REFUSED:
        raise RefusedError(
            f"{where}: {source[:200]} is the host's own (hostPath, or a volume that is not content): a utility VM "
            "gets ConfigMaps, secrets, projected volumes and emptyDir"
        )
    propagation = _PROPAGATION.intersection(texts(mount, "options"))
    if propagation and volume.kind is not VolumeKind.SCRATCH:
        raise RefusedError(
            f"{where}: mountPropagation ({min(propagation)}) is possible in an emptyDir only: the host's own mounts "
            "a utility VM does not see"
        )
    if any(part in ("", ".", "..") for part in volume.name.split("/")[1:]):
        raise RefusedError(f"{where}: {source[:200]} is no plain path")
    return HostVolume(volume, source, destination)
