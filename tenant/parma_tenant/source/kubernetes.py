"""Kubernetes manifests: which of their objects run pods, and what those pods refer to."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from parma_tenant.source.document import Node
from parma_tenant.source.environment import Scope, pod_fields, service_variables
from parma_tenant.source.expansion import Text, escaped
from parma_tenant.source.fields import Fields
from parma_tenant.source.model import GroupSpec
from parma_tenant.source.pod import PodContext, parse_pod

TEMPLATES: Final = {
    "Pod": (),
    "Deployment": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
_GROUPS: Final = {
    "": "Pod ReplicationController",
    "apps": "Deployment ReplicaSet StatefulSet DaemonSet",
    "batch": "Job CronJob",
}
_OTHERS: Final = frozenset(
    "ConfigMap Secret Service ServiceAccount Namespace PersistentVolumeClaim PersistentVolume StorageClass Ingress "
    "IngressClass NetworkPolicy Role RoleBinding ClusterRole ClusterRoleBinding RuntimeClass PodDisruptionBudget "
    "HorizontalPodAutoscaler PriorityClass LimitRange ResourceQuota Endpoints EndpointSlice "
    "CustomResourceDefinition".split()
)
_T = TypeVar("_T")
_SUFFIX: Final = "[bcdfghjklmnpqrstvwxz2456789]{5}"
_HASH: Final = "[bcdfghjklmnpqrstvwxz2456789]+"
_NAMES: Final = {
    "Deployment": (f"-{_HASH}-{_SUFFIX}", "-6d4b75cb6d-x7k2p"),
    "StatefulSet": ("-[0-9]+", "-0"),
    "CronJob": (f"-[0-9]+-{_SUFFIX}", "-28000000-x7k2p"),
    "Job": (f"(-[0-9]+)?-{_SUFFIX}", "-x7k2p"),
}


@dataclass(frozen=True, slots=True)
class Workload:
    """An object that runs pods. `template` holds the pod's `metadata` and `spec`."""

    kind: str
    name: str
    namespace: str | None
    template: Fields

    @property
    def title(self) -> str:
        """As `kubectl` writes it."""
        return f"{self.kind.lower()}/{self.name}"


@dataclass(frozen=True, slots=True)
class Manifests:
    """The objects of all files."""

    workloads: tuple[Workload, ...]
    config_maps: Mapping[tuple[str | None, str], Mapping[str, str]]
    secrets: Mapping[tuple[str | None, str], frozenset[str]]
    services: Mapping[tuple[str | None, str], Mapping[str, Text]]


def is_kubernetes(node: Node) -> bool:
    """Whether a document is an object of Kubernetes and not a container group."""
    return isinstance(node.value, dict) and "kind" in node.value


def read_manifests(documents: Sequence[tuple[str, Node]]) -> Manifests:
    """`documents` are (file, document). Raises SourceError."""
    workloads: list[Workload] = []
    maps: dict[tuple[str | None, str], Mapping[str, str]] = {}
    secrets: dict[tuple[str | None, str], frozenset[str]] = {}
    services: dict[tuple[str | None, str], Mapping[str, Text]] = {}
    for fields in _objects(documents):
        kind = fields.text("kind")
        metadata = fields.object("metadata")
        key = (_namespace(metadata), metadata.text("name", "") if metadata else "")
        if kind in TEMPLATES:
            workloads.append(_workload(fields, kind, metadata))
        elif kind == "ConfigMap":
            maps[key] = _texts(fields.object("data"))
        elif kind == "Secret":
            secrets[key] = _secret_keys(fields)
        elif kind == "Service":
            services[key] = _service(fields, key[1])
        elif kind not in _OTHERS:
            fields.fail(
                f"kind {kind[:80]} is not known here; policies are made for {', '.join(sorted(TEMPLATES))}",
                "kind",
            )
    return Manifests(tuple(workloads), maps, secrets, services)


def _objects(documents: Sequence[tuple[str, Node]]) -> Iterator[Fields]:
    """Lists are taken apart."""
    for file, node in documents:
        fields = Fields(node, file)
        if fields.text("kind", "") == "List":
            yield from fields.objects("items")
        else:
            yield fields


