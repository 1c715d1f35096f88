"""Resources and identity in the shared pod: out of memory, users, read-only roots, sysctls, withheld output."""

from __future__ import annotations

import json

import pytest

from parma_shim.demo.daemon import PrivateContainerd

from .conftest import Pod
from .members import BOX, HOG, LOCKED, QUIET
from .observe import ended, recorded_events, wait_for

pytestmark = [pytest.mark.vm, pytest.mark.containerd, pytest.mark.timeout(300)]
OWN_PID = {"namespace_options": {"pid": 1}}


def test_37_out_of_memory(daemon: PrivateContainerd, shared_pod: Pod) -> None:
    limits = {"memory_limit_in_bytes": 15 << 20}
    with recorded_events(daemon) as events:
        hog = shared_pod.run(HOG, linux={"resources": limits, "security_context": OWN_PID})
        status = ended(daemon, hog)
    assert (status["exitCode"], status["reason"]) == (137, "OOMKilled")
    topics = [topic for topic, event in events if event.get("container_id") == hog]
    assert topics.count("/tasks/oom") == 1
    assert topics.index("/tasks/oom") < topics.index("/tasks/exit")
    daemon.crictl("rm", hog)


def test_a_user_by_number_and_a_read_only_root(daemon: PrivateContainerd, shared_pod: Pod) -> None:
    """Number 4321 is in no image's passwd."""
    context = {
        **OWN_PID,
        "run_as_user": {"value": 4321},
        "run_as_group": {"value": 1234},
        "readonly_rootfs": True,
    }
    locked = shared_pod.run(LOCKED, linux={"security_context": context})
    assert ended(daemon, locked)["exitCode"] == 0
    lines = wait_for(lambda: daemon.crictl("logs", locked)).splitlines()
    assert [line for line in lines if not line.startswith("/bin/sh")][:2] == ["4321", "1234"]
    assert lines[-1] == "read-only"
    daemon.crictl("rm", locked)


def test_withheld_output_says_so(daemon: PrivateContainerd, shared_pod: Pod) -> None:
    quiet = shared_pod.run(QUIET)
    assert ended(daemon, quiet)["exitCode"] == 0
    logs = wait_for(lambda: daemon.crictl("logs", quiet))
    assert "parma: stdout withheld by policy" in logs
    assert "secret" not in logs
    daemon.crictl("rm", quiet)


def test_sysctls_pids_and_statistics(daemon: PrivateContainerd, shared_pod: Pod) -> None:
    box = shared_pod.run(BOX)
    script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ls -d /proc/[0-9]* | wc -l"
    port, processes = shared_pod.sh(box, script).split()
    assert port == "81"
    assert 2 <= int(processes) < 8
    listed = daemon.ctr("tasks", "ps", box).splitlines()
    assert listed[0].split()[0] == "PID"
    assert [int(line.split()[0]) for line in listed[1:]] == [shared_pod.state["vmm_pid"]]
    stats = json.loads(daemon.crictl("stats", "--output", "json", "--id", box))["stats"]
    assert int(stats[0]["memory"]["workingSetBytes"]["value"]) > 0
    daemon.crictl("rm", "--force", box)


def test_36_a_container_starts_anew_in_the_same_pod(
    daemon: PrivateContainerd, shared_pod: Pod
) -> None:
    vmm = shared_pod.state["vmm_pid"]
    for attempt in range(2):
        box = shared_pod.run(BOX, metadata={"name": "box", "attempt": attempt + 10})
        assert shared_pod.sh(box, "echo $((6 * 7)); echo kept > /mark").strip() == "42"
        daemon.crictl("stop", "--timeout", "0", box)
        assert ended(daemon, box)["exitCode"] == 137
        daemon.crictl("rm", box)
    assert shared_pod.state["vmm_pid"] == vmm
