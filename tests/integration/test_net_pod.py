"""The pod's network with a real kernel: namespaces, a veth pair as a CNI makes it, a tap, nft."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from parma_shim.net.errors import NetworkError, NetworkSetupError
from parma_shim.net.namespace import inside, open_namespace
from parma_shim.net.pod import TAP_NAME, clean, plug
from parma_shim.net.portforward import original_destination

pytestmark = pytest.mark.root
PEER_MAC = bytes.fromhex("020000000099")


def sh(*commands: str, netns: str = "") -> str:
    prefix = ["ip", "netns", "exec", netns] if netns else []
    out = ""
    for command in commands:
        out += subprocess.run(
            [*prefix, *command.split()], check=True, capture_output=True, text=True
        ).stdout
    return out


@pytest.fixture
def names() -> Iterator[tuple[str, str]]:
    """A pod's namespace, and one for the other side of its veth."""
    pod, outside = f"parma-pod-{os.getpid()}", f"parma-out-{os.getpid()}"
    sh(f"ip netns add {pod}", f"ip netns add {outside}")
    yield pod, outside
    sh(f"ip netns del {pod}", f"ip netns del {outside}")


@pytest.fixture
def pod(names: tuple[str, str]) -> Path:
    """A pod as a CNI leaves it: two addresses of each family, MTU 1400, an on-link and a static route."""
    inner, outer = names
    sh(
        "ip link set lo up",
        f"ip link add eth0 type veth peer name peer netns {outer}",
        "ip link set eth0 address 02:00:00:00:00:07 mtu 1400 up",
        "ip addr add 10.9.0.5/24 dev eth0",
        "ip addr add 10.9.7.5/32 dev eth0",
        "ip addr add fd00:9::5/64 dev eth0 nodad",
        "ip route add default via 10.9.0.1",
        "ip route add 169.254.1.1 dev eth0 scope link",
        "ip route add 192.168.7.0/24 via 169.254.1.1 dev eth0 metric 5",
        "ip route add 172.30.0.0/16 via 100.64.0.1 dev eth0 onlink",
        "ip -6 route add default via fd00:9::1",
        netns=inner,
    )
    sh("ip link set peer up mtu 1400", netns=outer)
    return Path("/run/netns") / inner


async def test_facts(pod: Path) -> None:
    network = await plug(pod)
    try:
        interface = network.interface
        assert interface is not None
        assert (interface.name, interface.mac, interface.mtu) == ("eth0", "02:00:00:00:00:07", 1400)
        assert sorted(interface.addresses) == ["10.9.0.5/24", "10.9.7.5/32", "fd00:9::5/64"]
        spelled = [
            (r.destination, r.gateway, r.metric)
            for r in interface.routes
            if ":" not in r.destination
        ]
        assert spelled[0] == ("169.254.1.1/32", "", 0)
        assert ("0.0.0.0/0", "10.9.0.1", 0) in spelled
        assert ("192.168.7.0/24", "169.254.1.1", 5) in spelled
        assert spelled.index(("100.64.0.1/32", "", 0)) < spelled.index(
            ("172.30.0.0/16", "100.64.0.1", 0)
        )
        assert ("::/0", "fd00:9::1") in [(r.destination, r.gateway) for r in interface.routes]
        assert interface.ignored == ()
    finally:
        await network.unplug()


def frame(destination: bytes, source: bytes, payload: bytes) -> bytes:
    return destination + source + struct.pack("!H", 0x88B5) + payload


async def test_frames_pass_both_ways_and_unplug_leaves_nothing(
    pod: Path, names: tuple[str, str]
) -> None:
    before = sh("ip link", "tc qdisc show", netns=names[0])
    network = await plug(pod)
    tap = network.tap_fd
    assert tap is not None
    outside = open_namespace(Path("/run/netns") / names[1])
    try:
        raw = await inside(outside, lambda: packet_socket("peer"))
        with raw:
            inbound = frame(bytes.fromhex("020000000007"), PEER_MAC, b"to the guest" * 5)
            raw.send(inbound)
            assert (await read_frame(tap, b"to the guest"))[10:] == inbound
            outbound = frame(PEER_MAC, bytes.fromhex("020000000007"), b"from the guest" * 5)
            os.write(tap, bytes(10) + outbound)
            assert await asyncio.to_thread(receive, raw, b"from the guest") == outbound
    finally:
        await network.unplug()
        os.close(outside)
    assert sh("ip link", "tc qdisc show", netns=names[0]) == before
    await network.unplug()


