"""A container's variables as kubelet makes them: envFrom first, then env in order, each expanded with those before it.

Sources: k8s.io/kubernetes pkg/kubelet/kubelet_pods.go (makeEnvironmentVariables), pkg/kubelet/envvars.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from parma_tenant.source.expansion import Text, expand
from parma_tenant.source.fields import Fields

ADDRESS: Final = r"[0-9a-fA-F.:]+"
_NUMBER: Final = "[0-9]+"
_ANYTHING: Final = r"(?s:.*)"
_SERVICE_NAME: Final = re.compile(
    r"[A-Z0-9_]+_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
_KEYED: Final = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")
_UUID: Final = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a pod's variables may refer to."""

    config_maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    secrets: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Names of keys only: values do not belong into a policy, which everybody can read."""
    pod_fields: Mapping[str, Text] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    services: Mapping[str, Text] = field(default_factory=dict)


def pod_fields(name: Text, namespace: str | None, account: str) -> dict[str, Text]:
    """What `fieldRef` can name, but for labels and annotations."""
    addresses = Text.unknown(f"{ADDRESS}(,{ADDRESS})*", "10.0.0.1")
    return {
        "metadata.name": name,
        "metadata.namespace": Text.known(namespace)
        if namespace
        else Text.unknown("[a-z0-9-]+", "default"),
        "metadata.uid": Text.unknown(_UUID, "00000000-0000-0000-0000-000000000000"),
        "spec.nodeName": Text.unknown("[a-z0-9.-]+", "node-1"),
        "spec.serviceAccountName": Text.known(account),
        "status.hostIP": Text.unknown(ADDRESS, "10.0.0.1"),
        "status.hostIPs": addresses,
        "status.podIP": Text.unknown(ADDRESS, "10.0.0.1"),
        "status.podIPs": addresses,
    }


def variables(container: Fields, scope: Scope) -> dict[str, Text]:
    """All that the file gives the container. Raises SourceError."""
    found: dict[str, Text] = {}
    for entry in container.objects("envFrom"):
        found.update(_from(entry, scope))
    for entry in container.objects("env"):
        entry.refuse_unknown(("name", "value", "valueFrom"))
        name = entry.text("name")
        if not name or "=" in name or "\0" in name:
            entry.fail("this is no name of a variable", "name")
        value = _value(entry, scope, found)
        if value is not None:
            found[name] = value
    return found


def resolver(found: Mapping[str, Text], scope: Scope) -> dict[str, Text]:
    """What references in commands see: the container's own variables before those of services."""
    return {**scope.services, **found}


def lookup(name: str, known: Mapping[str, Text]) -> Text | None:
    """A variable; one that looks like a service's is the cluster's to know; None: the reference stays."""
    if name in known:
        return known[name]
    return Text.unknown(r"[^\n]*", "10.0.0.1") if _SERVICE_NAME.fullmatch(name) else None


def _value(entry: Fields, scope: Scope, found: Mapping[str, Text]) -> Text | None:
    """None for an optional one that does not exist."""
    text = entry.text("value", "")
    source = entry.object("valueFrom")
    if source is None:
        known = resolver(found, scope)
        return expand(text, lambda name: lookup(name, known))
    if text:
        entry.fail("either `value` or `valueFrom`")
    source.refuse_unknown(("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef"))
    if (chosen := source.object("fieldRef")) is not None:
        return _field(chosen, scope)
    if source.object("resourceFieldRef") is not None:
        return Text.unknown(_NUMBER, "1")
    if (chosen := source.object("configMapKeyRef")) is not None:
        return _config_key(chosen, scope)
    if (chosen := source.object("secretKeyRef")) is not None:
        return Text.unknown(_ANYTHING, "secret")
    raise source.error("this names no source")


def _field(chosen: Fields, scope: Scope) -> Text:
    path = chosen.text("fieldPath")
    if (keyed := _KEYED.fullmatch(path)) is not None:
        values = scope.labels if keyed[1] == "labels" else scope.annotations
        return Text.known(values.get(keyed[2], ""))
    if path not in scope.pod_fields:
        chosen.fail(f"no field of a pod is called {path[:80]}", "fieldPath")
    return scope.pod_fields[path]


def _config_key(chosen: Fields, scope: Scope) -> Text | None:
    name, key = chosen.text("name"), chosen.text("key")
    data = scope.config_maps.get(name)
    if data is not None and key in data:
        return Text.known(data[key])
    if data is not None and chosen.flag("optional"):
        return None
    what = f"ConfigMap {name}" if data is None else f"ConfigMap {name} has no key {key}; it"
    raise chosen.error(f"{what} is not in the files: give it with --with FILE")


def _from(entry: Fields, scope: Scope) -> dict[str, Text]:
    entry.refuse_unknown(("prefix", "configMapRef", "secretRef"))
    prefix = entry.text("prefix", "")
    if (chosen := entry.object("configMapRef")) is not None:
        name = chosen.text("name")
        if name in scope.config_maps:
            data = scope.config_maps[name]
            return {f"{prefix}{key}": Text.known(value) for key, value in data.items()}
        kind = "ConfigMap"
    elif (chosen := entry.object("secretRef")) is not None:
        name = chosen.text("name")
        if name in scope.secrets:
            return {
                f"{prefix}{key}": Text.unknown(_ANYTHING, "secret") for key in scope.secrets[name]
            }
        kind = "Secret"
    else:
        entry.fail("this names no source")
    raise chosen.error(
        f"{kind} {name} is not in the files, so its keys are not known: give it with --with FILE"
    )


def service_variables(name: str, ports: tuple[tuple[str, int, str], ...]) -> dict[str, Text]:
    """What kubelet gives to pods for one Service: `ports` are (name, number, protocol)."""
    if not ports:
        return {}
    upper = name.upper().replace("-", "_")
    address = Text.unknown(ADDRESS, "10.0.0.1")
    first = ports[0]
    found = {
        f"{upper}_SERVICE_HOST": address,
        f"{upper}_SERVICE_PORT": Text.known(str(first[1])),
        f"{upper}_PORT": _url(first),
    }
    for port in ports:
        label, number, protocol = port
        if label:
            key = f"{upper}_SERVICE_PORT_{label.upper().replace('-', '_')}"
            found[key] = Text.known(str(number))
        prefix = f"{upper}_PORT_{number}_{protocol}"
        found[prefix] = _url(port)
        found[f"{prefix}_PROTO"] = Text.known(protocol.lower())
        found[f"{prefix}_PORT"] = Text.known(str(number))
        found[f"{prefix}_ADDR"] = address
    return found


def _url(port: tuple[str, int, str]) -> Text:
    bracketed = Text.unknown(rf"\[?{ADDRESS}\]?", "10.0.0.1")
    head = Text.known(f"{port[2].lower()}://")
    return head.then(bracketed).then(Text.known(f":{port[1]}"))
