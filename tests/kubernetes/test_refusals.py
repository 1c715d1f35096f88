"""What is refused: readable in the pod's events within seconds of its start, and the pod goes away when deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .cluster.kind import NODE
from .conftest import MANIFESTS, Lab, changed, wait_for
from .deviceplugin import RESOURCE, device_plugin

pytestmark = [pytest.mark.kubernetes, pytest.mark.vm, pytest.mark.timeout(900)]
Change = Callable[[dict[str, Any]], None]


def box(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = spec["containers"][0]
    return found


def host_path(spec: dict[str, Any]) -> None:
    spec["volumes"] = [{"name": "etc", "hostPath": {"path": "/etc"}}]
    box(spec)["volumeMounts"] = [{"name": "etc", "mountPath": "/host"}]


def shared_propagation(spec: dict[str, Any]) -> None:
    spec["volumes"] = [{"name": "shared", "emptyDir": {}}]
    box(spec)["securityContext"] = {"privileged": True}
    box(spec)["volumeMounts"] = [
        {"name": "shared", "mountPath": "/s", "mountPropagation": "Bidirectional"}
    ]


HOST_THINGS: dict[str, tuple[Change, str]] = {
    "network": (lambda spec: spec.update(hostNetwork=True), "hostNetwork is not possible"),
    "pid": (lambda spec: spec.update(hostPID=True), "hostPID is not possible"),
    "ipc": (lambda spec: spec.update(hostIPC=True), "hostIPC is not possible"),
    "path": (host_path, "hostPath"),
    "propagation": (shared_propagation, "denied by policy"),
}
TAMPERED: dict[str, tuple[Change, str]] = {
    "command": (lambda spec: box(spec).update(command=["/bin/sh", "-c", "id"]), "process.command"),
    "image": (lambda spec: box(spec).update(image="parma.example/foreign:1"), "denied by policy"),
    "environment": (
        lambda spec: box(spec).update(env=[{"name": "LD_PRELOAD", "value": "/x.so"}]),
        "process.env",
    ),
    "privileged": (
        lambda spec: box(spec).update(securityContext={"privileged": True}),
        "denied by policy",
    ),
    "user": (lambda spec: box(spec).update(securityContext={"runAsUser": 99}), "process.user"),
}


@pytest.fixture
def refused(lab: Lab) -> Iterator[Callable[[str, Change], str]]:
    """Starts a changed pod; the first message of its events that tells of a failure."""
    started: list[str] = []

    def start(name: str, change: Change) -> str:
        text = lab.annotated(
            (MANIFESTS / "plain.yaml").read_text().replace("name: plain", f"name: {name}")
        )
        started.append(changed(text, change))
        lab.delete(started[-1])
        lab.apply(started[-1])

        def failure() -> str:
            return next(
                (line for line in lab.events(name).splitlines() if "failed to" in line.lower()), ""
            )

        return wait_for(failure, 120)

    yield start
    for text in started:
        # The kubelet finishes a start that is under way before it ends the pod: at most one boot.
        lab.delete(text, seconds=60)


@pytest.mark.parametrize("what", HOST_THINGS)
def test_the_hosts_own_is_refused(refused: Callable[[str, Change], str], what: str) -> None:
    change, expected = HOST_THINGS[what]
    assert expected in refused(f"host-{what}", change)


def test_a_device_is_refused(lab: Lab, refused: Callable[[str, Change], str]) -> None:
    def wants_device(spec: dict[str, Any]) -> None:
        box(spec)["resources"] = {"limits": {RESOURCE: "1"}}

    with device_plugin(lab.cluster.root()):
        node = "node/" + NODE
        wait_for(lambda: lab.object(node)["status"]["allocatable"].get(RESOURCE) == "1", 60)
        told = refused("host-device", wants_device)
    assert "device /dev/given: the host's devices cannot be given to a utility VM" in told


@pytest.mark.parametrize("what", TAMPERED)
def test_what_the_policy_does_not_allow(refused: Callable[[str, Change], str], what: str) -> None:
    change, expected = TAMPERED[what]
    assert expected in refused(f"tampered-{what}", change)


def test_a_pod_without_a_policy(lab: Lab) -> None:
    text = (MANIFESTS / "plain.yaml").read_text().replace("name: plain", "name: bare")
    lab.apply(text)
    try:
        assert wait_for(lambda: "no policy:" in lab.events("bare"), 30)
    finally:
        lab.delete(text)
