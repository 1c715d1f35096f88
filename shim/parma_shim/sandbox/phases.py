"""What a start spends its time on, for the log and for `make bench`."""

from __future__ import annotations

import time
from collections.abc import Callable


class Phases:
    """A clock that is read after each phase, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin = self._last = clock()
        self._rows: list[tuple[str, float]] = []

    def done(self, name: str) -> None:
        """The phase `name` ends now; the next one begins."""
        now = self._clock()
        self._rows.append((name, now - self._last))
        self._last = now

    def __str__(self) -> str:
        """Such as `4.500 s: network 0.010, answer 4.490`."""
        parts = ", ".join(f"{name} {seconds:.3f}" for name, seconds in self._rows)
        return f"{self._last - self._begin:.3f} s: {parts}"
