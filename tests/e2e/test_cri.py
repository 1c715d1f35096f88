"""A pod's life through CRI: two containers, network, logs, exec, attach, stats, stop, remove; nothing left over."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from parma_shim.demo import images
from parma_shim.demo.daemon import PrivateContainerd, run_checked
from parma_shim.demo.group import CACHE, GROUP, WEB, Member

from .conftest import Pod, Store, policy_text
from .observe import leavings, runs, wait_as_before, wait_for

pytestmark = [pytest.mark.vm, pytest.mark.containerd, pytest.mark.timeout(300)]
SHELL = ("/bin/sh",)
BOX = Member("box", images.BUSYBOX, ("/bin/sh", "-c", "while read line; do echo got $line; done"))


@pytest.fixture(scope="module")
def pod(start_pod: Callable[[bytes], Pod], store: Store) -> Pod:
    described = [
        store.container(
            member.name,
            member.image,
            member.command,
            execs=[*member.execs, SHELL],
            env=[f"{name}={value}" for name, value in member.env],
        )
        for member in (*GROUP, BOX)
    ]
    return start_pod(policy_text(*described))


@pytest.fixture(scope="module")
def web(pod: Pod) -> str:
    return pod.run(WEB)


@pytest.fixture(scope="module")
def redis(pod: Pod) -> str:
    return pod.run(CACHE)


def fetch(daemon: PrivateContainerd, address: str) -> str:
    program = f"import urllib.request as u; print(u.urlopen('http://{address}/', timeout=10).read().decode())"
    return run_checked([*daemon.inside(), sys.executable, "-c", program])


def test_nginx_answers_over_the_pods_address(daemon: PrivateContainerd, pod: Pod, web: str) -> None:
    page = wait_for(lambda: fetch(daemon, pod.address))
    assert "measured utility VM" in page
    assert wait_for(lambda: "GET / HTTP" in daemon.crictl("logs", web))


def test_a_listed_exec_runs(daemon: PrivateContainerd, redis: str) -> None:
    assert (
        wait_for(lambda: daemon.crictl("exec", "--sync", redis, *CACHE.execs[0])).strip() == "PONG"
    )


def test_containers_of_a_pod_share_its_network(pod: Pod, web: str, redis: str) -> None:
    del redis
    answer = wait_for(lambda: pod.sh(web, "printf 'PING\\r\\nQUIT\\r\\n' | nc 127.0.0.1 6379"))
    assert "+PONG" in answer


def test_exit_codes_come_back(pod: Pod, web: str) -> None:
    command = [*pod.daemon.crictl_command(), "exec", "-i", web, "/bin/sh"]
    done = subprocess.run(command, input=b"exit 7\n", capture_output=True, timeout=60, check=False)
    assert "7" in done.stderr.decode()
    assert done.returncode != 0


def test_a_megabyte_of_output_arrives_whole(pod: Pod, web: str) -> None:
    output = pod.sh(web, "seq 1 200000")
    assert output == "".join(f"{n}\n" for n in range(1, 200001))


def test_attach_and_stdin(daemon: PrivateContainerd, pod: Pod) -> None:
    box = pod.run(BOX, stdin=True)
    command = [*daemon.crictl_command(), "attach", "--stdin", box]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hello\n")
        process.stdin.flush()
        assert process.stdout.readline().strip() == b"got hello"
        process.kill()
    daemon.crictl("rm", "--force", box)


def test_stats_are_the_guests(daemon: PrivateContainerd, web: str) -> None:
    rows = json.loads(daemon.crictl("stats", "--output", "json", "--id", web))["stats"]
    assert int(rows[0]["memory"]["workingSetBytes"]["value"]) > 1 << 20
    assert int(rows[0]["cpu"]["usageCoreNanoSeconds"]["value"]) > 0


def test_a_container_is_stopped_and_started_anew(
    daemon: PrivateContainerd, pod: Pod, web: str
) -> None:
    daemon.crictl("stop", web)
    status = json.loads(daemon.crictl("inspect", web))["status"]
    assert status["state"] == "CONTAINER_EXITED"
    daemon.crictl("rm", web)
    again = pod.run(WEB, metadata={"name": "web", "attempt": 1})
    assert "measured utility VM" in wait_for(lambda: fetch(daemon, pod.address))
    daemon.crictl("rm", "--force", again)


def test_nothing_is_left_when_a_pod_is_gone(
    daemon: PrivateContainerd, start_pod: Callable[[bytes], Pod], store: Store
) -> None:
    before = leavings(daemon)
    pod = start_pod(policy_text(store.container("box", BOX.image, BOX.command)))
    pod.run(BOX)
    state = pod.state
    cgroups, pids = state["cgroups"], (state["shim_pid"], state["vmm_pid"])
    assert isinstance(cgroups, list)
    assert cgroups
    places = [Path(str(path)) for path in (*cgroups, state["netns"])]

    def left() -> list[str]:
        return [str(x) for x in places if x.exists()] + [f"process {x}" for x in pids if runs(x)]

    assert len(left()) == len(places) + len(pids)
    assert leavings(daemon) != before
    pod.remove()
    with contextlib.suppress(AssertionError):
        wait_for(lambda: not left(), 60)
    assert left() == []
    wait_as_before(daemon, before)
