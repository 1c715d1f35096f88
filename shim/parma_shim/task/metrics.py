"""The guest's numbers as containerd's metrics (io.containerd.cgroups.v2.Metrics). Pure.

They are claims (attacks.md, K18e): what is out of range is an error, because a number cut to fit would be a lie of
ours. The bounds are generous: they keep absurd values out of the node's accounting and its schedulers, no more.
"""

from __future__ import annotations

from typing import TypeVar

import betterproto
from betterproto.lib.google.protobuf import Any

from parma_api.gen.io.containerd.cgroups import v2
from parma_api.gen.parma.agent import v1
from parma_shim.errors import HostileGuestError

TYPE_URL = "io.containerd.cgroups.v2.Metrics"
NO_LIMIT = 2**64 - 1
MAX_BYTES = 1 << 50
MAX_COUNT = 1 << 56
"""Of events, and of microseconds: 2000 years."""
MAX_DEVICES = 64
MAX_PIDS = 1 << 22

_LIMITS = {"usage_limit", "swap_limit", "limit"}
_COUNTS = {"pgfault", "pgmajfault"}


def metrics(stats: v1.StatsResponse) -> v2.Metrics:
    """Raises HostileGuestError naming the number that cannot be."""
    if len(stats.io) > MAX_DEVICES:
        raise HostileGuestError(f"the guest's statistics name {len(stats.io)} devices")
    _check(stats.cpu, MAX_COUNT)
    _check(stats.memory, MAX_BYTES)
    _check(stats.pids, MAX_PIDS)
    _check(stats.memory_events, MAX_COUNT)
    for entry in stats.io:
        _check(entry, MAX_COUNT)
    return v2.Metrics(
        cpu=_copied(stats.cpu, v2.CpuStat()),
        memory=_copied(stats.memory, v2.MemoryStat()),
        pids=_copied(stats.pids, v2.PidsStat()),
        memory_events=_copied(stats.memory_events, v2.MemoryEvents()),
        io=v2.IoStat(usage=[_copied(entry, v2.IoEntry()) for entry in stats.io]),
    )


def packed(content: v2.Metrics) -> Any:
    """For containerd, which tells by the type which version it is."""
    return Any(type_url=TYPE_URL, value=bytes(content))


def _check(message: betterproto.Message, most: int) -> None:
    for name, value in _fields(message).items():
        bound = MAX_COUNT if name in _COUNTS else most
        if value > bound and not (name in _LIMITS and value == NO_LIMIT):
            raise HostileGuestError(f"the guest's statistics: {name} is {value}")


def _fields(message: betterproto.Message) -> dict[str, int]:
    names = message.__dataclass_fields__  # type: ignore[attr-defined]
    return {name: getattr(message, name) for name in names}


T = TypeVar("T", bound=betterproto.Message)


def _copied(source: betterproto.Message, target: T) -> T:
    """Fields have the same names on both sides; a test compares them."""
    for name, value in _fields(source).items():
        setattr(target, name, value)
    return target
