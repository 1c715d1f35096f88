"""A container's layers are sought while its VM boots: neither waits for the other in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TypeVar

from parma_shim.sandbox.ports import Layer

T = TypeVar("T")
F = TypeVar("F")


async def unless_failed(work: Coroutine[object, object, T], finding: asyncio.Future[F]) -> T:
    """`work`, ended as soon as `finding` has failed: nobody waits for the boot of a VM that will run nothing."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait((task, finding), return_when=asyncio.FIRST_EXCEPTION)
        failed = finding.done() and not finding.cancelled() and finding.exception() is not None
        if not failed or task.done():
            return await task
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait((task,))
        raise
    task.cancel()
    await asyncio.wait((task,))
    finding.result()
    raise AssertionError("unreachable: `finding` has failed")


async def drop_layers(finding: asyncio.Future[Sequence[Layer]]) -> None:
    """Of a container that was not created: found or still being converted."""
    finding.cancel()
    await asyncio.wait((finding,))
    if not finding.cancelled() and finding.exception() is None:
        for layer in finding.result():
            layer.close()
