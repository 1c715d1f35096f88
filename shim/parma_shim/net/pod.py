"""The pod's interface joined to a tap: what comes in at one goes out at the other.

    peer (CNI's bridge) --- eth0 | ingress: redirect -> parma0 | --- tap descriptor --- QEMU --- guest's eth0
                                 | redirect <- ingress: parma0 |

Both redirects stand in the pod's namespace. The guest takes over the interface's MAC address and addresses, so nothing
outside can tell.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from parma_shim.net import portforward
from parma_shim.net.errors import NetworkError, NetworkSetupError
from parma_shim.net.facts import PodInterface, choose_link, describe
from parma_shim.net.namespace import inside, is_own_namespace, open_namespace
from parma_shim.net.rtnetlink import Link, Qdisc, RtNetlink
from parma_shim.net.tuntap import create_tap

TAP_NAME = "parma0"
PRIORITY = 0x7061
"""Of our filters: tells them from others on an ingress hook that we share."""


@dataclass(frozen=True, slots=True)
class _Redirect:
    """A filter that we set; `owned` when the qdisc is ours too."""

    index: int
    qdisc: Qdisc
    owned: bool


@dataclass(frozen=True, slots=True)
class _Join:
    """What `plug` made."""

    tap_fd: int
    redirect: _Redirect


class PodNetwork:
    """A pod's network namespace, and its interface as the guest gets it; None when the pod has no network."""

    def __init__(self, namespace: int, interface: PodInterface | None, join: _Join | None) -> None:
        self._namespace = namespace
        self._join = join
        self._forward: portforward.PortRedirect | None = None
        self.interface = interface

    @property
    def tap_fd(self) -> int | None:
        """The tap's descriptor, ours until `unplug`."""
        return self._join.tap_fd if self._join is not None else None

    @property
    def mac(self) -> str | None:
        """The MAC address that the guest takes over."""
        return self.interface.mac if self.interface is not None else None

    async def redirect_ports(self) -> portforward.PortRedirect:
        """Listeners that get every connection to the loopback of the pod's namespace (containerd's port-forward).

        Raises NetworkError, NetworkSetupError without `nft`. The listeners are the caller's to close.
        """
        self._forward = await inside(self._namespace, portforward.install)
        return self._forward

    async def unplug(self) -> None:
        """Takes away what `plug` and `redirect_ports` made, nothing else. Idempotent; fine when the CNI was faster."""
        if self._namespace < 0:
            return
        namespace, self._namespace = self._namespace, -1
        join, self._join = self._join, None
        try:
            if join is not None:
                os.close(join.tap_fd)
                await inside(namespace, lambda: _undo(join.redirect))
            if self._forward is not None:
                await inside(namespace, portforward.remove)
        finally:
            os.close(namespace)


async def plug(netns: Path) -> PodNetwork:
    """Joins the interface in the namespace at `netns` to a new tap.

    Raises NetworkSetupError (namespace gone, the host's own, an interface that no VM can have), NetworkError. On
    failure nothing is left behind.
    """
    namespace = open_namespace(netns)
    try:
        _refuse_host_network(namespace)
        interface, join = await inside(namespace, _plug)
    except BaseException:
        os.close(namespace)
        raise
    return PodNetwork(namespace, interface, join)


def _refuse_host_network(namespace: int) -> None:
    if is_own_namespace(namespace):
        raise NetworkSetupError(
            "the pod wants the host's network, which a utility VM cannot have (hostNetwork)"
        )


async def clean(netns: Path) -> None:
    """What a shim that died left in the namespace: our filters and our nft table. Nothing to do if it is gone."""
    try:
        namespace = open_namespace(netns)
    except NetworkSetupError:
        return
    try:
        if not is_own_namespace(namespace):
            await inside(namespace, _clean)
    finally:
        os.close(namespace)


def _plug() -> tuple[PodInterface | None, _Join | None]:
    with RtNetlink() as route:
        links, routes = route.links(), route.routes()
        link = choose_link(links, routes)
        if link is None:
            return None, None
        return describe(link, links, route.addresses(), routes), _connect(route, link)


def _connect(route: RtNetlink, link: Link) -> _Join:
    with contextlib.ExitStack() as undo:
        tap_fd = create_tap(TAP_NAME)
        undo.callback(os.close, tap_fd)
        tap = next(x for x in route.links() if x.name == TAP_NAME)
        route.set_up(tap.index, link.mtu)
        _redirect(route, tap.index, link.index)  # goes with the tap
        redirect = _redirect(route, link.index, tap.index)
        undo.pop_all()
        return _Join(tap_fd, redirect)


def _redirect(route: RtNetlink, index: int, to: int) -> _Redirect:
    made = route.add_ingress(index)
    redirect = _Redirect(index, made or route.foreign_qdisc(index), owned=made is not None)
    try:
        route.add_redirect(index, to, PRIORITY, redirect.qdisc)
    except NetworkError:
        if redirect.owned:
            route.delete_ingress(index)
        raise
    return redirect


def _undo(redirect: _Redirect) -> None:
    """An interface that is gone took its filters along."""
    with RtNetlink() as route, contextlib.suppress(NetworkError):
        if redirect.owned:
            route.delete_ingress(redirect.index)
        else:
            route.delete_redirect(redirect.index, PRIORITY, redirect.qdisc)


def _clean() -> None:
    with RtNetlink() as route:
        for link in route.links():
            if not link.loopback:
                with contextlib.suppress(NetworkError):
                    route.delete_redirect(link.index, PRIORITY, route.foreign_qdisc(link.index))
    with contextlib.suppress(NetworkError, NetworkSetupError):
        portforward.remove()
