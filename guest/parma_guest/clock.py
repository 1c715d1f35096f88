"""Keeps CLOCK_REALTIME right after boot and after the host was suspended, without a word from the host's software.

The real-time clock follows the host's; so the host decides what time it is in here, and can only move forward from
the image's own date. docs/threat-model.md says what follows from that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from parma_api.status import UnavailableError
from parma_guest.linux.errno import KernelError, kernel_call
from parma_guest.linux.rtc import read_rtc

_LOG = logging.getLogger(__name__)

TOLERANCE = 2.0
"""Seconds. The clock shows whole ones, so that half a second of doubt always remains."""
INTERVAL = 10.0
FLOOR = 1_700_000_000
"""The date of every file in the image: no time before it is believed."""


def correction(rtc: int, system: float) -> float | None:
    """The time to set, in seconds since the epoch; None if the system's clock is right or the RTC's is absurd."""
    best = rtc + 0.5
    if rtc < FLOOR or abs(system - best) <= TOLERANCE:
        return None
    return best


def check(
    read: Callable[[], int] = read_rtc,
    now: Callable[[], float] = time.time,
    step: Callable[[float], None] | None = None,
) -> float | None:
    """Compare once and step if needed; the step in seconds, None if there was none. Raises UnavailableError."""
    system = now()
    wanted = correction(read(), system)
    if wanted is None:
        return None
    (step or _set_realtime)(wanted)
    return wanted - system


def _set_realtime(seconds: float) -> None:
    with kernel_call("clock_settime", seconds):
        time.clock_settime(time.CLOCK_REALTIME, seconds)


async def keep_time(interval: float = INTERVAL) -> None:
    """Check for ever, every `interval` seconds; a guest without a clock is told so once."""
    while True:
        try:
            moved = await asyncio.to_thread(check)
        except (UnavailableError, KernelError) as error:
            _LOG.warning("the clock is not kept: %s", error.message)
            return
        if moved is not None:
            _LOG.warning("clock stepped by %.1f s: boot, or the host was suspended", moved)
        await asyncio.sleep(interval)
