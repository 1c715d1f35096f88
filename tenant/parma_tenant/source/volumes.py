"""Mount rules of a pod's volumes: what kubelet mounts, by the names of the table that the shim uses too.

Sources: k8s.io/kubernetes pkg/kubelet/kubelet_pods.go (makeMounts); containerd internal/cri/opts (WithMounts), which
writes `rbind`, the propagation, and `ro` or `rw`, in this order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from parma_api.volumes import VolumeKind, volume_of
from parma_tenant.generate.model import MountRule
from parma_tenant.source.environment import lookup
from parma_tenant.source.expansion import Text, escaped, expand
from parma_tenant.source.fields import Fields

_CONTENT: Final = {
    "configMap": "kubernetes.io~configmap",
    "secret": "kubernetes.io~secret",
    "projected": "kubernetes.io~projected",
    "downwardAPI": "kubernetes.io~downward-api",
}
"""Always mounted read-only, whatever the mount says."""
_PROPAGATION: Final = {"None": "rprivate", "HostToContainer": "rslave", "Bidirectional": "rshared"}
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


def mount_rules(
    container: Fields, volumes: Mapping[str, str], known: Mapping[str, Text]
) -> tuple[MountRule, ...]:
    """Rules of a container's volumeMounts and of its termination log. `known`: its variables. Raises SourceError."""
    name = container.label("name")
    rules = [
        _rule(mount, number, name, volumes, known)
        for number, mount in enumerate(container.objects("volumeMounts"))
    ]
    log = container.text("terminationMessagePath", TERMINATION_LOG)
    if log:
        source = volume_of(f"{_POD}/containers/{name}/0").policy_source
        rules.append(_bind(log, source, read_only=False))
    return tuple(rules)


def _rule(
    mount: Fields,
    number: int,
    container: str,
    volumes: Mapping[str, str],
    known: Mapping[str, Text],
) -> MountRule:
    mount.refuse_unknown(_MOUNT)
    name = mount.text("name")
    if name not in volumes:
        mount.fail(f"the pod has no volume {name}", "name")
    if mount.text("recursiveReadOnly", "Disabled") != "Disabled":
        mount.fail("recursive read-only mounts are not offered", "recursiveReadOnly")
    plugin = volumes[name]
    part = _part(mount, known)
    if part is not None and plugin != _SCRATCH:
        host, part = f"{_POD}/volume-subpaths/{name}/{container}/{number}", None
    else:
        host = f"{_POD}/volumes/{plugin}/{name}"
    volume = volume_of(host)
    assert volume.kind is not VolumeKind.REFUSED
    read_only = mount.flag("readOnly") or plugin != _SCRATCH
    path = mount.text("mountPath")
    return _bind(
        path if path.startswith("/") else f"/{path}",
        volume.policy_source,
        read_only=read_only,
        part=part,
        propagation=_propagation(mount, plugin),
    )


def _propagation(mount: Fields, plugin: str) -> str:
    """containerd's word for it. Raises SourceError."""
    wanted = mount.text("mountPropagation", "None")
    if wanted not in _PROPAGATION:
        mount.fail(f"one of {', '.join(_PROPAGATION)}", "mountPropagation")
    if wanted != "None" and plugin != _SCRATCH:
        mount.fail(
            "mount propagation is possible in an emptyDir only: the host's own mounts a VM does not see",
            "mountPropagation",
        )
    return _PROPAGATION[wanted]


def _part(mount: Fields, known: Mapping[str, Text]) -> Text | None:
    """The path within the volume, in plain form with a leading slash; None: all of it."""
    chosen, expression = mount.text("subPath", ""), mount.text("subPathExpr", "")
    if chosen and expression:
        mount.fail("either `subPath` or `subPathExpr`", "subPathExpr")
    key = "subPathExpr" if expression else "subPath"
    if not (text := chosen or expression):
        return None
    if text.startswith("/") or ".." in text.split("/"):
        mount.fail("a path within the volume is relative and without `..`", key)
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not parts:
        return None
    path = "/" + "/".join(parts)
    if not expression:
        return Text.known(path)

    def value(name: str) -> Text:
        found = lookup(name, known)
        if found is None:
            mount.fail(f"the container has no variable {name[:80]}", key)
        return found if found.literal is not None else Text.unknown("[^/]+", found.example)

    expanded = expand(path, value)
    if expanded.literal is not None and ".." in expanded.literal.split("/"):
        mount.fail("a path within the volume is without `..`", key)
    return expanded


def _bind(
    destination: str,
    source: str,
    *,
    read_only: bool,
    part: Text | None = None,
    propagation: str = "rprivate",
) -> MountRule:
    prefix, _, path = source.partition("://")
    inner = part.pattern if part is not None else ""
    access = "ro" if read_only else "rw"
    options = ("rbind", propagation, access)
    example = ""
    if part is not None and part.literal is None:
        example = f"{prefix}://{path}{part.example}"
    return MountRule(destination, f"{prefix}://{escaped(path)}{inner}", options, example=example)
