"""rtnetlink: links, addresses, routes and traffic control of the namespace that the socket was made in.

Structures: include/uapi/linux/{rtnetlink,if_link,if_addr,pkt_sched,pkt_cls}.h and tc_act/tc_mirred.h.
"""

from __future__ import annotations

import enum
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from parma_shim.net import netlink as nl
from parma_shim.net.errors import NetworkError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

RTM_NEWLINK, RTM_GETLINK = 16, 18
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTFILTER, RTM_DELTFILTER = 44, 45
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO = 1, 3, 4, 18
IFLA_INFO_KIND = 1
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_TABLE = (
    1,
    4,
    5,
    6,
    7,
    8,
    15,
)
RTAX_MTU = 2
RT_TABLE_MAIN, RTN_UNICAST, RTPROT_KERNEL, RTNH_F_ONLINK = 254, 1, 2, 4
TCA_KIND, TCA_OPTIONS = 1, 2
TCA_U32_SEL, TCA_U32_ACT = 5, 7
TCA_ACT_KIND, TCA_ACT_OPTIONS, TCA_MIRRED_PARMS = 1, 2, 2
TC_ACT_STOLEN, TCA_EGRESS_REDIR, TC_U32_TERMINAL = 4, 1, 1
TC_H_INGRESS, INGRESS_HANDLE, CLSACT_INGRESS_PARENT = 0xFFFFFFF1, 0xFFFF0000, 0xFFFFFFF2
ETH_P_ALL = 3
IFF_UP, IFF_LOOPBACK = 1, 8
RECEIVE_SIZE = 1 << 18
DEADLINE = 5.0

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_TCMSG = struct.Struct("=BxxxiIII")


class Qdisc(enum.Enum):
    """Where a redirect hangs."""

    INGRESS = INGRESS_HANDLE
    CLSACT = CLSACT_INGRESS_PARENT


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface."""

    index: int
    name: str
    mac: str
    mtu: int
    kind: str
    up: bool
    loopback: bool


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """An address of an interface."""

    index: int
    interface: Interface
    scope: int


@dataclass(frozen=True, slots=True)
class LinkRoute:
    """A unicast route of the main table. `destination` with prefix 0 is the default."""

    index: int
    destination: Network
    gateway: Address | None
    source: Address | None
    priority: int
    mtu: int
    scope: int
    onlink: bool
    from_kernel: bool
    """The kernel made it for an address; it makes the same one in the guest."""


class RtNetlink:
    """A route socket. Raises NetworkError from every call."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.settimeout(DEADLINE)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def links(self) -> tuple[Link, ...]:
        """All interfaces of the namespace."""
        return tuple(
            parse_link(body) for body in self._dump(RTM_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0))
        )

    def addresses(self) -> tuple[LinkAddress, ...]:
        """All addresses, both families."""
        bodies = self._dump(RTM_GETADDR, _IFADDR.pack(0, 0, 0, 0, 0))
        return tuple(address for body in bodies if (address := parse_address(body)))

    def routes(self) -> tuple[LinkRoute, ...]:
        """The unicast routes of the main table, both families."""
        found: list[LinkRoute] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            body = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
            found += (
                route for body in self._dump(RTM_GETROUTE, body) if (route := parse_route(body))
            )
        return tuple(found)

    def set_up(self, index: int, mtu: int) -> None:
        """Sets the MTU, and the interface up."""
        body = _IFINFO.pack(0, 0, index, IFF_UP, IFF_UP) + nl.u32(IFLA_MTU, mtu)
        self._change(RTM_NEWLINK, 0, body, "ip link set")

    def add_ingress(self, index: int) -> Qdisc | None:
        """Adds an ingress qdisc; None if the interface has one already, which is then somebody else's."""
        body = _TCMSG.pack(0, index, INGRESS_HANDLE, TC_H_INGRESS, 0) + nl.text(TCA_KIND, "ingress")
        try:
            self._change(
                RTM_NEWQDISC, nl.NLM_F_CREATE | nl.NLM_F_EXCL, body, "tc qdisc add ingress"
            )
        except NetlinkError as error:
            if error.number == errno.EEXIST:
                return None
            raise
        return Qdisc.INGRESS

    def foreign_qdisc(self, index: int) -> Qdisc:
        """Which kind of ingress hook the interface has."""
        for body in self._dump(RTM_GETQDISC, _TCMSG.pack(0, index, 0, 0, 0)):
            if (
                _TCMSG.unpack_from(body)[1] == index
                and b"clsact\0" in nl.attributes(body[_TCMSG.size :]).values()
            ):
                return Qdisc.CLSACT
        return Qdisc.INGRESS

    def delete_ingress(self, index: int) -> None:
        """Removes the ingress qdisc with all its filters."""
        body = _TCMSG.pack(0, index, INGRESS_HANDLE, TC_H_INGRESS, 0) + nl.text(TCA_KIND, "ingress")
        self._change(RTM_DELQDISC, 0, body, "tc qdisc del ingress")

    def add_redirect(self, index: int, to: int, priority: int, qdisc: Qdisc) -> None:
        """All that comes in at `index` goes out at `to`: u32 that matches anything, mirred redirect.

        u32 and not matchall, because every kernel that has traffic control has u32.
        """
        body = (
            _filter(index, priority, qdisc)
            + nl.text(TCA_KIND, "u32")
            + nl.attribute(TCA_OPTIONS, redirect(to))
        )
        self._change(RTM_NEWTFILTER, nl.NLM_F_CREATE | nl.NLM_F_EXCL, body, "tc filter add")

    def delete_redirect(self, index: int, priority: int, qdisc: Qdisc) -> None:
        """Removes the filters of that priority."""
        self._change(RTM_DELTFILTER, 0, _filter(index, priority, qdisc), "tc filter del")

    def _change(self, kind: int, flags: int, body: bytes, what: str) -> None:
        for message in self._request(kind, nl.NLM_F_REQUEST | nl.NLM_F_ACK | flags, body):
            if message.type == nl.NLMSG_ERROR:
                if number := nl.error_number(message.body):
                    raise NetlinkError(what, number)
                return

    def _dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        for message in self._request(kind, nl.NLM_F_REQUEST | nl.NLM_F_DUMP, body):
            if message.type == nl.NLMSG_DONE:
                return
            if message.type == nl.NLMSG_ERROR:
                raise NetlinkError("a dump", nl.error_number(message.body))
            yield message.body

    def _request(self, kind: int, flags: int, body: bytes) -> Iterator[nl.Message]:
        self._sequence += 1
        try:
            self._socket.send(nl.pack(kind, flags, self._sequence, body))
            while True:
                yield from nl.messages(self._socket.recv(RECEIVE_SIZE))
        except OSError as error:
            raise NetworkError(f"netlink: {error.strerror or 'no answer'}") from error


