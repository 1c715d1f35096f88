"""The last bytes of a stream that nobody may make us keep whole: the console and QEMU's stderr.

A guest writes its console as it likes, so what leaves here for a log or an error is printable and bounded (K18d).
"""

from __future__ import annotations

from collections.abc import Iterator

CONSOLE_LIMIT = 64 * 1024
STDERR_LIMIT = 16 * 1024
LINE_LIMIT = 512


class Ring:
    """Keeps the last `limit` bytes, and hands out whole lines as they arrive."""

    __slots__ = ("_kept", "_limit", "_pending", "total")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._pending = bytearray()
        self.total = 0
        """Bytes ever fed."""

    def feed(self, data: bytes) -> list[str]:
        """Takes `data`; result: the lines that it completed, clean. A line of any length ends at LINE_LIMIT."""
        self.total += len(data)
        self._kept += data
        del self._kept[: max(0, len(self._kept) - self._limit)]
        self._pending += data
        return list(self._lines())

    def _lines(self) -> Iterator[str]:
        while True:
            end = self._pending.find(b"\n", 0, LINE_LIMIT + 1)
            if end < 0 and len(self._pending) <= LINE_LIMIT:
                return
            size = end + 1 if end >= 0 else LINE_LIMIT
            line = clean(bytes(self._pending[:size]))
            del self._pending[:size]
            if line:
                yield line

    def tail(self) -> str:
        """All that is kept, line by line, clean."""
        lines = (clean(line) for line in bytes(self._kept).split(b"\n"))
        return "\n".join(line for line in lines if line)

    def last_line(self) -> str:
        """The last line with something in it, or nothing."""
        return self.tail().rpartition("\n")[2]


def clean(data: bytes, limit: int = LINE_LIMIT) -> str:
    """`data` as one line of printable text of at most `limit` characters."""
    text = data.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in text[: 4 * limit]).strip()[:limit]
