"""Resources of an Update as the agent's message; what the guest cannot bound is left out. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from parma_api.gen.parma.agent import v1
from parma_shim.errors import UsageError
from parma_shim.sandbox.document import member, parse_object, text

_MAX = 2**63 - 1


def parse_resources(data: bytes) -> v1.Resources:
    """The runtime specification's LinuxResources, JSON. Raises UsageError."""
    document = parse_object(data, "resources")
    memory, cpu, pids = (member(document, name) for name in ("memory", "cpu", "pids"))
    return v1.Resources(
        memory_limit=_number(memory, "limit"),
        memory_reservation=_number(memory, "reservation"),
        memory_swap=_number(memory, "swap"),
        cpu_shares=max(_number(cpu, "shares"), 0),
        cpu_quota=_number(cpu, "quota"),
        cpu_period=max(_number(cpu, "period"), 0),
        cpuset_cpus=text(cpu, "cpus"),
        pids_limit=_number(pids, "limit"),
    )


def _number(document: Mapping[str, object], name: str) -> int:
    value = document.get(name)
    if value is None:
        return 0
    if type(value) is not int or not -1 <= value <= _MAX:
        raise UsageError(f"resources: {name} is out of range")
    return value
