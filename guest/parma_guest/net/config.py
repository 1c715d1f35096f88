"""What a pod's network may look like. Pure: texts of the request in, judged values out.

The host sees and carries the pod's traffic anyway. What it must not do is to reach what never leaves the VM (loopback)
or to change anything after the first container (K16).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from parma_api.status import InvalidArgumentError
from parma_guest.linux.netlink import Address, Interface, Network, parse_mac

MAX_ADDRESSES = 16
MAX_ROUTES = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_HOSTNAME = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_MTU_MIN, _MTU_MAX = 576, 65535
_LOOPBACK4 = ipaddress.IPv4Network("127.0.0.0/8")
_LOOPBACK6 = ipaddress.IPv6Network("::1/128")


@dataclass(frozen=True, slots=True)
class InterfaceRequest:
    """Texts of the request, as the protocol's message has them."""

    mac: str
    name: str
    mtu: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RouteRequest:
    """Texts of the request; empty: none."""

    destination: str
    gateway: str = ""
    source: str = ""
    metric: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """The pod's own interface."""

    mac: bytes
    name: str
    mtu: int
    addresses: tuple[Interface, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """A route through it."""

    destination: Network
    gateway: Address | None
    source: Address | None
    metric: int


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """All of it; `link` None: loopback alone."""

    hostname: str
    link: Link | None
    routes: tuple[Route, ...]


def parse_network(
    hostname: str, interfaces: Sequence[InterfaceRequest], routes: Sequence[RouteRequest]
) -> PodNetwork:
    """Judge the request. Raises InvalidArgumentError."""
    if hostname and not _HOSTNAME.fullmatch(hostname):
        raise InvalidArgumentError("host name: 1 to 255 characters out of A-Z a-z 0-9 _ . -")
    if len(interfaces) > 1:
        raise InvalidArgumentError("a pod has one interface of its own, more are refused")
    if len(routes) > MAX_ROUTES:
        raise InvalidArgumentError(f"at most {MAX_ROUTES} routes")
    if not interfaces:
        if routes:
            raise InvalidArgumentError("routes without an interface")
        return PodNetwork(hostname, None, ())
    link = _parse_link(interfaces[0])
    return PodNetwork(hostname, link, tuple(_parse_route(route, link) for route in routes))


def _parse_link(request: InterfaceRequest) -> Link:
    try:
        mac = parse_mac(request.mac)
    except ValueError as error:
        raise InvalidArgumentError(f"interface: {error}") from error
    if not _NAME.fullmatch(request.name) or request.name in ("lo", "all", "default"):
        raise InvalidArgumentError(f"{request.name!r} is no name for the pod's interface")
    if not _MTU_MIN <= request.mtu <= _MTU_MAX:
        raise InvalidArgumentError(f"MTU {request.mtu} is not within {_MTU_MIN} and {_MTU_MAX}")
    if not 1 <= len(request.addresses) <= MAX_ADDRESSES:
        raise InvalidArgumentError(f"an interface has 1 to {MAX_ADDRESSES} addresses")
    addresses = tuple(_parse_address(text) for text in request.addresses)
    if len({address.ip for address in addresses}) != len(addresses):
        raise InvalidArgumentError("an address is given twice")
    return Link(mac, request.name, request.mtu, addresses)


def _parse_address(text: str) -> Interface:
    try:
        address = ipaddress.ip_interface(text)
    except ValueError as error:
        raise InvalidArgumentError(f"{text!r} is no address with a prefix") from error
    if "/" not in text or "%" in text:
        raise InvalidArgumentError(f"{text!r} has no prefix length, or a zone")
    _require_outside(address.ip, text)
    if overlaps_loopback(address.network):
        raise InvalidArgumentError(f"{text}: the prefix captures loopback")
    return address


def _require_outside(address: Address, text: str) -> None:
    """An address that can be on a wire, of one host."""
    mapped = getattr(address, "ipv4_mapped", None)
    if (
        address.is_loopback
        or address.is_multicast
        or address.is_unspecified
        or mapped is not None
        or str(address) == "255.255.255.255"
        or getattr(address, "scope_id", None) is not None
    ):
        raise InvalidArgumentError(f"{text}: not an address of the pod's interface")


def overlaps_loopback(network: Network) -> bool:
    """Whether a route to `network` would take over a part of loopback. The default route does not: lo is nearer."""
    if network.prefixlen == 0:
        return False
    loopback = _LOOPBACK4 if network.version == 4 else _LOOPBACK6
    return network.version == loopback.version and network.overlaps(loopback)


def _parse_route(request: RouteRequest, link: Link) -> Route:
    try:
        destination = ipaddress.ip_network(request.destination)
        gateway = ipaddress.ip_address(request.gateway) if request.gateway else None
        source = ipaddress.ip_address(request.source) if request.source else None
    except ValueError as error:
        raise InvalidArgumentError(f"route to {request.destination!r}: {error}") from error
    text = f"route to {destination}"
    if overlaps_loopback(destination):
        raise InvalidArgumentError(f"{text} captures loopback")
    if destination.is_multicast:
        raise InvalidArgumentError(f"{text}: multicast is refused")
    for address in (gateway, source):
        if address is not None and address.version != destination.version:
            raise InvalidArgumentError(f"{text}: IPv4 and IPv6 are mixed")
    if gateway is not None:
        _require_outside(gateway, f"{text} by {gateway}")
    if source is not None and source not in {address.ip for address in link.addresses}:
        raise InvalidArgumentError(f"{text}: source {source} is not an address of the interface")
    if not 0 <= request.metric < 2**32:
        raise InvalidArgumentError(f"{text}: metric is out of range")
    return Route(destination, gateway, source, request.metric)
