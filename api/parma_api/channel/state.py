"""What a session keeps of one stream, and of those that are over."""

from __future__ import annotations

from collections import deque

from parma_api.channel.buffer import ReceiveBuffer


class StreamState:
    """One stream. It is over when both directions are finished and all that came was taken, or after a reset."""

    __slots__ = (
        "allowance",
        "credit",
        "fin_due",
        "fin_received",
        "fin_sent",
        "granting",
        "opened",
        "queue",
        "queued",
        "received",
        "stream_id",
        "window",
    )

    def __init__(self, stream_id: int, credit: int, window: int) -> None:
        self.stream_id = stream_id
        self.opened = False
        """Here. The peer may be ahead of us: what it sends then waits."""
        self.credit = credit
        """Bytes that we may still send."""
        self.queue: deque[memoryview] = deque()
        self.queued = 0
        self.fin_due = self.fin_sent = self.fin_received = False
        self.window = window
        self.allowance = window
        """Bytes that the peer may still send."""
        self.granting = 0
        """Bytes taken by the reader for which no credit was given back yet."""
        self.received = ReceiveBuffer()

    @property
    def sendable(self) -> bool:
        return bool(self.queue) and self.credit > 0

    @property
    def at_end(self) -> bool:
        """The peer has finished, and all was taken."""
        return self.fin_received and not self.received.size

    @property
    def over(self) -> bool:
        return self.fin_sent and self.at_end and self.opened


class DoneIds:
    """The ids whose streams are over: all odd ones up to a floor, and single ones above it."""

    def __init__(self) -> None:
        self._floor = -1
        self._above: set[int] = set()

    def __contains__(self, stream_id: int) -> bool:
        return (stream_id % 2 == 1 and stream_id <= self._floor) or stream_id in self._above

    def add(self, stream_id: int) -> None:
        self._above.add(stream_id)
        while self._floor + 2 in self._above:
            self._floor += 2
            self._above.discard(self._floor)
