"""Two pods at once; then kill -9 of one's shim and of the other's QEMU (conformance 35): told at once, nothing left."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from parma_shim.demo.daemon import PrivateContainerd

from .conftest import Pod, Store, policy_text
from .members import BOX
from .observe import ended, leavings, recorded_events, runs, wait_as_before, wait_for

pytestmark = [pytest.mark.vm, pytest.mark.containerd, pytest.mark.timeout(300)]


def inodes(folder: Path) -> dict[str, tuple[int, int]]:
    """The cache's images: each made once, and never again."""
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*.img")
    }


def test_35_two_pods_and_two_deaths(
    daemon: PrivateContainerd, start_pod: Callable[[bytes], Pod], store: Store
) -> None:
    before = leavings(daemon)
    policy = policy_text(store.container("box", BOX.image, BOX.command, execs=[["/bin/sh"]]))
    with ThreadPoolExecutor(2) as threads:
        pods = list(threads.map(start_pod, [policy] * 2))
    first = pods[0].run(BOX)
    cached = inodes(daemon.folder / "lib/layers")
    assert cached
    boxes = [first, pods[1].run(BOX)]
    assert inodes(daemon.folder / "lib/layers") == cached
    boot_ids = {
        pod.sh(box, "cat /proc/sys/kernel/random/boot_id")
        for pod, box in zip(pods, boxes, strict=True)
    }
    assert len(boot_ids) == 2

    states = [pod.state for pod in pods]
    for state, box, victim in zip(states, boxes, ("shim_pid", "vmm_pid"), strict=True):
        with recorded_events(daemon) as events:
            os.kill(state[victim], signal.SIGKILL)
            # Of a shim that is gone CRI's own wait gets no answer (255); its task's exit event says 137.
            statuses = (137, 255) if victim == "shim_pid" else (137,)
            assert ended(daemon, box)["exitCode"] in statuses
            exits = wait_for(
                lambda: [
                    event
                    for topic, event in events
                    if topic == "/tasks/exit" and event["container_id"] == box  # noqa: B023
                ]
            )
        assert {event["exit_status"] for event in exits} == {137}
        wait_for(lambda: not runs(state["vmm_pid"]))  # noqa: B023
    for pod in pods:
        pod.remove()
    wait_as_before(daemon, before)
    places = [Path(path) for state in states for path in (*state["cgroups"], state["netns"])]
    assert [place for place in places if place.exists()] == []
