"""From the kernel's figures to the protocol's messages. Pure, but for the stacks of this very process."""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from parma_api.gen.parma.agent.v1 import (
    CpuStats,
    IoStats,
    MemoryEvents,
    MemoryStats,
    PidsStats,
    Resources,
    StatsResponse,
)
from parma_guest.linux.cgroup import Stats
from parma_guest.oci.parse import ResourceRequest

MAX_STACKS: Final = 256 << 10
"""Characters."""
MAX_IO: Final = 256
_CPU = ("usage_usec", "user_usec", "system_usec", "nr_periods", "nr_throttled", "throttled_usec")
_MEMORY = (
    "anon", "file", "kernel_stack", "slab", "sock", "shmem", "file_mapped", "inactive_anon", "active_anon",
    "inactive_file", "active_file", "unevictable", "pgfault", "pgmajfault",
)  # fmt: skip
_EVENTS = ("low", "high", "max", "oom", "oom_kill")
_IO = ("rbytes", "wbytes", "rios", "wios")


def stats(found: Stats) -> StatsResponse:
    """Figures of a control group."""
    return StatsResponse(
        cpu=CpuStats(**{name: found.cpu.get(name, 0) for name in _CPU}),
        memory=MemoryStats(
            usage=found.memory_current,
            usage_limit=found.memory_max,
            swap_usage=found.swap_current,
            swap_limit=found.swap_max,
            **{name: found.memory.get(name, 0) for name in _MEMORY},
        ),
        pids=PidsStats(current=found.pids_current, limit=found.pids_max),
        io=[
            IoStats(
                major=row.major,
                minor=row.minor,
                **{name: row.values.get(name, 0) for name in _IO},
            )
            for row in found.io[:MAX_IO]
        ],
        memory_events=MemoryEvents(**{name: found.memory_events.get(name, 0) for name in _EVENTS}),
    )


def resource_request(message: Resources) -> ResourceRequest:
    """The host's wishes; swap is the guest's own affair."""
    return ResourceRequest(
        memory_limit=message.memory_limit,
        memory_reservation=message.memory_reservation,
        cpu_shares=message.cpu_shares,
        cpu_quota=message.cpu_quota,
        cpu_period=message.cpu_period,
        cpus=message.cpuset_cpus,
        pids_limit=message.pids_limit,
    )


def stacks() -> str:
    """Where the agent's threads and tasks stand: names of functions and lines, no values."""
    import traceback

    parts: list[str] = []
    for number, frame in sys._current_frames().items():  # noqa: SLF001 (there is no other way)
        parts += [f"thread {number}\n", *traceback.format_stack(frame)]
    for task in asyncio.all_tasks():
        parts.append(f"task {task.get_name()}\n")
        for frame in task.get_stack(limit=16):
            parts += traceback.format_stack(frame, limit=1)
    return "".join(parts)[:MAX_STACKS]
