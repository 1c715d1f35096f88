"""Reads, unpacks and hashes the tar a few chunks ahead, in a thread of its own.

hashlib and zlib let other threads run while they work, so the tar's digest costs nothing where there is a second core.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from parma_api.ids import DiffId
from parma_api.layer.errors import DiskFullError

_AHEAD = 6
"""Chunks: enough to even out large and small files, and 3 MiB of memory."""


class Prefetch:
    """A context: inside it `chunks` gives what the iterator gives, and after the last one `diff_id` is known."""

    def __init__(self, chunks: Iterator[bytes], max_bytes: int) -> None:
        self._source = chunks
        self._max_bytes = max_bytes
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_AHEAD)
        self._stopped = threading.Event()
        self._hash = hashlib.sha256()
        self._thread = threading.Thread(target=self._run, name="layer-prefetch", daemon=True)

    def __enter__(self) -> Self:
        """Starts reading."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops reading; when it returns, the source is no longer touched."""
        self._stopped.set()
        while self._thread.is_alive():
            self._drop_one()
        self._thread.join()

    def chunks(self) -> Iterator[bytes]:
        """The chunks in order. Raises what the source raises, and DiskFullError for a tar beyond the limit."""
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    @property
    def diff_id(self) -> DiffId:
        """The digest of all chunks; only after the last one."""
        return DiffId(f"sha256:{self._hash.hexdigest()}")

    def _run(self) -> None:
        left = self._max_bytes
        try:
            for chunk in self._source:
                left -= len(chunk)
                self._check_size(left)
                self._queue.put(chunk)
                if self._stopped.is_set():
                    return
                self._hash.update(chunk)
            self._queue.put(None)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that reads the queue
            self._queue.put(error)

    def _check_size(self, left: int) -> None:
        if left < 0:
            raise DiskFullError(f"the layer's tar has more than {self._max_bytes} bytes")

    def _drop_one(self) -> None:
        try:
            self._queue.get(timeout=0.01)
        except queue.Empty:
            return
