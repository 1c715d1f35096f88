"""What the guest is told of the pod's network. Pure: links, addresses and routes in, one interface out."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from parma_shim.net.errors import NetworkSetupError
from parma_shim.net.rtnetlink import Address, Interface, Link, LinkAddress, LinkRoute, Network

MAX_ADDRESSES = 64
MAX_ROUTES = 256
MIN_MTU, MAX_MTU = 576, 65535
TUNNELS = ("sit", "ip6tnl", "ipip", "gre")
"""Kinds whose modules put a device of their own into every namespace."""


@dataclass(frozen=True, slots=True)
class PodRoute:
    """A route in the spelling of the agent's protocol: CIDR, gateway or empty, source or empty, metric."""

    destination: str
    gateway: str
    source: str
    metric: int


@dataclass(frozen=True, slots=True)
class PodInterface:
    """The CNI's interface as the guest shall have it; routes in an order in which they can be set."""

    name: str
    mac: str
    mtu: int
    addresses: tuple[str, ...]
    routes: tuple[PodRoute, ...]
    ignored: tuple[str, ...] = ()
    """Further interfaces of the pod: a utility VM has one."""


def choose_link(links: Iterable[Link], routes: Iterable[LinkRoute]) -> Link | None:
    """The pod's interface: that of the default route, else eth0, else the first; None without any.

    Raises NetworkSetupError for one that has no Ethernet address (a tunnel, a point-to-point link).
    """
    found = [x for x in links if x.up and not x.loopback and not x.kind.startswith(TUNNELS)]
    if not found:
        return None
    defaults = {route.index for route in routes if route.destination.prefixlen == 0}
    best = min(
        found, key=lambda link: (link.index not in defaults, link.name != "eth0", link.index)
    )
    if len(best.mac) != 17:
        raise NetworkSetupError(
            f"the pod's interface {best.name} ({best.kind or 'no kind'}) is not Ethernet"
        )
    return best


def describe(
    link: Link, links: Iterable[Link], addresses: Iterable[LinkAddress], routes: Iterable[LinkRoute]
) -> PodInterface:
    """What the guest gets of `link`. Raises NetworkSetupError when it has too much, or no address at all."""
    own = [
        a.interface for a in addresses if a.index == link.index and not _is_automatic(a.interface)
    ]
    if not own:
        raise NetworkSetupError(
            f"the pod's interface {link.name} has no address: the CNI has not finished, or failed"
        )
    planned = plan_routes(own, [r for r in routes if r.index == link.index])
    if len(own) > MAX_ADDRESSES or len(planned) > MAX_ROUTES:
        raise NetworkSetupError(
            f"the interface {link.name} has more than {MAX_ADDRESSES} addresses or {MAX_ROUTES} routes"
        )
    others = [x.name for x in links if x.up and not x.loopback and x.index != link.index]
    return PodInterface(
        name=link.name,
        mac=link.mac,
        mtu=min(max(link.mtu, MIN_MTU), MAX_MTU),
        addresses=tuple(str(interface) for interface in own),
        routes=tuple(planned),
        ignored=tuple(others),
    )


def plan_routes(own: Sequence[Interface], routes: Sequence[LinkRoute]) -> list[PodRoute]:
    """On-link routes first, then those through gateways.

    The kernel's own routes to an address's network arise in the guest by themselves. A gateway that no network and no
    on-link route covers (flag `onlink`, as some CNIs set) gets an on-link route of its own in front.
    """
    wanted = [r for r in routes if not r.from_kernel and not _is_noise(r.destination)]
    direct = [r for r in wanted if r.gateway is None]
    reachable: list[Network] = [interface.network for interface in own] + [
        r.destination for r in direct
    ]
    planned = [_spell(r) for r in direct]
    for route in (r for r in wanted if r.gateway is not None):
        assert route.gateway is not None
        if not route.gateway.is_link_local and not any(
            _covers(network, route.gateway) for network in reachable
        ):
            host = ipaddress.ip_network(route.gateway)
            reachable.append(host)
            planned.append(PodRoute(str(host), "", "", 0))
        planned.append(_spell(route))
    return planned


def _spell(route: LinkRoute) -> PodRoute:
    return PodRoute(
        destination=str(route.destination),
        gateway=str(route.gateway or ""),
        source=str(route.source or ""),
        metric=route.priority,
    )


def _covers(network: Network, address: Address) -> bool:
    return address.version == network.version and address in network and network.prefixlen > 0


def _is_automatic(interface: Interface) -> bool:
    """IPv6 link-local: the guest makes its own from the same MAC address."""
    return interface.version == 6 and interface.is_link_local


def _is_noise(network: Network) -> bool:
    return network.version == 6 and (network.is_link_local or network.is_multicast)