def _namespace(metadata: Fields | None) -> str | None:
    return (metadata.text("namespace", "") or None) if metadata is not None else None


def _workload(fields: Fields, kind: str, metadata: Fields | None) -> Workload:
    group = fields.text("apiVersion").rpartition("/")[0]
    if kind not in _GROUPS.get(group, "").split():
        fields.fail(f"there is no {kind} in this API", "apiVersion")
    if metadata is None:
        fields.fail("`metadata` is missing")
    name = metadata.text("name", "") or metadata.text("generateName", "")
    if not name:
        metadata.fail("`name` is missing")
    if (claims := fields.object("spec")) is not None and claims.has("volumeClaimTemplates"):
        claims.fail(
            "a volume of the cluster cannot be given to a utility VM", "volumeClaimTemplates"
        )
    template = fields
    for step in TEMPLATES[kind]:
        found = template.object(step)
        if found is None:
            template.fail(f"`{step}` is missing")
        template = found
    return Workload(kind, name, _namespace(metadata), template)


def _texts(fields: Fields | None) -> dict[str, str]:
    return {} if fields is None else {key: fields.text(key) for key in fields.keys()}  # noqa: SIM118


def _secret_keys(fields: Fields) -> frozenset[str]:
    keys: set[str] = set()
    for part in ("data", "stringData"):
        keys.update(_texts(fields.object(part)))
    for value in _texts(fields.object("data")).values():
        try:
            base64.b64decode("".join(value.split()), validate=True)
        except (binascii.Error, ValueError):
            fields.fail("a value is no base64", "data")
    return frozenset(keys)


def _service(fields: Fields, name: str) -> Mapping[str, Text]:
    spec = fields.object("spec")
    if (
        spec is None
        or spec.text("clusterIP", "") == "None"
        or spec.text("type", "") == "ExternalName"
    ):
        return {}
    ports = tuple(
        (port.text("name", ""), port.number("port"), port.text("protocol", "TCP"))
        for port in spec.objects("ports")
    )
    return service_variables(name, ports)


def group_of(
    workload: Workload, manifests: Manifests, seccomp: Mapping[str, str], profiles: tuple[str, ...]
) -> GroupSpec:
    """The group that a workload's pods are. Raises SourceError."""
    pod = workload.template.object("spec")
    if pod is None:
        workload.template.fail("`spec` is missing")
    metadata = workload.template.object("metadata")
    account = pod.text("serviceAccountName", "") or pod.text("serviceAccount", "") or "default"
    links = pod.flag("enableServiceLinks", default=True)
    scope = Scope(
        config_maps=_of_namespace(manifests.config_maps, workload.namespace),
        secrets=_of_namespace(manifests.secrets, workload.namespace),
        pod_fields=pod_fields(_pod_name(workload), workload.namespace, account),
        labels=_texts(metadata.object("labels")) if metadata is not None else {},
        annotations=_texts(metadata.object("annotations")) if metadata is not None else {},
        services=_services(manifests, workload.namespace) if links else {},
    )
    origin = f"{workload.template.file} {workload.title}"
    return parse_pod(pod, PodContext(origin, scope, seccomp, profiles))


def _of_namespace(
    objects: Mapping[tuple[str | None, str], _T], namespace: str | None
) -> dict[str, _T]:
    return {
        name: value
        for (space, name), value in objects.items()
        if space in (namespace, None) or namespace is None
    }


def _services(manifests: Manifests, namespace: str | None) -> dict[str, Text]:
    found: dict[str, Text] = {}
    for variables in _of_namespace(manifests.services, namespace).values():
        found.update(variables)
    return found


def _pod_name(workload: Workload) -> Text:
    if workload.kind == "Pod":
        return Text.known(workload.name)
    suffix, example = _NAMES.get(workload.kind, (f"-{_SUFFIX}", "-x7k2p"))
    return Text.unknown(escaped(workload.name) + suffix, workload.name + example)
