"""The plan carried out on a real kernel: a device is moved into real namespaces and configured there.

The tests start in a network namespace of their own, so that nothing of the machine's is touched.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from parma_api.ids import SandboxId
from parma_api.status import FailedPreconditionError, InvalidArgumentError, NotFoundError
from parma_guest import ops
from parma_guest.linux.libc import SYS_UNSHARE, syscall
from parma_guest.linux.netlink import Route
from parma_guest.linux.netns import CLONE_NEWNET, PodNamespaces, in_thread
from parma_guest.net.config import InterfaceRequest, RouteRequest, parse_network
from parma_guest.net.plan import plan_sandbox
from parma_guest.net.service import Network

pytestmark = pytest.mark.root
MAC = "0a:58:0a:01:02:03"
POD = SandboxId("a" * 64)


@pytest.fixture
def namespaces(tmp_path: Path) -> Iterator[PodNamespaces]:
    pod = PodNamespaces("pod", str(tmp_path))
    yield pod
    if (tmp_path / "pod").exists():
        pod.remove()


def isolated(work: Callable[[], None]) -> None:
    """Run in a thread with a fresh network namespace that holds a veth pair."""

    def run() -> None:
        syscall("unshare", SYS_UNSHARE, CLONE_NEWNET)
        subprocess.run(
            ["ip", "link", "add", "dev", "tap9", "address", MAC, "type", "veth", "peer", "far9"],
            check=True,
        )
        work()

    in_thread(run)


def shown(pod: PodNamespaces, *words: str) -> list[dict[str, Any]]:
    command = ["nsenter", f"--net={pod.path('net')}", "ip", "-j", *words]
    found: list[dict[str, Any]] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
    return found


def test_a_whole_pod(namespaces: PodNamespaces) -> None:
    network = parse_network(
        "web-0",
        [InterfaceRequest(MAC, "eth0", 1400, ("10.1.2.3/24", "192.168.7.9/32", "fd00::3/64"))],
        [
            RouteRequest("0.0.0.0/0", "169.254.1.1", metric=50),
            RouteRequest("169.254.1.1/32"),
            RouteRequest("10.1.2.0/24"),
            RouteRequest("10.96.0.0/12", "10.1.2.1", "10.1.2.3", 100),
            RouteRequest("::/0", "fe80::1"),
        ],
    )
    rows = (("net.ipv4.ip_unprivileged_port_start", "80"), ("kernel.shmmni", "17"))

    kept: list[int] = []

    def work() -> None:
        # The far end of the pair lives in this thread's namespace: without it the near end would go too.
        kept.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
        ops.apply(plan_sandbox(namespaces, network, rows))
        with Route() as routes:
            assert {link.name for link in routes.links()} == {"lo", "far9"}, "the device has moved"
            far = next(link for link in routes.links() if link.name == "far9")
            routes.change_link(far.index, up=True)

    isolated(work)
    links = {str(link["ifname"]): link for link in shown(namespaces, "addr")}
    assert links["eth0"]["mtu"] == 1400
    assert "UP" in links["eth0"]["flags"]
    assert "UP" in links["lo"]["flags"]
    addresses = {
        f"{info['local']}/{info['prefixlen']}": info for info in links["eth0"]["addr_info"]
    }
    assert {"10.1.2.3/24", "192.168.7.9/32", "fd00::3/64"} <= set(addresses)
    assert not addresses["fd00::3/64"].get("tentative")
    routes = {str(route["dst"]): route for route in shown(namespaces, "-4", "route")}
    assert routes["default"]["gateway"] == "169.254.1.1"
    assert routes["default"]["metric"] == 50
    assert routes["10.96.0.0/12"]["prefsrc"] == "10.1.2.3"
    assert "169.254.1.1" in routes
    six = {str(route["dst"]): route for route in shown(namespaces, "-6", "route")}
    assert six["default"]["gateway"] == "fe80::1"
    assert namespaces.run(socket.gethostname) == "web-0"
    settings = namespaces.run(
        lambda: (
            Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text(),
            Path("/proc/sys/kernel/shmmni").read_text(),
        )
    )
    assert settings == ("80\n", "17\n")
    assert socket.gethostname() != "web-0"
    assert Path("/proc/sys/kernel/shmmni").read_text() != "17\n"
    os.close(kept[0])


def test_loopback_alone(namespaces: PodNamespaces) -> None:
    isolated(lambda: ops.apply(plan_sandbox(namespaces, parse_network("", [], []), ())))
    assert [link["ifname"] for link in shown(namespaces, "link", "show", "up")] == ["lo"]


@pytest.mark.parametrize(
    "route",
    [RouteRequest("10.0.0.0/8", "10.1.2.3"), RouteRequest("fd01::/64", "fd00::3")],
    ids=["gateway is our own, v4", "gateway is our own, v6"],
)
def test_a_failure_leaves_nothing(
    namespaces: PodNamespaces, tmp_path: Path, route: RouteRequest
) -> None:
    network = parse_network(
        "", [InterfaceRequest(MAC, "eth0", 1400, ("10.1.2.3/24", "fd00::3/64"))], [route]
    )

    def work() -> None:
        with pytest.raises(Exception, match="netlink"):
            ops.apply(plan_sandbox(namespaces, network, ()))

    isolated(work)
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_an_unknown_device(namespaces: PodNamespaces, tmp_path: Path) -> None:
    other = InterfaceRequest("0a:00:00:00:00:01", "eth0", 1400, ("10.1.2.3/24",))
    network = parse_network("", [other], [])

    def work() -> None:
        with pytest.raises(NotFoundError, match="0a:00:00:00:00:01"):
            ops.apply(plan_sandbox(namespaces, network, ()))

    isolated(work)
    assert list(tmp_path.iterdir()) == []


async def test_the_network_is_set_once(tmp_path: Path) -> None:
    network = Network(str(tmp_path))
    with pytest.raises(FailedPreconditionError):
        assert network.namespaces
    with pytest.raises(InvalidArgumentError):
        await network.setup(POD, "bad name", [], [], [])
    await network.setup(POD, "web-0", [], [], [])
    try:
        with pytest.raises(FailedPreconditionError, match="never changed"):
            await network.setup(POD, "web-1", [], [], [])
        assert network.namespaces.run(socket.gethostname) == "web-0"
    finally:
        network.namespaces.remove()


async def test_not_after_the_first_container(tmp_path: Path) -> None:
    network = Network(str(tmp_path))
    network.close()
    with pytest.raises(FailedPreconditionError):
        await network.setup(POD, "", [], [], [])
