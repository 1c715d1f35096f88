"""Whose frame is next: round robin, but calls wait for one frame of anybody else's at most."""

from __future__ import annotations

from collections import deque
from typing import Final

CONTROL: Final = 0
"""The stream of calls; all others are standard streams and ports."""


class SendOrder:
    """Streams that have something to send and may. Stream 0 has every second turn if it wants."""

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()
        self._known: set[int] = set()
        self._control_went_last = False

    def __bool__(self) -> bool:
        return bool(self._known)

    def add(self, stream_id: int) -> None:
        """Behind all others; no effect on one that waits already."""
        if stream_id not in self._known:
            self._known.add(stream_id)
            self._waiting.append(stream_id)

    def discard(self, stream_id: int) -> None:
        """It has no turn any more."""
        if stream_id in self._known:
            self._known.discard(stream_id)
            self._waiting.remove(stream_id)

    def next(self) -> int:
        """The stream that may send one frame now; it is added again for another. Raises IndexError when empty."""
        waiting = self._waiting
        if len(waiting) > 1:
            if waiting[0] == CONTROL and self._control_went_last:
                waiting.rotate(-1)
            elif waiting[0] != CONTROL and not self._control_went_last and CONTROL in self._known:
                waiting.remove(CONTROL)
                waiting.appendleft(CONTROL)
        stream_id = waiting.popleft()
        self._known.discard(stream_id)
        self._control_went_last = stream_id == CONTROL
        return stream_id
