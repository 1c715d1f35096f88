"""Blocking work in a thread of its own, with a deadline and an answer to cancellation.

An action that hangs in the kernel (a disk that never answers) cannot be ended; its thread is left behind, and the
group is declared inconsistent, because nobody knows what the action may still do.
"""

from __future__ import annotations

import asyncio
import enum
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from parma_api.status import ApiError, Code
from parma_guest.ops import UndoFailedError

Result = TypeVar("Result")
GRACE = 10.0
"""Seconds that an action gets beyond its own deadline before it counts as hung."""


class _Stage(enum.Enum):
    RUNNING = 1
    ABANDONED = 2
    DONE = 3


class AbandonedError(ApiError):
    """The caller went away while the action ran; the action takes itself back."""

    code = Code.CANCELLED


class Job(Generic[Result]):
    """One action. It calls `finish` behind its last effect, which fails if the caller has gone, so that everything is
    undone; what cannot be undone calls it before its first effect, and is then carried through.
    """

    def __init__(self, work: Callable[[Callable[[], None]], Result]) -> None:
        self._work = work
        self._stage = _Stage.RUNNING
        self._lock = threading.Lock()

    def _advance(self, stage: _Stage) -> bool:
        with self._lock:
            if self._stage is not _Stage.RUNNING:
                return False
            self._stage = stage
            return True

    def abandon(self) -> bool:
        """Tell the action to take itself back; False if it is done."""
        return self._advance(_Stage.ABANDONED)

    def finish(self) -> None:
        """From here on the action counts as done. Raises AbandonedError."""
        if not self._advance(_Stage.DONE):
            raise AbandonedError("cancelled by the caller, undone")

    def start(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Result]:
        """Run in a new thread; the future is of `loop`."""
        future: asyncio.Future[Result] = loop.create_future()

        def settle(result: Result | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def run() -> None:
            result: Result | None = None
            failure: BaseException | None = None
            try:
                result = self._work(self.finish)
            except BaseException as error:  # noqa: BLE001 (raised again by the future)
                failure = error
            try:
                loop.call_soon_threadsafe(settle, result, failure)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return

        threading.Thread(target=run, name="storage", daemon=True).start()
        return future


async def run_blocking(work: Callable[[Callable[[], None]], Result], timeout: float) -> Result:
    """The result of `work(finish)`, which runs in a thread and has `timeout` seconds.

    On cancellation the action is undone, waited for, and the cancellation goes on; one that was already done
    stays done and its result is returned, because the books must say so. Raises UndoFailedError if it hangs.
    """
    job = Job(work)
    future = job.start(asyncio.get_running_loop())
    try:
        done, _ = await asyncio.wait({future}, timeout=timeout + GRACE)
    except asyncio.CancelledError:
        undone = job.abandon()
        await _outlast(future, timeout + GRACE)
        if undone:
            if isinstance(failure := future.exception(), UndoFailedError):
                raise failure from None
            raise
        return future.result()
    if not done:
        job.abandon()
        future.add_done_callback(lambda late: late.exception())
        raise UndoFailedError("an action on a device hangs in the kernel; the group is unusable")
    return future.result()


async def _outlast(future: asyncio.Future[Result], timeout: float) -> None:
    """Wait for the action although the caller is cancelled, again if it is cancelled again."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while not future.done():
        left = deadline - loop.time()
        if left <= 0:
            future.add_done_callback(lambda late: late.exception())
            raise UndoFailedError(
                "an action on a device hangs in the kernel; the group is unusable"
            )
        try:
            await asyncio.wait({future}, timeout=left)
        except asyncio.CancelledError:
            continue
