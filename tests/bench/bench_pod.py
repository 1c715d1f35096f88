"""A pod's start through CRI, by phase and against runc in the same containerd; memory of what serves it on the host."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from parma_shim.demo import images
from parma_shim.demo.group import Member
from tests.bench.cluster import Cluster, cluster, resident_mib
from tests.bench.row import Row, Rows, row

ROUNDS: Final = 5
BOX: Final = Member("box", images.BUSYBOX, ("/bin/sleep", "1000"))
GUEST_MIB: Final = 2048
"""What a pod's machine has unless it asks for more."""


def _timed(run: Cluster, handler: str, policy: bytes | None = None) -> tuple[str, float]:
    begin = time.perf_counter()
    pod = run.run_pod(handler, BOX, policy=policy)
    return pod, time.perf_counter() - begin


def _state(run: Cluster, pod: str) -> dict[str, int]:
    for path in (run.daemon.folder / "run").glob("*/state.json"):
        state: dict[str, int] = json.loads(path.read_text())
        if state.get("sandbox_id") == pod:
            return state
    raise AssertionError(f"no state of pod {pod}")


def _runc_shim(pod: str) -> int:
    """The process id of the runc shim that serves a pod."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"containerd-shim-runc-v2") and pod.encode() in words:
            return int(path.parent.name)
    raise AssertionError(f"no runc shim of pod {pod}")


def _phase_rows(phases: Sequence[dict[str, float]], whole: Sequence[float]) -> Rows:
    names = dict.fromkeys(name for found in phases for name in found)
    rows = [
        row(
            f"pod.start.{name}",
            "s",
            [found.get(name, 0.0) for found in phases],
            "whole start",
            whole,
        )
        for name in names
    ]
    inside = [sum(found.values()) for found in phases]
    rest = [total - part for total, part in zip(whole, inside, strict=True)]
    return [*rows, row("pod.start.containerd_cni_shim", "s", rest, "whole start", whole)]


def measure(run: Cluster) -> Rows:
    """Rows of pods in this containerd."""
    policy = run.policy(BOX)
    ours, runc, phases = [], [], list[dict[str, float]]()
    shims, machines, others = [], [], []
    for number in range(1 + ROUNDS):  # the first converts the layer and is dropped
        run.phases()
        pod, seconds = _timed(run, "parma", policy)
        found, state = run.phases(), _state(run, pod)
        resident = resident_mib(state["shim_pid"]), resident_mib(state["vmm_pid"])
        run.remove_pod(pod)
        pod, beside = _timed(run, "runc")
        other = resident_mib(_runc_shim(pod))
        run.remove_pod(pod)
        if number:
            ours.append(seconds)
            runc.append(beside)
            phases.append(found)
            shims.append(resident[0])
            machines.append(resident[1])
            others.append(other)
    return [
        row("pod.start", "s", ours, "runc", runc),
        *_phase_rows(phases, ours),
        row("memory.shim", "MiB", shims, "runc's shim", others),
        _share("memory.qemu", machines, "the guest's memory", GUEST_MIB),
    ]


def _share(name: str, values: Sequence[float], baseline: str, whole: float) -> Row:
    value = statistics.median(values)
    return Row(
        name,
        value,
        "MiB",
        baseline,
        whole,
        len(values),
        value / whole,
        min(values) / whole,
        max(values) / whole,
    )


def run() -> Rows:
    """Rows for `make bench`."""
    with cluster() as made:
        return measure(made)
