"""What a decision costs over an empty query on the same socket, by point, containers in the policy and started."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from parma_api.policy.decision import PointRequest
from parma_api.policy.gate import DEVICES, Gate
from parma_api.policy.metadata import Metadata
from parma_api.policy.opa import OpaEngine, OpaLoader
from parma_api.policy.sidecar import find_opa

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 300
WARM_UP = 20


def _group() -> Any:
    spec = importlib.util.spec_from_file_location(
        "bench_policy_group", ROOT / "tests" / "policy" / "group.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


GROUP = _group()


async def started_group(loader: OpaLoader, containers: int, started: int) -> Gate:
    """A gate whose group runs `started` of the policy's `containers`."""
    gate = Gate(loader)
    text = GROUP.policy(containers)
    await gate.set_policy(text, hashlib.sha256(text).digest())
    for index in range(started):
        for request in (
            GROUP.mount_device(index, 0),
            GROUP.mount_device(index, 1),
            GROUP.mount_overlay(index),
        ):
            await _carry_out(gate, DEVICES, request)
        await _carry_out(gate, GROUP.container_id(index), GROUP.create(index))
    return gate


async def _carry_out(gate: Gate, queue: str, request: PointRequest) -> None:
    async with gate.transaction(queue, [request], asyncio.get_running_loop().time() + 30):
        pass


async def _times(
    action: Callable[[], Awaitable[object]], baseline: Callable[[], Awaitable[object]]
) -> tuple[list[float], list[float]]:
    """Milliseconds of both, taken in turns: what else the machine does meets them alike."""
    taken: list[float] = []
    empty: list[float] = []
    for _ in range(WARM_UP + ROUNDS):
        for work, times in ((baseline, empty), (action, taken)):
            before = time.perf_counter()
            await work()
            times.append((time.perf_counter() - before) * 1000)
    return taken[WARM_UP:], empty[WARM_UP:]


def _percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def _median_bounds(values: list[float]) -> tuple[float, float]:
    """95 % bounds of the median, from the order of the samples."""
    ordered, spread = sorted(values), 0.98 * len(values) ** 0.5
    middle = len(values) / 2
    return ordered[int(middle - spread)], ordered[int(middle + spread)]


async def _measure(loader: OpaLoader, containers: int, started: int) -> list[dict[str, Any]]:
    gate = await started_group(loader, containers, started)
    engine = gate._engine
    assert isinstance(engine, OpaEngine)
    spare, other = 0, "e" * 64
    # Requests that are decided and not carried out: the state stays as it is, and no patch is part of the figure.
    questions = {
        "mount_device": PointRequest(
            GROUP.Point.MOUNT_DEVICE,
            {**GROUP.mount_device(spare, 0).input, "target": "/run/mounts/scsi/m9999"},
        ),
        "unmount_device": GROUP.unmount_device(spare, 0),
        "mount_overlay": GROUP.mount_overlay(spare, other),
        "exec_in_container": GROUP.execute(spare),
        "signal_container_process": GROUP.signal(spare),
        "shutdown_container": GROUP.shutdown(spare),
    }
    metadata = gate.metadata()
    await _carry_out(gate, DEVICES, GROUP.mount_overlay(spare, other))
    overlaid = gate.metadata()
    rows = []

    async def nothing() -> None:
        await engine._undisturbed(lambda: engine._ask("versions", {}))

    async def decide(request: PointRequest, over: Metadata) -> None:
        await gate.decide(gate.prepare(request), over)

    for name, request in {**questions, "create_container": GROUP.create(spare, other)}.items():
        over = overlaid if name == "create_container" else metadata
        taken, empty = await _times(
            lambda request=request, over=over: decide(request, over), nothing
        )
        rows.append(
            _row(f"policy.{name}.{containers}x{GROUP.RULES}.started{started}", taken, empty)
        )
    await gate.close()
    return rows


def _row(name: str, taken: list[float], empty: list[float]) -> dict[str, Any]:
    middle, base = statistics.median(taken), statistics.median(empty)
    (low, high), (base_low, base_high) = _median_bounds(taken), _median_bounds(empty)
    return {
        "name": name,
        "value": round(middle, 3),
        "unit": "ms",
        "baseline": {"name": "empty query", "value": round(base, 3)},
        "ratio": round(middle / base, 3),
        "n": len(taken),
        "low": round(low / base_high, 3),
        "high": round(high / base_low, 3),
        "p99": round(_percentile(taken, 0.99), 3),
    }


def run() -> list[dict[str, Any]]:
    """Rows for `make bench`."""

    async def main() -> list[dict[str, Any]]:
        rows = []
        with tempfile.TemporaryDirectory(prefix="pg") as folder:
            loader = OpaLoader(find_opa(), ROOT / "policy_bundles", Path(folder))
            for containers, started in ((1, 1), (10, 1), (100, 1), (100, 100)):
                rows += await _measure(loader, containers, started)
        return rows

    return asyncio.run(main())


if __name__ == "__main__":
    for row in run():
        over = row["value"] - row["baseline"]["value"]
        print(
            f"{row['name']:60} p50 {row['value']:7.3f} p99 {row['p99']:7.3f} over empty {over:+.3f} ms"
        )
