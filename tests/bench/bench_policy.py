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


async def _times(action: Callable[[], Awaitable[object]]) -> list[float]:
    for _ in range(20):
        await action()
    taken = []
    for _ in range(ROUNDS):
        before = time.perf_counter()
        await action()
        taken.append((time.perf_counter() - before) * 1000)
    return taken


def _percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


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
    empty: list[float] = []

    async def nothing() -> None:
        await engine._undisturbed(lambda: engine._ask("versions", {}))

    async def decide(request: PointRequest, over: Metadata) -> None:
        await gate.decide(gate.prepare(request), over)

    for name, request in {**questions, "create_container": GROUP.create(spare, other)}.items():
        over = overlaid if name == "create_container" else metadata
        empty = await _times(nothing)
        taken = await _times(lambda request=request, over=over: decide(request, over))
        rows.append(
            _row(f"policy.{name}.{containers}x{GROUP.RULES}.started{started}", taken, empty)
        )
    await gate.close()
    return rows


def _row(name: str, taken: list[float], empty: list[float]) -> dict[str, Any]:
    middle, base = statistics.median(taken), statistics.median(empty)
    return {
        "name": name,
        "value": round(middle, 3),
        "unit": "ms",
        "baseline": {"name": "empty query", "value": round(base, 3)},
        "ratio": round(middle / base, 3),
        "n": len(taken),
        "low": round(_percentile(taken, 0.025) / base, 3),
        "high": round(_percentile(taken, 0.975) / base, 3),
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
