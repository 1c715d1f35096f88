"""Messages that have come for one stream and wait for whoever reads them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from parma_api.status import ApiError, ResourceExhaustedError

MAX_MESSAGES: Final = 1024
MAX_BYTES: Final = 8 << 20


class Inbox:
    """A bounded queue that ends well or with an error. The connection's reader never waits for it."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._ended = False
        self._error: ApiError | None = None
        self._changed = asyncio.Event()

    def put(self, payload: bytes) -> None:
        """Raises ResourceExhaustedError when the reader is too far behind; the stream must then be given up."""
        self._bytes += len(payload)
        if len(self._messages) >= MAX_MESSAGES or self._bytes > MAX_BYTES:
            raise ResourceExhaustedError(
                "messages of this stream are not being read: stream given up"
            )
        self._messages.append(payload)
        self._changed.set()

    def end(self, error: ApiError | None = None) -> None:
        """No more will come. An error is raised after what came before it; the first end counts."""
        if not self._ended:
            self._ended = True
            self._error = error
            self._changed.set()

    async def get(self) -> bytes | None:
        """The next message; None at a good end. Raises the error of a bad one."""
        while not self._messages:
            if self._ended:
                if self._error is not None:
                    raise self._error
                return None
            self._changed.clear()
            await self._changed.wait()
        payload = self._messages.popleft()
        self._bytes -= len(payload)
        return payload
