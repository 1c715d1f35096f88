"""Containers of one pod: what they share and what not, who they are, and how they find Services."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Lab, wait_for

pytestmark = [pytest.mark.kubernetes, pytest.mark.vm, pytest.mark.timeout(900)]
POD = "team"
OPTIONS = ("--allow-exec", "box=/bin/sh", "--allow-exec", "keeper=/bin/sh")
PAGE = "measured utility VM"


@pytest.fixture(scope="module", autouse=True)
def team(lab: Lab, applied: Callable[..., None]) -> None:
    applied("team.yaml", OPTIONS)
    lab.ready(POD)


def bits(lab: Lab, container: str) -> int:
    status = lab.sh(POD, "cat /proc/self/status", container)
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return int(line.split()[1], 16)


def test_the_images_user_with_its_groups(lab: Lab) -> None:
    assert lab.sh(POD, "id -u; id -g", "keeper").split() == ["1500", "2500"]
    assert "60000" in lab.sh(POD, "id -G", "keeper").split()


def test_processes_are_shared_as_the_pod_says(lab: Lab) -> None:
    seen = lab.sh(POD, "ps -o args")
    assert "/bin/sleep 100001" in seen
    assert "nginx: master process" in seen
    one = lab.sh(POD, "readlink /proc/self/ns/pid")
    assert lab.sh(POD, "readlink /proc/self/ns/pid", "keeper") == one


def test_interprocess_communication_is_shared(lab: Lab) -> None:
    one = lab.sh(POD, "readlink /proc/self/ns/ipc; echo for the keeper > /dev/shm/note")
    other = lab.sh(POD, "readlink /proc/self/ns/ipc; cat /dev/shm/note", "keeper")
    assert other == f"{one}for the keeper\n"


def test_capabilities_added_and_dropped(lab: Lab) -> None:
    net_admin, sys_time, mknod = (1 << number for number in (12, 25, 27))
    assert bits(lab, "box") & (net_admin | sys_time | mknod) == net_admin | sys_time
    assert bits(lab, "keeper") == 0  # as with any runtime: an ordinary user has none in force
    assert "mtu 1400" in lab.sh(POD, "ip link set lo mtu 1400 && ip link show lo")


def test_host_name_subdomain_and_aliases(lab: Lab) -> None:
    assert lab.sh(POD, "hostname").strip() == "captain"
    hosts = lab.sh(POD, "cat /etc/hosts")
    assert "192.0.2.7\tharbour\tquay.example" in hosts
    assert "captain.team.default.svc.cluster.local" in hosts


def test_a_service_by_name_and_in_the_environment(lab: Lab) -> None:
    address = lab.object("service", "team")["spec"]["clusterIP"]
    assert lab.sh(POD, "echo $TEAM_SERVICE_HOST:$TEAM_SERVICE_PORT").strip() == f"{address}:8080"
    assert address in lab.sh(POD, "nslookup team.default.svc.cluster.local")
    ask = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 10 {address} 8080"
    assert wait_for(lambda: PAGE in lab.sh(POD, ask, check=False), 40)
