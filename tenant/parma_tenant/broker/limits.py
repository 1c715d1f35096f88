"""How often a peer may ask: a bucket of tokens for each address, the table of them bounded."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from parma_api.status import ResourceExhaustedError

MAX_PEERS: Final = 65536


def peer_of(address: str) -> str:
    """Whose requests count together: an IPv4 address, the /64 of an IPv6 one, which is one customer's."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((found, 64), strict=False))


@dataclass(slots=True)
class RateLimit:
    """`rate` requests a second on the long run, `burst` at once. `clock`: seconds that never go back."""

    rate: float
    burst: int
    clock: Callable[[], float]
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def take(self, peer: str) -> None:
        """One request of `peer`. Raises ResourceExhaustedError."""
        now = self.clock()
        tokens, since = self._buckets.pop(peer, (float(self.burst), now))
        tokens = min(float(self.burst), tokens + (now - since) * self.rate)
        allowed = tokens >= 1
        self._buckets[peer] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > MAX_PEERS:
            self._buckets.popitem(last=False)
        if not allowed:
            raise ResourceExhaustedError("too many requests from this address: wait a moment")
