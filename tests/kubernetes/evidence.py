"""What the node said while a test failed: its cluster is gone before anybody could ask."""

from __future__ import annotations

import time
from collections.abc import Generator

import pytest

from .cluster.home import ClusterError
from .cluster.kind import Cluster

LINES = 400
_NOISE = ("Observed pod startup duration", "reconciler_common", "PullImage", "ImageUpdate")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the node's log since the test began to the report of a failure."""
    report = yield
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.failed and lab is not None:
        report.sections.append(("the node's log", node_log(lab.cluster, call.start)))
    return report


def node_log(cluster: Cluster, since: float) -> str:
    """The last lines that containerd, the shims and the kubelet wrote; says so where it cannot be had."""
    words = ("journalctl", "--no-pager", "-o", "short-precise", "-u", "containerd", "-u", "kubelet")
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(since - 30))
    try:
        text = cluster.node(*words, "--utc", f"--since={when} UTC", timeout=30)
    except ClusterError as error:
        return f"none: {error}"
    lines = [line for line in text.splitlines() if not any(word in line for word in _NOISE)]
    return "\n".join(lines[-LINES:])
