"""The node itself restarts: pods come back in new machines, and nothing of the old ones is left."""

from __future__ import annotations

import pytest

from .cluster import installation
from .cluster.home import ClusterError, run
from .cluster.kind import NODE
from .conftest import MANIFESTS, Lab, wait_for
from .leftovers import KEPT, listing, settles

pytestmark = [pytest.mark.kubernetes, pytest.mark.vm, pytest.mark.timeout(900)]


def test_pods_come_back_after_the_node(lab: Lab) -> None:
    text = lab.annotated((MANIFESTS / "plain.yaml").read_text(), "--allow-exec", "/bin/sh")
    lab.delete(text)
    wait_for(lambda: listing(lab)["shims"] == 0, 60)
    lab.apply(text)
    try:
        lab.ready("plain")
        before = listing(lab)
        boot = lab.sh("plain", "cat /proc/sys/kernel/random/boot_id")
        run(["docker", "restart", NODE], env=lab.cluster.environment, timeout=120)
        wait_for(lambda: answers(lab), 120)

        def restarted() -> bool:
            status = lab.status("plain", "box")
            return bool(status.get("restartCount", 0) > 0 and status.get("ready"))

        wait_for(restarted, 300)
        assert lab.sh("plain", "cat /proc/sys/kernel/random/boot_id") != boot
        assert before["shims"] == before["machines"] == 1
        settles(lab, before, without=KEPT)
        installation.wait_installed(lab.cluster)
    finally:
        lab.delete(text)


def answers(lab: Lab) -> bool:
    try:
        return "ok" in lab.cluster.kubectl("get", "--raw", "/readyz", timeout=20)
    except ClusterError:
        return False