def packet_socket(name: str) -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    raw.bind((name, 0))
    raw.settimeout(10)
    return raw


def receive(raw: socket.socket, wanted: bytes) -> bytes:
    while wanted not in (data := raw.recv(4096)) or data[6:12] == PEER_MAC:
        pass
    return data


async def read_frame(tap: int, wanted: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    while True:
        ready = loop.create_future()
        loop.add_reader(tap, ready.set_result, None)
        try:
            async with asyncio.timeout(10):
                await ready
        finally:
            loop.remove_reader(tap)
        if wanted in (data := os.read(tap, 4096)):
            return data


async def test_a_foreign_ingress_hook_stays(pod: Path, names: tuple[str, str]) -> None:
    sh("tc qdisc add dev eth0 clsact", netns=names[0])
    network = await plug(pod)
    assert "mirred" in sh("tc filter show dev eth0 ingress", netns=names[0])
    await network.unplug()
    assert "clsact" in sh("tc qdisc show dev eth0", netns=names[0])
    assert sh("tc filter show dev eth0 ingress", netns=names[0]).strip() == ""


async def test_clean_after_a_dead_shim(pod: Path, names: tuple[str, str]) -> None:
    network = await plug(pod)
    (await network.redirect_ports()).close()
    assert network.tap_fd is not None
    await clean(pod)
    assert "mirred" not in sh("tc filter show dev eth0 ingress", netns=names[0])
    assert "parma" not in sh("nft list ruleset", netns=names[0])
    await network.unplug()
    await clean(Path("/run/netns/parma-never-was"))


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
async def test_port_forward(pod: Path, names: tuple[str, str], family: int, host: str) -> None:
    network = await plug(pod)
    redirect = await network.redirect_ports()
    namespace = open_namespace(pod)
    loop = asyncio.get_running_loop()
    try:
        listener = next(x for x in redirect.listeners if x.family == family)
        accepted = asyncio.create_task(loop.sock_accept(listener))
        client = await inside(namespace, lambda: socket.create_connection((host, 8080), timeout=10))
        connection, _ = await asyncio.wait_for(accepted, 10)
        with client, connection:
            assert original_destination(connection) == (host, 8080)
            client.sendall(b"ping")
            assert await loop.sock_recv(connection, 4) == b"ping"
    finally:
        redirect.close()
        await network.unplug()
        os.close(namespace)
    assert "parma" not in sh("nft list ruleset", netns=names[0])


async def test_not_redirected() -> None:
    with socket.socket() as sock, pytest.raises(NetworkError, match="not redirected"):
        original_destination(sock)


async def test_no_interface_is_no_network(names: tuple[str, str]) -> None:
    network = await plug(Path("/run/netns") / names[0])
    assert (network.interface, network.tap_fd, network.mac) == (None, None, None)
    await network.unplug()


async def test_no_address_is_an_error(names: tuple[str, str]) -> None:
    sh("ip link add eth0 type veth peer name other", "ip link set eth0 up", netns=names[0])
    with pytest.raises(NetworkSetupError, match="no address"):
        await plug(Path("/run/netns") / names[0])
    assert TAP_NAME not in sh("ip link", netns=names[0])


async def test_a_second_machine_in_one_namespace_is_refused(
    pod: Path, names: tuple[str, str]
) -> None:
    network = await plug(pod)
    try:
        with pytest.raises(NetworkError, match="taken"):
            await plug(pod)
        assert "mirred" in sh("tc filter show dev eth0 ingress", netns=names[0])
    finally:
        await network.unplug()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/proc/self/ns/net", "host's network"),
        ("/run/netns/parma-never-was", "No such file"),
        ("/proc/self/ns/mnt", "no network namespace"),
        ("/etc/hostname", "no network namespace"),
    ],
)
async def test_refusals(path: str, reason: str) -> None:
    with pytest.raises(NetworkSetupError, match=reason):
        await plug(Path(path))
