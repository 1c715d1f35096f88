"""The host's wishes for memory, processors and processes, within what the VM has. Pure, but for `machine`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from parma_api.status import InvalidArgumentError
from parma_guest.linux.cgroup import Limits, weight_of_shares
from parma_guest.oci.parse import ResourceRequest

MIN_MEMORY: Final = 4 << 20
"""Below this, a container cannot even be set up."""
PERIOD: Final = 100_000
_PERIODS: Final = (1_000, 1_000_000)
_MIN_QUOTA: Final = 1_000
_MAX_PIDS: Final = 4_194_304
_CPU_LIST: Final = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*")


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is: bytes and processors."""

    memory: int
    cpus: int


def machine() -> Machine:
    """This VM."""
    return Machine(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), os.cpu_count() or 1)


def bounded(request: ResourceRequest, has: Machine) -> Limits:
    """The limits to put in force; None: not stated, -1: none. Raises InvalidArgumentError."""
    return Limits(
        memory_max=_memory(request.memory_limit, has),
        memory_low=_memory(request.memory_reservation, has),
        cpu_weight=weight_of_shares(request.cpu_shares) if request.cpu_shares > 0 else None,
        cpu_quota=_quota(request, has),
        cpu_period=_period(request.cpu_period),
        cpus=_cpus(request.cpus, has),
        pids_max=_pids(request.pids_limit),
    )


def _memory(value: int, has: Machine) -> int | None:
    if value <= 0:
        return -1 if value < 0 else None
    return min(max(value, MIN_MEMORY), has.memory)


def _period(value: int) -> int:
    low, high = _PERIODS
    return min(max(value, low), high) if value > 0 else PERIOD


def _quota(request: ResourceRequest, has: Machine) -> int | None:
    if request.cpu_quota <= 0:
        return -1 if request.cpu_quota < 0 else None
    return min(max(request.cpu_quota, _MIN_QUOTA), _period(request.cpu_period) * has.cpus)


def _pids(value: int) -> int | None:
    if value <= 0:
        return -1 if value < 0 else None
    return min(value, _MAX_PIDS)


def _cpus(text: str, has: Machine) -> str | None:
    """Those that the VM has; the host's own numbering means nothing here, so none of them is no limit."""
    if not text:
        return None
    if not _CPU_LIST.fullmatch(text) or len(text) > 1024:
        raise InvalidArgumentError(f"cpus: {text[:64]!r} is no list of processors")
    wanted: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        wanted.update(range(int(first), min(int(last or first), has.cpus) + 1))
    found = sorted(number for number in wanted if number < has.cpus)
    return ",".join(map(str, found)) if found else None


def oci_resources(limits: Limits) -> dict[str, object]:
    """`limits` as members of `linux.resources`; what is not stated is left out."""
    memory = {
        name: value
        for name, value in (("limit", limits.memory_max), ("reservation", limits.memory_low))
        if value is not None and value > 0
    }
    found: dict[str, object] = {"memory": memory} if memory else {}
    unified: dict[str, str] = {}
    if limits.cpu_weight is not None:
        unified["cpu.weight"] = str(limits.cpu_weight)
    cpu: dict[str, object] = {}
    if limits.cpu_quota is not None and limits.cpu_quota > 0:
        cpu = {"quota": limits.cpu_quota, "period": limits.cpu_period}
    if limits.cpus is not None:
        cpu["cpus"] = limits.cpus
    found |= {"cpu": cpu} if cpu else {}
    found |= {"unified": unified} if unified else {}
    if limits.pids_max is not None and limits.pids_max > 0:
        found["pids"] = {"limit": limits.pids_max}
    return found
