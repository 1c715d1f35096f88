"""What SetupSandbox may ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.status import InvalidArgumentError
from parma_guest.net.config import InterfaceRequest, RouteRequest, parse_network
from parma_guest.net.sysctls import parse_sysctls, path_of

MAC = "0a:58:0a:01:02:03"
ETH0 = InterfaceRequest(MAC, "eth0", 1450, ("10.1.2.3/24", "fd00::3/64"))


def interface(**more: object) -> InterfaceRequest:
    base = {"mac": MAC, "name": "eth0", "mtu": 1500, "addresses": ("10.1.2.3/24",)}
    return InterfaceRequest(**{**base, **more})  # type: ignore[arg-type]


def test_a_pod_as_cnis_make_it() -> None:
    network = parse_network(
        "web-0.example",
        [ETH0],
        [
            RouteRequest("0.0.0.0/0", "169.254.1.1"),
            RouteRequest("169.254.1.1/32"),
            RouteRequest("10.96.0.0/12", "10.1.2.1", "10.1.2.3", 100),
            RouteRequest("::/0", "fe80::1"),
        ],
    )
    assert network.link is not None
    assert network.link.mac == bytes.fromhex("0a580a010203")
    assert [str(address) for address in network.link.addresses] == ["10.1.2.3/24", "fd00::3/64"]
    assert [route.metric for route in network.routes] == [0, 0, 100, 0]


def test_no_interface_is_loopback_alone() -> None:
    assert parse_network("", [], []).link is None
    with pytest.raises(InvalidArgumentError):
        parse_network("", [], [RouteRequest("0.0.0.0/0", "10.0.0.1")])


@pytest.mark.parametrize(
    "more",
    [
        {"name": "lo"},
        {"name": ""},
        {"name": "x" * 16},
        {"name": "../x"},
        {"name": "eth 0"},
        {"mac": ""},
        {"mac": "0a:58:0a:01:02"},
        {"mac": "zz:58:0a:01:02:03"},
        {"mac": "0a580a010203"},
        {"mtu": 0},
        {"mtu": 575},
        {"mtu": 65536},
        {"addresses": ()},
        {"addresses": ("10.1.2.3",)},
        {"addresses": ("127.0.0.1/8",)},
        {"addresses": ("127.1.2.3/32",)},
        {"addresses": ("::1/128",)},
        {"addresses": ("224.0.0.1/4",)},
        {"addresses": ("ff02::1/64",)},
        {"addresses": ("0.0.0.0/0",)},
        {"addresses": ("::/0",)},
        {"addresses": ("255.255.255.255/32",)},
        {"addresses": ("::ffff:127.0.0.1/128",)},
        {"addresses": ("64.0.0.1/1",)},
        {"addresses": ("126.0.0.1/7",)},
        {"addresses": ("2::1/3",)},
        {"addresses": ("fe80::1%eth0/64",)},
        {"addresses": ("10.1.2.3/24", "10.1.2.3/16")},
        {"addresses": tuple(f"10.1.2.{n}/24" for n in range(1, 18))},
        {"addresses": ("nonsense/1",)},
    ],
)
def test_interfaces_that_are_refused(more: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError):
        parse_network("", [interface(**more)], [])


@pytest.mark.parametrize(
    "route",
    [
        RouteRequest("127.0.0.0/8", "10.1.2.1"),
        RouteRequest("127.0.0.1/32", "10.1.2.1"),
        RouteRequest("0.0.0.0/1", "10.1.2.1"),
        RouteRequest("::1/128", "fd00::1"),
        RouteRequest("::/1", "fd00::1"),
        RouteRequest("224.0.0.0/4", "10.1.2.1"),
        RouteRequest("ff00::/8"),
        RouteRequest("10.0.0.0/8", "fd00::1"),
        RouteRequest("10.0.0.0/8", "127.0.0.1"),
        RouteRequest("10.0.0.0/8", "0.0.0.0"),
        RouteRequest("10.0.0.0/8", "10.1.2.1", "10.9.9.9"),
        RouteRequest("10.0.0.1/8", "10.1.2.1"),
        RouteRequest("10.0.0.0/8", "10.1.2.1", metric=2**32),
        RouteRequest("10.0.0.0/8", "10.1.2.1", metric=-1),
        RouteRequest("", "10.1.2.1"),
        RouteRequest("10.0.0.0/8", "gateway"),
    ],
)
def test_routes_that_are_refused(route: RouteRequest) -> None:
    with pytest.raises(InvalidArgumentError):
        parse_network("", [ETH0], [route])


def test_more_than_one_interface_and_too_many_routes() -> None:
    with pytest.raises(InvalidArgumentError):
        parse_network("", [ETH0, ETH0], [])
    with pytest.raises(InvalidArgumentError):
        parse_network("", [ETH0], [RouteRequest("10.0.0.0/8", "10.1.2.1")] * 65)


@pytest.mark.parametrize("name", ["a b", "a/b", "a\n", "x" * 256, "é"])
def test_host_names_that_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError):
        parse_network(name, [], [])


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40), st.integers())
def test_nonsense_ends_in_our_own_error(a: str, b: str, c: str, number: int) -> None:
    for call in (
        lambda: parse_network(a, [InterfaceRequest(b, c, number, (a,))], []),
        lambda: parse_network("", [ETH0], [RouteRequest(a, b, c, number)]),
        lambda: parse_sysctls([(a, b)]),
    ):
        try:
            call()
        except InvalidArgumentError:
            continue


@pytest.mark.parametrize(
    "name",
    [
        *("kernel.shm_rmid_forced", "kernel.sem", "fs.mqueue.msg_max", "net.core.somaxconn"),
        *("net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range"),
        *("net.ipv4.ip_unprivileged_port_start", "net.ipv4.conf.all.rp_filter"),
        *("net.ipv6.conf.eth0.accept_ra", "net/ipv4/ip_forward"),
    ],
)
def test_sysctls_of_the_pod(name: str) -> None:
    assert parse_sysctls([(name, "1")]) == ((name.replace("/", "."), "1"),)


@pytest.mark.parametrize(
    "name",
    [
        *("kernel.core_pattern", "kernel.shmmaxx", "kernel.hostname", "vm.overcommit_memory"),
        *("fs.file-max", "net.core.rmem_max", "net.core.bpf_jit_enable", "net.netfilter.x"),
        *("net.ipv4.conf.eth0.route_localnet", "net.ipv4.conf.all.route_localnet"),
        *("net.ipv4.conf.lo.rp_filter", "net.ipv6.conf.lo.disable_ipv6", "net.ipv4.tcp_mem"),
        *("net.ipv4.../../kernel.core_pattern", "net.ipv4.", "", "net.ipv4.a b"),
        *("net.ipv4.x\n", "net.ipv4/../../kernel/core_pattern"),
    ],
)
def test_sysctls_of_everybody(name: str) -> None:
    with pytest.raises(InvalidArgumentError):
        parse_sysctls([(name, "1")])


def test_sysctl_values_and_repetition() -> None:
    for rows in ([("kernel.sem", "1\n2")], [("kernel.sem", "1"), ("kernel/sem", "2")]):
        with pytest.raises(InvalidArgumentError):
            parse_sysctls(rows)
    assert parse_sysctls([("kernel.sem", "1 2\t3 4")])
    assert path_of("net.ipv4.ip_forward") == "/proc/sys/net/ipv4/ip_forward"
