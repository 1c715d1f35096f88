"""How often a peer may ask: a bucket of tokens for each address, the table of them bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from parma_api.status import ResourceExhaustedError

MAX_PEERS: Final = 65536


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
