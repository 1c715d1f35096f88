"""Where files that the host binds into a container stand in the guest, and how policies name them.

One table for the shim (which rewrites mounts of the OCI document) and for the policy generator (which writes mount
rules), so that they cannot disagree. Guest paths: `/run/gcs/c/<pod>/sandboxMounts` + the name; policies write
`sandbox://` + the name (policy.md 8.7; three slashes).

kubelet keeps a pod's volumes at `<root>/pods/<uid>/volumes/<plugin>/<volume>`, subPaths at
`<root>/pods/<uid>/volume-subpaths/<volume>/<container>/<index>` (the shim resolves those of an emptyDir to the path
within it, which is what policies name: containers share it), the hosts file at `<root>/pods/<uid>/etc-hosts` and a
container's termination log at `<root>/pods/<uid>/containers/<name>/<random>`.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

SANDBOX_PREFIX = "sandbox://"
GUEST_ROOT = "/run/gcs/c"
LOG_NAMES = "/logs"
"""The first part of a termination log's name."""
LAYER_ROOT = "/run/mounts/scsi"
NETWORK_FILES = {
    "/etc/hosts": "hosts",
    "/etc/hostname": "hostname",
    "/etc/resolv.conf": "resolv.conf",
}
"""Destinations that the agent serves from the pod's own directory (policy.md 7), and the file's name there."""


class VolumeKind(enum.StrEnum):
    """What the guest makes of a mount's source."""

    CONTENT = "content"
    """Files come from the host by content, and are refreshed."""
    SCRATCH = "scratch"
    """Empty at first, on the guest's encrypted scratch or its tmpfs; nothing goes back to the host."""
    LOG = "log"
    """One file, empty at first; its end goes to the host when the container has ended (termination log)."""
    COPY = "copy"
    """A copy of the host's files, made once, where the host's configuration offers it; nothing goes back."""
    REFUSED = "refused"
    """The host's own file system: it cannot be given to a VM."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A mount's source as both sides see it; `name` begins with a slash."""

    kind: VolumeKind
    name: str

    @property
    def policy_source(self) -> str:
        """What a policy's mount rule says."""
        return SANDBOX_PREFIX + self.name


PLUGIN_KINDS = {
    "kubernetes.io~configmap": VolumeKind.CONTENT,
    "kubernetes.io~secret": VolumeKind.CONTENT,
    "kubernetes.io~projected": VolumeKind.CONTENT,
    "kubernetes.io~downward-api": VolumeKind.CONTENT,
    "kubernetes.io~empty-dir": VolumeKind.SCRATCH,
}

_VOLUME = re.compile(
    r"(?P<root>/.+)/pods/(?P<uid>[^/]+)/volumes/(?P<plugin>[^/]+)/(?P<name>[^/]+)(?P<rest>(/[^/]+)*)"
)
_SUBPATH = re.compile(
    r"(?P<pod>/.+/pods/[^/]+)/volume-subpaths/(?P<name>[^/]+)/(?P<container>[^/]+)/(?P<index>[0-9]+)"
)
_LOG = re.compile(r"/.+/pods/[^/]+/containers/(?P<container>[^/]+)/[0-9a-f]+")


def volume_of(source: str) -> Volume:
    """The volume that a bind mount's host path `source` stands for; kind REFUSED for what is none of kubelet's."""
    if found := _VOLUME.fullmatch(source):
        kind = PLUGIN_KINDS.get(found["plugin"], VolumeKind.REFUSED)
        plugin = found["plugin"].removeprefix("kubernetes.io~")
        return Volume(kind, f"/volumes/{plugin}/{found['name']}{found['rest']}")
    if found := _SUBPATH.fullmatch(source):
        return Volume(
            VolumeKind.CONTENT, f"/subpaths/{found['name']}/{found['container']}/{found['index']}"
        )
    if found := _LOG.fullmatch(source):
        return Volume(VolumeKind.LOG, f"{LOG_NAMES}/{found['container']}/termination-log")
    return Volume(VolumeKind.REFUSED, source)


def host_copy(source: str) -> Volume:
    """A copy of the host path `source`; policies write `sandbox:///host` and the path."""
    return Volume(VolumeKind.COPY, f"/host{source}")


def empty_dir_of(source: str) -> str | None:
    """Where the host has the emptyDir whose part a subPath's bind mount `source` would be; None for other paths."""
    found = _SUBPATH.fullmatch(source)
    if found is None:
        return None
    return f"{found['pod']}/volumes/kubernetes.io~empty-dir/{found['name']}"


def empty_dir_root(name: str) -> str:
    """The emptyDir that a volume's name lies in: `/volumes/empty-dir/s/a/b` is in `/volumes/empty-dir/s`."""
    return "/".join(name.split("/")[:4])


def pod_directory(sandbox_id: str) -> str:
    """The pod's own directory in the guest, on its scratch."""
    return f"{GUEST_ROOT}/{sandbox_id}"


def sandbox_mounts(sandbox_id: str) -> str:
    """What `sandbox://` stands for."""
    return f"{GUEST_ROOT}/{sandbox_id}/sandboxMounts"


def huge_pages(sandbox_id: str) -> str:
    """What `hugepages://` stands for."""
    return f"{GUEST_ROOT}/{sandbox_id}/hugepages"


def root_path(container_id: str) -> str:
    """A container's root file system."""
    return f"{GUEST_ROOT}/{container_id}/rootfs"


def scratch_path(sandbox_id: str, container_id: str) -> str:
    """The writable directory (upper and work) of a container."""
    return f"{GUEST_ROOT}/{sandbox_id}/scratch/{container_id}"


def layer_path(number: int) -> str:
    """Where a layer device is mounted (policy.md 6.1)."""
    return f"{LAYER_ROOT}/m{number}"