class NetlinkError(NetworkError):
    """The kernel refused a change."""

    def __init__(self, what: str, number: int) -> None:
        super().__init__(
            f"the kernel refused `{what}` in the pod's network namespace: {os.strerror(number)}"
        )
        self.number = number


def parse_link(body: bytes) -> Link:
    """An RTM_NEWLINK. Raises NetworkError."""
    _family, _type, index, flags, _change = _unpack(_IFINFO, body)
    found = nl.attributes(body[_IFINFO.size :])
    info = nl.attributes(found.get(IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=_text(found.get(IFLA_IFNAME, b"")),
        mac=found.get(IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(found.get(IFLA_MTU)),
        kind=_text(info.get(IFLA_INFO_KIND, b"")),
        up=bool(flags & IFF_UP),
        loopback=bool(flags & IFF_LOOPBACK),
    )


def parse_address(body: bytes) -> LinkAddress | None:
    """An RTM_NEWADDR; None for one without an address."""
    _family, prefix, _flags, scope, index = _unpack(_IFADDR, body)
    found = nl.attributes(body[_IFADDR.size :])
    # IFA_ADDRESS is the peer's on point-to-point links; IFA_LOCAL is ours where it exists.
    packed = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS)
    if packed is None:
        return None
    return LinkAddress(index, ipaddress.ip_interface((_address(packed), prefix)), scope)


def parse_route(body: bytes) -> LinkRoute | None:
    """An RTM_NEWROUTE; None for what is no unicast route of the main table through one interface."""
    family, prefix, _src, _tos, table, protocol, scope, kind, flags = _unpack(_RTMSG, body)
    found = nl.attributes(body[_RTMSG.size :])
    if (
        _number(found.get(RTA_TABLE), table) != RT_TABLE_MAIN
        or kind != RTN_UNICAST
        or RTA_OIF not in found
    ):
        return None
    size = 4 if family == socket.AF_INET else 16
    gateway, source = found.get(RTA_GATEWAY), found.get(RTA_PREFSRC)
    return LinkRoute(
        index=_number(found[RTA_OIF]),
        destination=ipaddress.ip_network((_address(found.get(RTA_DST, bytes(size))), prefix)),
        gateway=_address(gateway) if gateway else None,
        source=_address(source) if source else None,
        priority=_number(found.get(RTA_PRIORITY)),
        mtu=_number(nl.attributes(found.get(RTA_METRICS, b"")).get(RTAX_MTU)),
        scope=scope,
        onlink=bool(flags & RTNH_F_ONLINK),
        from_kernel=protocol == RTPROT_KERNEL,
    )


def redirect(to: int) -> bytes:
    """u32's options: one key that matches anything, and mirred to interface `to`."""
    key = struct.pack("=IIii", 0, 0, 0, 0)
    selector = struct.pack("=BBBxHHhhI", TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0) + key
    mirred = struct.pack("=IIiiiiI", 0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, to)
    action = nl.text(TCA_ACT_KIND, "mirred") + nl.attribute(
        TCA_ACT_OPTIONS, nl.attribute(TCA_MIRRED_PARMS, mirred)
    )
    return nl.attribute(TCA_U32_SEL, selector) + nl.attribute(TCA_U32_ACT, nl.attribute(1, action))


def _filter(index: int, priority: int, qdisc: Qdisc) -> bytes:
    return _TCMSG.pack(0, index, 0, qdisc.value, priority << 16 | socket.htons(ETH_P_ALL))


def _unpack(layout: struct.Struct, body: bytes) -> tuple[int, ...]:
    if len(body) < layout.size:
        raise NetworkError("netlink: a message that is too short for its type")
    return layout.unpack_from(body)


def _address(packed: bytes) -> Address:
    try:
        return ipaddress.ip_address(packed)
    except ValueError as error:
        raise NetworkError("netlink: an address of a strange length") from error


def _number(value: bytes | None, default: int = 0) -> int:
    return default if value is None else int.from_bytes(value, "little")


def _text(value: bytes) -> str:
    return value.split(b"\0", 1)[0].decode("utf-8", "replace")
