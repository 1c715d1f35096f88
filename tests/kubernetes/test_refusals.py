"""What is refused: readable in the pod's events within seconds of its start, and the pod goes away when deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import yaml

from .cluster.kind import NODE
from .conftest import MANIFESTS, Lab, changed, wait_for
from .deviceplugin import RESOURCE, device_plugin

pytestmark = [pytest.mark.kubernetes, pytest.mark.vm, pytest.mark.timeout(900)]
Change = Callable[[dict[str, Any]], None]


def host_path(box: dict[str, Any]) -> None:
    box["volumeMounts"] = [{"name": "etc", "mountPath": "/host"}]


def propagation(box: dict[str, Any]) -> None:
    mount = {"name": "labels", "mountPath": "/s", "mountPropagation": "HostToContainer"}
    box["volumeMounts"] = [mount]


HOST_NAMESPACES = {"network": "hostNetwork", "pid": "hostPID", "ipc": "hostIPC"}
HOST_THINGS: dict[str, tuple[Change, str]] = {
    "path": (host_path, "is the host's own (hostPath"),
    "propagation": (propagation, "mountPropagation (rslave) is possible in an emptyDir only"),
    "device": (
        lambda box: box.update(resources={"limits": {RESOURCE: "1"}}),
        "device /dev/given: the host's devices cannot be given to a utility VM",
    ),
}
TAMPERED: dict[str, tuple[Change, str]] = {
    "command": (lambda box: box.update(command=["/bin/sh", "-c", "id"]), "process.command"),
    "image": (lambda box: box.update(image="parma.example/foreign:1"), "denied by policy"),
    "environment": (
        lambda box: box.update(env=[{"name": "LD_PRELOAD", "value": "/x.so"}]),
        "process.env",
    ),
    "privileged": (
        lambda box: box.update(securityContext={"privileged": True}),
        "denied by policy",
    ),
    "user": (lambda box: box.update(securityContext={"runAsUser": 99}), "process.user"),
}
LABELS = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
PODS = {"host-things": HOST_THINGS, "tampered": TAMPERED}
"""A container for each: what somebody with rights in the cluster changes, and what the event says. Two pods: of one
the kubelet tells 25 events at a time and no more.
"""


def altered(lab: Lab, pod: str) -> str:
    """A pod under the policy of plain containers, all but one of which are changed afterwards."""
    changes = PODS[pod]
    document = yaml.safe_load((MANIFESTS / "plain.yaml").read_text())
    document["metadata"]["name"] = pod
    (plain,) = document["spec"]["containers"]
    document["spec"]["containers"] = [{**plain, "name": name} for name in ("box", *changes)]
    text = lab.annotated(yaml.safe_dump(document), "--allow-exec", "box=/bin/sh")

    def change(spec: dict[str, Any]) -> None:
        spec["volumes"] = [
            {"name": "etc", "hostPath": {"path": "/etc"}},
            {"name": "labels", "downwardAPI": {"items": [LABELS]}},
        ]
        for container in spec["containers"]:
            if container["name"] in changes:
                changes[container["name"]][0](container)

    return changed(text, change)


@pytest.fixture(scope="module")
def pods(lab: Lab) -> Iterator[None]:
    with device_plugin(lab.cluster.root()):
        node = f"node/{NODE}"
        wait_for(lambda: lab.object(node)["status"]["allocatable"].get(RESOURCE) == "1", 60)
        text = "---\n".join(altered(lab, pod) for pod in PODS)
        lab.delete(text)
        lab.apply(text)
        for pod in PODS:
            wait_for(partial(lives, lab, pod), 300)
        yield
        # It is not stuck: what failed is tried again and again until the pod is deleted.
        lab.delete(text, seconds=90)


def lives(lab: Lab, pod: str) -> bool:
    return "running" in lab.status(pod, "box")["state"]


@pytest.mark.parametrize(("pod", "what"), [(pod, what) for pod in PODS for what in PODS[pod]])
@pytest.mark.usefixtures("pods")
def test_a_changed_container_is_refused(lab: Lab, pod: str, what: str) -> None:
    expected = PODS[pod][what][1]
    wait_for(lambda: expected in lab.events(pod, what), 90)
    assert "running" not in lab.status(pod, what)["state"]


@pytest.mark.parametrize("pod", PODS)
@pytest.mark.usefixtures("pods")
def test_the_container_beside_them_lives(lab: Lab, pod: str) -> None:
    assert lab.sh(pod, "echo alive").strip() == "alive"
    assert lab.status(pod, "box")["restartCount"] == 0


@pytest.mark.parametrize("what", HOST_NAMESPACES)
def test_the_hosts_namespaces_are_refused(lab: Lab, what: str) -> None:
    option = HOST_NAMESPACES[what]
    name = f"host-{what}"
    text = (MANIFESTS / "plain.yaml").read_text().replace("name: plain", f"name: {name}")
    text = changed(lab.annotated(text), lambda spec: spec.update({option: True}))
    refused(lab, name, text, f"{option} is not possible")


def test_a_pod_without_a_policy(lab: Lab) -> None:
    text = (MANIFESTS / "plain.yaml").read_text().replace("name: plain", "name: bare")
    refused(lab, "bare", text, "no policy:")


def refused(lab: Lab, name: str, text: str, expected: str) -> None:
    """No machine is started for it: the event is there as soon as the kubelet has turned to the pod."""
    lab.delete(text)
    lab.apply(text)
    try:
        assert wait_for(lambda: expected in lab.events(name), 60)
    finally:
        lab.delete(text)
