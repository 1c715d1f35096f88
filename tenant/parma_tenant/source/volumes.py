"""Mount rules of a pod's volumes: what kubelet mounts, by the names of the table that the shim uses too.

Sources: k8s.io/kubernetes pkg/kubelet/kubelet_pods.go (makeMounts); containerd internal/cri/opts (WithMounts), which
writes `rbind`, the propagation, and `ro` or `rw`, in this order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from parma_api.volumes import VolumeKind, volume_of
from parma_tenant.generate.model import MountRule
from parma_tenant.source.expansion import escaped
from parma_tenant.source.fields import Fields

_CONTENT: Final = {
    "configMap": "kubernetes.io~configmap",
    "secret": "kubernetes.io~secret",
    "projected": "kubernetes.io~projected",
    "downwardAPI": "kubernetes.io~downward-api",
}
"""Always mounted read-only, whatever the mount says."""
_SCRATCH: Final = "kubernetes.io~empty-dir"
_POD: Final = "/kubelet/pods/uid"
TERMINATION_LOG: Final = "/dev/termination-log"
_MOUNT: Final = (
    "name", "mountPath", "subPath", "subPathExpr", "readOnly", "mountPropagation", "recursiveReadOnly",
)  # fmt: skip


def plugins(pod: Fields) -> dict[str, str]:
    """The pod's volumes: name to kubelet's plugin. Raises SourceError for what cannot be given to a VM."""
    found: dict[str, str] = {}
    for volume in pod.objects("volumes"):
        name = volume.label("name")
        kinds = [key for key in volume.keys() if key != "name"]  # noqa: SIM118 (not a dict)
        kind = kinds[0] if kinds else "emptyDir"
        if len(kinds) > 1 or name in found:
            volume.fail("a volume has one name and one kind")
        if kind == "emptyDir":
            medium = volume.object(kind)
            if medium is not None and medium.text("medium", "").startswith("HugePages"):
                medium.fail("huge pages are not offered", "medium")
            found[name] = _SCRATCH
        elif kind in _CONTENT:
            found[name] = _CONTENT[kind]
        else:
            volume.fail(
                f"a {kind} is the host's own and cannot be given to a utility VM: use configMap, secret, "
                "projected, downwardAPI or emptyDir",
                kind,
            )
    return found


def mount_rules(container: Fields, volumes: Mapping[str, str]) -> tuple[MountRule, ...]:
    """Rules of a container's volumeMounts and of its termination log. Raises SourceError."""
    name = container.label("name")
    rules = [
        _rule(mount, number, name, volumes)
        for number, mount in enumerate(container.objects("volumeMounts"))
    ]
    log = container.text("terminationMessagePath", TERMINATION_LOG)
    if log:
        source = volume_of(f"{_POD}/containers/{name}/0").policy_source
        rules.append(_bind(log, source, read_only=False))
    return tuple(rules)


def _rule(mount: Fields, number: int, container: str, volumes: Mapping[str, str]) -> MountRule:
    mount.refuse_unknown(_MOUNT)
    name = mount.text("name")
    if name not in volumes:
        mount.fail(f"the pod has no volume {name}", "name")
    if mount.text("mountPropagation", "None") != "None":
        mount.fail("mount propagation needs the host's own mounts", "mountPropagation")
    if mount.text("recursiveReadOnly", "Disabled") != "Disabled":
        mount.fail("recursive read-only mounts are not offered", "recursiveReadOnly")
    plugin = volumes[name]
    if mount.text("subPath", "") or mount.text("subPathExpr", ""):
        host = f"{_POD}/volume-subpaths/{name}/{container}/{number}"
    else:
        host = f"{_POD}/volumes/{plugin}/{name}"
    volume = volume_of(host)
    assert volume.kind is not VolumeKind.REFUSED
    read_only = mount.flag("readOnly") or plugin != _SCRATCH
    path = mount.text("mountPath")
    return _bind(
        path if path.startswith("/") else f"/{path}", volume.policy_source, read_only=read_only
    )


def _bind(destination: str, source: str, *, read_only: bool) -> MountRule:
    prefix, _, path = source.partition("://")
    access = "ro" if read_only else "rw"
    return MountRule(destination, f"{prefix}://{escaped(path)}", ("rbind", "rprivate", access))
