"""What a decision costs over an empty query on the same socket, by point, containers in the policy and started."""

from __future__ import annotations

import asyncio
import hashlib
import statistics
import tempfile
from pathlib import Path
from typing import Final

from parma_api.policy.decision import PointRequest
from parma_api.policy.gate import DEVICES, Gate
from parma_api.policy.metadata import Metadata
from parma_api.policy.opa import OpaEngine, OpaLoader
from parma_api.policy.sidecar import find_opa
from tests.bench.row import Limit, Row, Rows, in_turns_async, row, scaled
from tests.policy import group

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 300
WARM_UP = 20
MANY: Final = 100
_LARGE: Final = frozenset({"mount_overlay", "create_container"})
_SMALL_MS, _LARGE_MS = 1.0, 4.0
"""What a decision may cost over an empty query, with MANY containers in the policy and as many started."""
_TAIL: Final = 5.0
"""The 99th percentile over the median, on an idle machine: where the empty query keeps it."""


async def started_group(loader: OpaLoader, containers: int, started: int) -> Gate:
    """A gate whose group runs `started` of the policy's `containers`."""
    gate = Gate(loader)
    text = group.policy(containers)
    await gate.set_policy(text, hashlib.sha256(text).digest())
    for index in range(started):
        for request in (
            group.mount_device(index, 0),
            group.mount_device(index, 1),
            group.mount_overlay(index),
        ):
            await _carry_out(gate, DEVICES, request)
        await _carry_out(gate, group.container_id(index), group.create(index))
    return gate


async def _carry_out(gate: Gate, queue: str, request: PointRequest) -> None:
    async with gate.transaction(queue, [request], asyncio.get_running_loop().time() + 30):
        pass


async def _measure(loader: OpaLoader, containers: int, started: int) -> Rows:
    gate = await started_group(loader, containers, started)
    engine = gate._engine
    assert isinstance(engine, OpaEngine)
    spare, other = 0, "e" * 64
    # Requests that are decided and not carried out: the state stays as it is, and no patch is part of the figure.
    questions = {
        "mount_device": PointRequest(
            group.Point.MOUNT_DEVICE,
            {**group.mount_device(spare, 0).input, "target": "/run/mounts/scsi/m9999"},
        ),
        "unmount_device": group.unmount_device(spare, 0),
        "mount_overlay": group.mount_overlay(spare, other),
        "exec_in_container": group.execute(spare),
        "signal_container_process": group.signal(spare),
        "shutdown_container": group.shutdown(spare),
    }
    metadata = gate.metadata()
    await _carry_out(gate, DEVICES, group.mount_overlay(spare, other))
    overlaid = gate.metadata()
    rows: Rows = []

    async def nothing() -> None:
        await engine._undisturbed(lambda: engine._ask("versions", {}))

    async def decide(request: PointRequest, over: Metadata) -> None:
        await gate.decide(gate.prepare(request), over)

    for name, request in {**questions, "create_container": group.create(spare, other)}.items():
        over = overlaid if name == "create_container" else metadata
        empty, taken = await in_turns_async(
            ROUNDS, nothing, lambda r=request, o=over: decide(r, o), warm_up=WARM_UP
        )
        full = containers == started == MANY
        limit = Limit(over=_LARGE_MS if name in _LARGE else _SMALL_MS) if full else None
        title = f"policy.{name}.{containers}x{group.RULES}.started{started}"
        rows += _rows(title, scaled(taken, 1e3), scaled(empty, 1e3), limit)
    await gate.close()
    return rows


def _rows(name: str, taken: list[float], empty: list[float], limit: Limit | None) -> Rows:
    """The median over an empty query's; of the full group the 99th percentile over the median too."""
    first = row(name, "ms", taken, "empty query", empty, limit)
    if limit is None:
        return [first]
    ratio, undisturbed = _late(taken), _late(empty) <= _TAIL
    tail = Row(
        f"{name}.p99" + ("" if undisturbed else ".busy_machine"),
        first.value * ratio,
        "ms",
        "its median",
        first.value,
        len(taken),
        ratio,
        ratio,
        ratio,
        Limit(ratio=_TAIL) if undisturbed else None,
    )
    return [first, tail]


def _late(values: list[float]) -> float:
    """The 99th percentile over the median."""
    return sorted(values)[int(len(values) * 0.99)] / statistics.median(values)


def run() -> Rows:
    """Rows for `make bench`."""

    async def main() -> Rows:
        rows: Rows = []
        with tempfile.TemporaryDirectory(prefix="pg") as folder:
            loader = OpaLoader(find_opa(), ROOT / "policy_bundles", Path(folder))
            for containers, started in ((1, 1), (10, 1), (MANY, 1), (MANY, MANY)):
                rows += await _measure(loader, containers, started)
        return rows

    return asyncio.run(main())
