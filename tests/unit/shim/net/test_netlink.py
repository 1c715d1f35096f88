"""Netlink: golden bytes out, hostile bytes in, and what the guest is told of a network."""

from __future__ import annotations

import contextlib
import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_shim.net import netlink as nl
from parma_shim.net import rtnetlink as rt
from parma_shim.net.errors import NetworkError, NetworkSetupError
from parma_shim.net.facts import PodRoute, choose_link, describe, plan_routes


def test_golden_message() -> None:
    body = nl.text(3, "eth0") + nl.u32(4, 1500)
    assert nl.pack(16, 5, 7, body).hex() == (
        "2400000010000500070000000000000009000300657468300000000008000400dc050000"
    )
    (message,) = nl.messages(nl.pack(16, 5, 7, body))
    assert nl.attributes(message.body) == {3: b"eth0\0", 4: struct.pack("=I", 1500)}


def test_the_redirect_as_tc_sends_it() -> None:
    """Options of `tc filter add ... u32 match u32 0 0 action mirred egress redirect dev IFINDEX 9`."""
    found = nl.attributes(rt.redirect(9))
    assert found[rt.TCA_U32_SEL].hex() == "01000100" + "00" * 12 + "00" * 16
    action = nl.attributes(nl.attributes(found[rt.TCA_U32_ACT])[1])
    assert action[rt.TCA_ACT_KIND] == b"mirred\0"
    parms = nl.attributes(action[rt.TCA_ACT_OPTIONS])[rt.TCA_MIRRED_PARMS]
    assert struct.unpack("=IIiiiiI", parms) == (0, 0, 4, 0, 0, 1, 9)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Messages that cannot be are an error of ours, never another one."""
    for parse in (
        rt.parse_link,
        rt.parse_address,
        rt.parse_route,
        nl.error_number,
        lambda d: list(nl.messages(d)),
    ):
        with contextlib.suppress(NetworkError):
            parse(data)


@pytest.mark.parametrize(
    "data", [b"\0", struct.pack("=IHHII", 15, 1, 0, 0, 0), struct.pack("=IHHII", 17, 1, 0, 0, 0)]
)
def test_bad_lengths(data: bytes) -> None:
    with pytest.raises(NetworkError):
        list(nl.messages(data))


def link(
    index: int, name: str, mac: str = "02:00:00:00:00:01", kind: str = "veth", mtu: int = 1500
) -> rt.Link:
    return rt.Link(index, name, mac, mtu, kind, up=True, loopback=name == "lo")


def route(
    destination: str, gateway: str | None = None, index: int = 2, **more: object
) -> rt.LinkRoute:
    fields: dict[str, object] = {
        "source": None,
        "priority": 0,
        "mtu": 0,
        "scope": 0,
        "onlink": False,
        "from_kernel": False,
    }
    address = ipaddress.ip_address(gateway) if gateway else None
    return rt.LinkRoute(index, ipaddress.ip_network(destination), address, **{**fields, **more})  # type: ignore[arg-type]


def test_which_interface() -> None:
    lo, eth0, net1 = link(1, "lo"), link(3, "eth0"), link(2, "net1")
    assert choose_link([lo], []) is None
    assert choose_link([lo, net1, eth0], []) == eth0
    assert choose_link([lo, eth0, net1], [route("0.0.0.0/0", "10.0.0.1")]) == net1
    assert choose_link([link(5, "tunl0", kind="ipip"), net1], []) == net1
    with pytest.raises(NetworkSetupError, match="not Ethernet"):
        choose_link([link(4, "wg0", mac="", kind="wireguard")], [])


def test_calico() -> None:
    """A /32 address, an on-link gateway outside it."""
    own = [ipaddress.ip_interface("10.1.2.3/32")]
    routes = [route("0.0.0.0/0", "169.254.1.1"), route("169.254.1.1/32")]
    assert plan_routes(own, routes) == [
        PodRoute("169.254.1.1/32", "", "", 0),
        PodRoute("0.0.0.0/0", "169.254.1.1", "", 0),
    ]


def test_an_onlink_gateway_gets_a_route_once() -> None:
    own = [ipaddress.ip_interface("10.1.2.3/24")]
    routes = [
        route("0.0.0.0/0", "100.64.0.1", onlink=True),
        route("8.0.0.0/8", "100.64.0.1", onlink=True, priority=7),
    ]
    assert [r.destination for r in plan_routes(own, routes)] == [
        "100.64.0.1/32",
        "0.0.0.0/0",
        "8.0.0.0/8",
    ]


def test_ipv6_through_a_link_local_gateway_and_without_the_kernels_own() -> None:
    own = [ipaddress.ip_interface("fd00::3/64")]
    routes = [
        route("fd00::/64", from_kernel=True),
        route("fe80::/64", from_kernel=True),
        route("ff00::/8"),
        route("::/0", "fe80::1", priority=1024),
    ]
    assert plan_routes(own, routes) == [PodRoute("::/0", "fe80::1", "", 1024)]


def test_what_is_too_much() -> None:
    eth0 = link(2, "eth0", mtu=70000)
    one = rt.LinkAddress(2, ipaddress.ip_interface("10.0.0.2/24"), 0)
    assert describe(eth0, [eth0, link(3, "net1")], [one], []).ignored == ("net1",)
    assert describe(eth0, [eth0], [one], []).mtu == 65535
    with pytest.raises(NetworkSetupError, match="more than"):
        describe(eth0, [eth0], [one] * 65, [])
    with pytest.raises(NetworkSetupError, match="more than"):
        describe(eth0, [eth0], [one], [route("9.9.9.9/32")] * 257)
    local = rt.LinkAddress(2, ipaddress.ip_interface("fe80::1/64"), 253)
    with pytest.raises(NetworkSetupError, match="no address"):
        describe(eth0, [eth0], [local], [])
