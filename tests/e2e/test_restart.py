"""containerd is restarted: pods run on; a running task, and one that ended meanwhile, are found again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from parma_shim.demo import images
from parma_shim.demo.daemon import PrivateContainerd
from parma_shim.demo.group import Member

from .conftest import Pod, Store, policy_text
from .observe import ended, status_of, wait_for

pytestmark = [pytest.mark.vm, pytest.mark.containerd, pytest.mark.timeout(300)]
COUNT = "i=0; while true; do echo $i; i=$((i + 1)); sleep 0.2; done"
COUNTER = Member("counter", images.BUSYBOX, ("/bin/sh", "-c", COUNT))
LATER = Member("later", images.BUSYBOX, ("/bin/sh", "-c", "sleep 6; echo the end; exit 7"))


def numbers(log: Path) -> list[int]:
    """What the counter's log has, in CRI's format."""
    lines = log.read_text().splitlines()
    assert all(line.split(" ", 3)[1:3] == ["stdout", "F"] for line in lines)
    return [int(line.split(" ", 3)[3]) for line in lines]


def test_34_a_restart_of_the_daemon(
    daemon: PrivateContainerd, start_pod: Callable[[bytes], Pod], store: Store
) -> None:
    policy = policy_text(
        store.container("counter", COUNTER.image, COUNTER.command, execs=[["/bin/sh"]]),
        store.container("later", LATER.image, LATER.command),
    )
    pod = start_pod(policy)
    counter, later = pod.run(COUNTER), pod.run(LATER)
    log = pod.folder / "logs/counter.log"
    wait_for(lambda: log.exists() and numbers(log))
    daemon.stop()
    before = len(numbers(log))
    time.sleep(8)  # `later` ends with nobody to tell
    assert len(numbers(log)) == before
    daemon.start()

    status = ended(daemon, later)
    assert (status["exitCode"], status["reason"]) == (7, "Error")
    assert wait_for(lambda: "the end" in daemon.crictl("logs", later))
    assert status_of(daemon, counter)["state"] == "CONTAINER_RUNNING"
    wait_for(lambda: len(numbers(log)) > before + 40)
    found = numbers(log)
    assert found == list(range(len(found)))
    assert pod.sh(counter, "echo still here").strip() == "still here"
    daemon.crictl("stop", "--timeout", "0", counter)
    assert ended(daemon, counter)["exitCode"] == 137
    daemon.crictl("stopp", pod.id)
