"""What dies, restarts or comes in a crowd: pods live on or come back, and nothing is left over."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .cluster.home import ClusterError
from .conftest import MANIFESTS, Lab, wait_for
from .leftovers import KEPT, listing, settles, steady

pytestmark = [pytest.mark.kubernetes, pytest.mark.vm, pytest.mark.timeout(900)]
CROWD = 10


@pytest.fixture(scope="module")
def workloads(applied: Callable[..., None]) -> None:
    applied("crowd.yaml")


@pytest.fixture
def crowd(lab: Lab, workloads: None) -> str:
    """The name of the Deployment's pod; it and the StatefulSet's are ready, and nothing else is on its way."""
    del workloads
    rolled_out(lab)
    rolled_out(lab, "statefulset/ordered")
    wait_for(lambda: len(pods(lab)) == 1, 60)
    return str(pods(lab)[0]["metadata"]["name"])


def rolled_out(lab: Lab, name: str = "deployment/crowd", seconds: int = 300) -> None:
    lab.cluster.kubectl("rollout", "status", name, f"--timeout={seconds}s", timeout=seconds + 20)


def pods(lab: Lab, app: str = "crowd") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lab.object("pods", "-l", f"app={app}")["items"]
    return found


def page(lab: Lab) -> str:
    address = pods(lab)[0]["status"]["podIP"]
    return lab.cluster.node("curl", "-sm", "10", f"http://{address}/")


def test_containerd_and_kubelet_restart_under_a_running_pod(lab: Lab, crowd: str) -> None:
    machine = lab.cluster.node("pgrep", "qemu")
    lab.cluster.node("systemctl", "restart", "containerd")
    lab.cluster.node("systemctl", "restart", "kubelet")
    wait_for(lambda: "measured utility VM" in page(lab), 60)
    assert lab.cluster.node("pgrep", "qemu") == machine
    (pod,) = pods(lab)
    assert pod["metadata"]["name"] == crowd
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    # The kubelet's own server comes up a moment later.
    wait_for(lambda: "GET /" in logs(lab, crowd), 30)


def logs(lab: Lab, pod: str) -> str:
    try:
        return lab.cluster.kubectl("logs", pod)
    except ClusterError:
        return ""


def dead(lab: Lab, pattern: str) -> None:
    lab.cluster.node("pkill", "-KILL", "-f", pattern)


@pytest.mark.parametrize("pattern", ["qemu-system-x86_64", "containerd-shim-parma-v2 -namespace"])
def test_a_pod_comes_back_when_its_vm_or_shim_is_killed(lab: Lab, crowd: str, pattern: str) -> None:
    del crowd
    before, count = steady(lab, machines=2), status(lab)["restartCount"]
    dead(lab, pattern)
    wait_for(lambda: status(lab)["restartCount"] > count and status(lab)["ready"], 300)
    rolled_out(lab, "statefulset/ordered")
    wait_for(lambda: "measured utility VM" in page(lab), 30)
    settles(lab, before, without=KEPT)


def status(lab: Lab) -> dict[str, Any]:
    found: dict[str, Any] = pods(lab)[0]["status"]["containerStatuses"][0]
    return found


def test_a_stateful_pod_restarts_under_its_name(lab: Lab, crowd: str) -> None:
    del crowd
    (before,) = pods(lab, "ordered")
    lab.cluster.kubectl("delete", "pod", "ordered-0", "--timeout=60s")
    rolled_out(lab, "statefulset/ordered")
    (after,) = pods(lab, "ordered")
    assert after["metadata"]["name"] == "ordered-0"
    assert after["metadata"]["uid"] != before["metadata"]["uid"]


def test_a_rolling_deployment(lab: Lab, crowd: str) -> None:
    patch = {"spec": {"template": {"metadata": {"labels": {"turn": "second"}}}}}
    lab.cluster.kubectl("patch", "deployment", "crowd", "-p", json.dumps(patch))
    rolled_out(lab)
    wait_for(lambda: len(pods(lab)) == 1, 60)
    assert pods(lab)[0]["metadata"]["name"] != crowd


@pytest.fixture
def many(lab: Lab) -> Iterator[str]:
    """A RuntimeClass without overhead for processors: the node has two, and the scheduler would let four pods in."""
    found = lab.object("runtimeclass", "parma")
    name = "parma-many"
    overhead = {"podFixed": {"memory": found["overhead"]["podFixed"]["memory"]}}
    kind = {name: found[name] for name in ("apiVersion", "kind", "handler", "scheduling")}
    text = json.dumps({**kind, "metadata": {"name": name}, "overhead": overhead})
    lab.apply(text)
    yield name
    lab.delete(text)


def test_ten_pods_at_once_leave_nothing(lab: Lab, many: str) -> None:
    crowd = (MANIFESTS / "crowd.yaml").read_text()
    text = lab.annotated(crowd.replace("runtimeClassName: parma", f"runtimeClassName: {many}"))
    lab.delete(text)
    lab.cluster.kubectl("wait", "--for=delete", "pod", "--all", "--timeout=60s")
    wait_for(lambda: listing(lab)["shims"] == 0, 60)
    before = listing(lab)
    began = time.monotonic()
    lab.apply(text.replace("replicas: 1", f"replicas: {CROWD}", 1))
    rolled_out(lab, seconds=700)
    print(f"{CROWD} pods and one more ready after {time.monotonic() - began:.0f} s")
    assert len(pods(lab)) == CROWD
    lab.delete(text)
    lab.cluster.kubectl("wait", "--for=delete", "pod", "--all", "--timeout=120s", timeout=130)
    settles(lab, before)
