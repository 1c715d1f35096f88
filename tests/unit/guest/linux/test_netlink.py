"""Netlink messages, byte for byte, and answers that are cut off."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.status import DataLossError
from parma_guest.linux import netlink


def test_header() -> None:
    assert netlink.message(20, 5, 7, b"body") == struct.pack("=IHHII", 20, 20, 5, 7, 0) + b"body"


@pytest.mark.parametrize(
    ("value", "packed"),
    [(b"", "04000300"), (b"eth0\0", "0900030065746830000000 00"), (b"abcd", "0800030061626364")],
)
def test_attributes(value: bytes, packed: str) -> None:
    assert netlink.attribute(3, value) == bytes.fromhex(packed)
    assert netlink.parse_attributes(netlink.attribute(3, value)) == {3: value}


def test_an_address_of_ipv6_skips_duplicate_detection() -> None:
    body = netlink.build_address(5, ipaddress.IPv6Interface("fd00::3/64"))
    assert body[:8] == struct.pack("=BBBBI", 10, 64, 2, 0, 5)
    assert netlink.parse_attributes(body[8:])[2] == ipaddress.IPv6Address("fd00::3").packed


def test_an_address_of_ipv4() -> None:
    body = netlink.build_address(5, ipaddress.IPv4Interface("10.1.2.3/24"))
    assert body[:8] == struct.pack("=BBBBI", 2, 24, 0, 0, 5)
    assert netlink.parse_attributes(body[8:])[2] == bytes((10, 1, 2, 3))


@pytest.mark.parametrize(
    ("destination", "gateway", "scope", "flags"),
    [("10.0.0.0/8", None, 253, 0), ("10.0.0.0/8", "10.1.2.1", 0, 4), ("fd00::/8", None, 0, 0)],
)
def test_routes(destination: str, gateway: str | None, scope: int, flags: int) -> None:
    network = ipaddress.ip_network(destination)
    hop = None if gateway is None else ipaddress.ip_address(gateway)
    body = netlink.build_route(5, network, hop, None, 9)
    family, prefix, _, _, table, protocol, found, kind, onlink = struct.unpack_from("=8BI", body)
    assert family == (2 if network.version == 4 else 10)
    assert (prefix, table, protocol, kind) == (8, 254, 4, 1)
    assert (found, onlink) == (scope, flags)
    values = netlink.parse_attributes(body[12:])
    assert values[4] == struct.pack("=i", 5)
    assert values[6] == struct.pack("=I", 9)
    assert (5 in values) == (gateway is not None)


def test_the_default_route_names_no_destination() -> None:
    body = netlink.build_route(5, ipaddress.ip_network("0.0.0.0/0"), None, None, 0)
    assert sorted(netlink.parse_attributes(body[12:])) == [4]


def test_a_link() -> None:
    body = struct.pack("=BxHiII", 0, 1, 3, 1, 0)
    body += netlink.attribute(3, b"eth0\0") + netlink.attribute(1, bytes(range(6)))
    body += netlink.attribute(4, struct.pack("=I", 1500))
    assert netlink.parse_link(body) == netlink.Link(3, "eth0", bytes(range(6)), 1500, up=True)


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_message_that_is_cut_off(cut: int) -> None:
    data = netlink.message(16, 0, 1, bytes(20))[:-cut]
    with pytest.raises(DataLossError):
        list(netlink.parse_messages(data))


@given(st.binary(max_size=200))
def test_nonsense_ends_in_our_own_error(data: bytes) -> None:
    for parse in (
        lambda: list(netlink.parse_messages(data)),
        lambda: netlink.parse_attributes(data),
    ):
        try:
            parse()
        except DataLossError:
            continue


@pytest.mark.parametrize("text", ["", "0a:58:0a:01:02", "0a580a010203", "0a:58:0a:01:02:03:04"])
def test_hardware_addresses(text: str) -> None:
    with pytest.raises(ValueError):
        netlink.parse_mac(text)
    assert netlink.parse_mac("0a:58:0a:01:02:03") == bytes.fromhex("0a580a010203")
