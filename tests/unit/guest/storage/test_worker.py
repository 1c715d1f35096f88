"""Blocking work: results, errors, cancellation at every moment, and hanging for ever (K24)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from parma_api.status import InternalError
from parma_guest import ops
from parma_guest.storage import worker
from parma_guest.storage.worker import AbandonedError, run_blocking

Finish = Callable[[], None]


class Gate:
    """Work that waits for the test, and says what became of it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go = threading.Event()
        self.journal: list[str] = []

    def undoable(self, finish: Finish) -> str:
        self.entered.set()
        self.go.wait(10)
        try:
            finish()
        except AbandonedError:
            self.journal.append("undone")
            raise
        self.journal.append("done")
        return "result"

    def carried_through(self, finish: Finish) -> str:
        finish()
        self.entered.set()
        self.go.wait(10)
        self.journal.append("done")
        return "result"


async def entered(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.entered.wait, 10)


async def test_result_and_error() -> None:
    def fails(finish: Finish) -> None:
        raise InternalError("planted")

    gate = Gate()
    gate.go.set()
    assert await run_blocking(gate.undoable, 5) == "result"
    with pytest.raises(InternalError, match="planted"):
        await run_blocking(fails, 5)


async def test_cancellation_is_undone_before_it_goes_on() -> None:
    gate = Gate()
    task = asyncio.ensure_future(run_blocking(gate.undoable, 5))
    await entered(gate)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done(), "it waits for the undo"
    gate.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gate.journal == ["undone"]


async def test_a_second_cancellation_does_not_cut_the_undo_short() -> None:
    gate = Gate()
    task = asyncio.ensure_future(run_blocking(gate.undoable, 5))
    await entered(gate)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    gate.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gate.journal == ["undone"]


async def test_what_cannot_be_undone_is_carried_through() -> None:
    gate = Gate()
    task = asyncio.ensure_future(run_blocking(gate.carried_through, 5))
    await entered(gate)
    task.cancel()
    await asyncio.sleep(0)
    gate.go.set()
    assert await task == "result"
    assert gate.journal == ["done"]


async def test_an_undo_that_fails_wins_over_the_cancellation() -> None:
    gate = Gate()

    def work(finish: Finish) -> None:
        gate.entered.set()
        gate.go.wait(10)
        raise ops.UndoFailedError("planted")

    task = asyncio.ensure_future(run_blocking(work, 5))
    await entered(gate)
    task.cancel()
    gate.go.set()
    with pytest.raises(ops.UndoFailedError, match="planted"):
        await task


async def test_what_hangs_is_given_up_and_makes_the_group_inconsistent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "GRACE", 0.05)
    gate = Gate()
    with pytest.raises(ops.UndoFailedError, match="hangs"):
        await run_blocking(gate.undoable, 0.05)
    gate.go.set()
    for _ in range(1000):
        if gate.journal:
            break
        await asyncio.sleep(0.01)
    assert gate.journal == ["undone"], "late work takes itself back"


async def test_what_hangs_while_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "GRACE", 0.05)
    gate = Gate()
    task = asyncio.ensure_future(run_blocking(gate.undoable, 0.05))
    await entered(gate)
    task.cancel()
    with pytest.raises(ops.UndoFailedError, match="hangs"):
        await task
    gate.go.set()
