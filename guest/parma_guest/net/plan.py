"""How the pod's interface is set up: operations inside the pod's namespaces, in an order that works. Pure."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from parma_api.status import NotFoundError
from parma_guest.linux.netlink import Address, Interface, Network
from parma_guest.linux.netlink import Route as RouteSocket
from parma_guest.linux.netns import PodNamespaces
from parma_guest.net import sysctls
from parma_guest.net.config import PodNetwork
from parma_guest.ops import Operation, Undo

LOOPBACK = 1
"""The index of `lo` in every network namespace."""


def find_index(routes: RouteSocket, mac: bytes) -> int:
    """The device with that hardware address. Raises NotFoundError."""
    for link in routes.links():
        if link.mac == mac and link.index != LOOPBACK:
            return link.index
    raise NotFoundError(f"no network device with the address {mac.hex(':')}")


@dataclass(frozen=True, slots=True)
class CreateNamespaces:
    """The pod's own network, IPC and UTS namespaces."""

    namespaces: PodNamespaces

    def describe(self) -> str:
        return f"create {self.namespaces.path('net')}"

    def apply(self) -> Undo:
        self.namespaces.create()
        return self.namespaces.remove


@dataclass(frozen=True, slots=True)
class MoveLink:
    """Give the device to the pod's namespace."""

    namespaces: PodNamespaces
    mac: bytes

    def describe(self) -> str:
        return f"move {self.mac.hex(':')} into the pod"

    def apply(self) -> None:
        """A device comes back by itself when its namespace ends."""
        fd = self.namespaces.open("net")
        try:
            with RouteSocket() as routes:
                routes.move_link(find_index(routes, self.mac), fd)
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Configure:
    """One change of a device in the pod's namespace; it ends with the namespace."""

    namespaces: PodNamespaces
    what: str
    change: Callable[[RouteSocket], None]

    def describe(self) -> str:
        return self.what

    def apply(self) -> None:
        def work() -> None:
            with RouteSocket() as routes:
                self.change(routes)

        self.namespaces.run(work, ("net",))


@dataclass(frozen=True, slots=True)
class SetHostname:
    """The pod's host name."""

    namespaces: PodNamespaces
    name: str

    def describe(self) -> str:
        return f"host name {self.name}"

    def apply(self) -> None:
        self.namespaces.set_hostname(self.name)


@dataclass(frozen=True, slots=True)
class WriteSysctls:
    """Settings of the pod's namespaces."""

    namespaces: PodNamespaces
    rows: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        return "sysctls " + " ".join(f"{name}={value}" for name, value in self.rows)

    def apply(self) -> None:
        self.namespaces.run(lambda: sysctls.write(self.rows))


def plan_sandbox(
    namespaces: PodNamespaces, network: PodNetwork, rows: tuple[tuple[str, str], ...]
) -> tuple[Operation, ...]:
    """Namespaces, loopback, settings, the device, its addresses, routes on the link before routes by a gateway."""
    steps: list[Operation] = [
        CreateNamespaces(namespaces),
        Configure(namespaces, "lo up", lambda routes: routes.change_link(LOOPBACK, up=True)),
    ]
    if network.hostname:
        steps.append(SetHostname(namespaces, network.hostname))
    if network.link is not None:
        link = network.link
        steps.append(MoveLink(namespaces, link.mac))
        steps.append(_link_step(namespaces, link.mac, link.name, link.mtu))
    if rows:
        steps.append(WriteSysctls(namespaces, rows))
    if network.link is not None:
        mac = network.link.mac
        steps.append(_up_step(namespaces, mac))
        steps += [_address_step(namespaces, mac, one) for one in network.link.addresses]
        ordered = sorted(network.routes, key=lambda route: route.gateway is not None)
        steps += [
            _route_step(namespaces, mac, r.destination, r.gateway, r.source, r.metric)
            for r in ordered
        ]
    return tuple(steps)


def _link_step(namespaces: PodNamespaces, mac: bytes, name: str, mtu: int) -> Configure:
    def change(routes: RouteSocket) -> None:
        routes.change_link(find_index(routes, mac), name=name, mtu=mtu)

    return Configure(namespaces, f"name {name}, mtu {mtu}", change)


def _up_step(namespaces: PodNamespaces, mac: bytes) -> Configure:
    def change(routes: RouteSocket) -> None:
        routes.change_link(find_index(routes, mac), up=True)

    return Configure(namespaces, "link up", change)


def _address_step(namespaces: PodNamespaces, mac: bytes, address: Interface) -> Configure:
    def change(routes: RouteSocket) -> None:
        routes.add_address(find_index(routes, mac), address)

    return Configure(namespaces, f"address {address}", change)


def _route_step(
    namespaces: PodNamespaces,
    mac: bytes,
    destination: Network,
    gateway: Address | None,
    source: Address | None,
    metric: int,
) -> Configure:
    def change(routes: RouteSocket) -> None:
        routes.add_route(find_index(routes, mac), destination, gateway, source, metric)

    by = f" by {gateway}" if gateway else ""
    of = f" from {source}" if source else ""
    return Configure(namespaces, f"route {destination}{by}{of} metric {metric}", change)
