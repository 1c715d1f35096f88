"""The little of rtnetlink that one interface needs (include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h).

Messages are built and read by pure functions; `Route` is the socket.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from errno import EEXIST
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import Self

from parma_api.status import DataLossError
from parma_guest.linux.errno import KernelError, kernel_call

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTM_NEWLINK, _RTM_GETLINK, _RTM_NEWADDR, _RTM_NEWROUTE = 16, 18, 20, 24
_REQUEST, _ACK, _DUMP, _CREATE, _EXCLUSIVE = 1, 4, 0x300, 0x400, 0x200
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_NET_NS_FD = 1, 3, 4, 28
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_NODAD, _IFA_F_NOPREFIXROUTE = 0x02, 0x200
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 4, 5, 6, 7
_RTNH_F_ONLINK = 4
_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST = 254, 4, 1
_SCOPE_UNIVERSE, _SCOPE_LINK, _SCOPE_HOST = 0, 253, 254
_IFF_UP = 1
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=8BI")


@dataclass(frozen=True, slots=True)
class Link:
    """A network device."""

    index: int
    name: str
    mac: bytes
    mtu: int
    up: bool


def attribute(kind: int, value: bytes) -> bytes:
    """One rtattr, padded to 4."""
    size = 4 + len(value)
    return struct.pack("=HH", size, kind) + value + bytes(-size % 4)


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """One nlmsghdr with its body."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def parse_messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, sequence, body) of each message. Raises DataLossError."""
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, _, sequence, _ = _HEADER.unpack_from(data, at)
        if size < _HEADER.size or at + size > len(data):
            raise DataLossError("netlink: a message is cut off")
        yield kind, sequence, data[at + _HEADER.size : at + size]
        at += size + -size % 4


def parse_attributes(data: bytes) -> dict[int, bytes]:
    """rtattrs by type; of a repeated one the last."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if size < 4 or at + size > len(data):
            raise DataLossError("netlink: an attribute is cut off")
        found[kind & 0x3FFF] = data[at + 4 : at + size]
        at += size + -size % 4
    return found


def parse_link(body: bytes) -> Link:
    """RTM_NEWLINK."""
    _, _, index, flags, _ = _LINK.unpack_from(body)
    values = parse_attributes(body[_LINK.size :])
    name = values.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode()
    (mtu,) = struct.unpack("=I", values.get(_IFLA_MTU, bytes(4)))
    return Link(index, name, values.get(_IFLA_ADDRESS, b""), mtu, bool(flags & _IFF_UP))


def build_link(index: int, attributes: Mapping[int, bytes], *, up: bool | None = None) -> bytes:
    """Body that changes a link."""
    change = 0 if up is None else _IFF_UP
    flags = _IFF_UP if up else 0
    packed = b"".join(attribute(kind, value) for kind, value in attributes.items())
    return _LINK.pack(socket.AF_UNSPEC, 0, index, flags, change) + packed


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def build_address(index: int, interface: Interface) -> bytes:
    """Body that adds an address. No duplicate address detection: the CNI made sure, and the pod must not wait."""
    flags = _IFA_F_NODAD if interface.version == 6 else 0
    raw = interface.ip.packed
    scope = _SCOPE_LINK if interface.ip.is_link_local else _SCOPE_UNIVERSE
    return (
        _ADDRESS.pack(_family(interface.version), interface.network.prefixlen, flags, scope, index)
        + attribute(_IFA_LOCAL, raw)
        + attribute(_IFA_ADDRESS, raw)
        + attribute(_IFA_FLAGS, struct.pack("=I", flags))
    )


def build_route(
    index: int,
    destination: Network,
    gateway: Address | None,
    source: Address | None,
    metric: int,
) -> bytes:
    """Body that adds a route. A gateway need not lie in a prefix of the interface: CNIs use such (onlink)."""
    scope = _SCOPE_LINK if gateway is None and destination.version == 4 else _SCOPE_UNIVERSE
    body = _ROUTE.pack(
        _family(destination.version),
        destination.prefixlen,
        0,
        0,
        _RT_TABLE_MAIN,
        _RTPROT_STATIC,
        scope,
        _RTN_UNICAST,
        0 if gateway is None else _RTNH_F_ONLINK,
    )
    if destination.prefixlen:
        body += attribute(_RTA_DST, destination.network_address.packed)
    body += attribute(_RTA_OIF, struct.pack("=i", index))
    if gateway is not None:
        body += attribute(_RTA_GATEWAY, gateway.packed)
    if source is not None:
        body += attribute(_RTA_PREFSRC, source.packed)
    if metric:
        body += attribute(_RTA_PRIORITY, struct.pack("=I", metric))
    return body


class Route:
    """A rtnetlink socket in the namespace of the thread that makes it; it stays there. A context manager."""

    def __init__(self) -> None:
        with kernel_call("socket", "AF_NETLINK"):
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
            )
            self._socket.settimeout(10)
            self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _request(self, kind: int, flags: int, body: bytes, what: str) -> list[bytes]:
        self._sequence += 1
        with kernel_call("netlink", what):
            self._socket.send(message(kind, _REQUEST | flags, self._sequence, body))
            return list(self._answers(what))

    def _answers(self, what: str) -> Iterator[bytes]:
        while True:
            for kind, sequence, body in parse_messages(self._socket.recv(65536)):
                if sequence != self._sequence:
                    continue
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    (number,) = struct.unpack_from("=i", body)
                    if number:
                        raise KernelError("netlink", what, -number)
                    return
                yield body

    def links(self) -> list[Link]:
        """Every device of the namespace."""
        body = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        return [parse_link(one) for one in self._request(_RTM_GETLINK, _DUMP, body, "links")]

    def change_link(
        self, index: int, *, name: str | None = None, mtu: int | None = None, up: bool | None = None
    ) -> None:
        """Rename, set the MTU, or take up or down."""
        attributes: dict[int, bytes] = {}
        if name is not None:
            attributes[_IFLA_IFNAME] = name.encode() + b"\0"
        if mtu is not None:
            attributes[_IFLA_MTU] = struct.pack("=I", mtu)
        self._request(_RTM_NEWLINK, _ACK, build_link(index, attributes, up=up), f"link {index}")

    def move_link(self, index: int, namespace_fd: int) -> None:
        """Give the device to another network namespace."""
        body = build_link(index, {_IFLA_NET_NS_FD: struct.pack("=i", namespace_fd)})
        self._request(_RTM_NEWLINK, _ACK, body, f"move link {index}")

    def add_address(self, index: int, interface: Interface) -> None:
        """Add an address with its prefix."""
        flags = _ACK | _CREATE | _EXCLUSIVE
        self._request(_RTM_NEWADDR, flags, build_address(index, interface), f"address {interface}")

    def add_route(
        self,
        index: int,
        destination: Network,
        gateway: Address | None = None,
        source: Address | None = None,
        metric: int = 0,
    ) -> None:
        """Add a route; the one that the address brought with it may be there already."""
        body = build_route(index, destination, gateway, source, metric)
        try:
            self._request(_RTM_NEWROUTE, _ACK | _CREATE | _EXCLUSIVE, body, f"route {destination}")
        except KernelError as error:
            if error.number != EEXIST or gateway is not None:
                raise


def parse_mac(text: str) -> bytes:
    """`aa:bb:cc:dd:ee:ff` as 6 bytes. Raises ValueError."""
    raw = bytes.fromhex(text.replace(":", ""))
    if len(raw) != 6 or text.count(":") != 5:
        raise ValueError(f"not a MAC address: {text}")
    return raw
