"""The guest's numbers: copied field by field, refused when they cannot be (attacks.md, K18e)."""

from __future__ import annotations

from dataclasses import fields

import pytest

from parma_api.gen.io.containerd.cgroups import v2
from parma_api.gen.parma.agent import v1
from parma_shim.errors import HostileGuestError
from parma_shim.task.metrics import NO_LIMIT, metrics, packed


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (v1.CpuStats, v2.CpuStat),
        (v1.MemoryStats, v2.MemoryStat),
        (v1.PidsStats, v2.PidsStat),
        (v1.IoStats, v2.IoEntry),
        (v1.MemoryEvents, v2.MemoryEvents),
    ],
)
def test_the_names_agree(ours: type, theirs: type) -> None:
    assert {x.name for x in fields(ours)} <= {x.name for x in fields(theirs)}


def test_numbers_arrive() -> None:
    stats = v1.StatsResponse(
        memory=v1.MemoryStats(usage=5, usage_limit=NO_LIMIT), io=[v1.IoStats(major=8, rbytes=3)]
    )
    found = v2.Metrics().parse(packed(metrics(stats)).value)
    assert (found.memory.usage, found.memory.usage_limit) == (5, NO_LIMIT)
    assert [(x.major, x.rbytes) for x in found.io.usage] == [(8, 3)]


@pytest.mark.parametrize(
    "stats",
    [
        v1.StatsResponse(memory=v1.MemoryStats(usage=NO_LIMIT)),
        v1.StatsResponse(memory=v1.MemoryStats(usage_limit=NO_LIMIT - 1)),
        v1.StatsResponse(cpu=v1.CpuStats(usage_usec=1 << 60)),
        v1.StatsResponse(pids=v1.PidsStats(current=1 << 30)),
        v1.StatsResponse(memory_events=v1.MemoryEvents(oom_kill=1 << 60)),
        v1.StatsResponse(io=[v1.IoStats(rbytes=1 << 63)]),
        v1.StatsResponse(io=[v1.IoStats()] * 65),
    ],
)
def test_poison(stats: v1.StatsResponse) -> None:
    with pytest.raises(HostileGuestError, match="statistics"):
        metrics(stats)
