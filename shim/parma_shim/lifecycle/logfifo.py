"""Log lines into the bundle's `log` FIFO, which containerd copies to its own log.

While containerd is down nobody reads it: a line that does not fit at once is dropped, and the FIFO is opened anew with
a later one. Each line is one write of at most 4096 bytes (PIPE_BUF), so lines do not mix.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time

MAX_LINE = 4096


class FifoHandler(logging.Handler):
    """Writes logfmt lines as containerd's own shims do."""

    def __init__(self, path: str, context: str) -> None:
        """`context`: what follows each message, `id=... namespace=...`."""
        super().__init__()
        self._path = path
        self._context = context
        self._fd = -1
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Never blocks, never raises."""
        try:
            line = self.format_line(record)
        except Exception:  # noqa: BLE001 -- a bad format string must not end a handler of requests
            line = b'level=error msg="a log line that cannot be formatted"\n'
        if not self._write(line):
            self.dropped += 1

    def close(self) -> None:
        """Lets go of the FIFO."""
        self._forget()
        super().close()

    def format_line(self, record: logging.LogRecord) -> bytes:
        """One line, printable, cut to MAX_LINE."""
        message = record.getMessage()
        if record.exc_info:
            message += " | " + logging.Formatter().formatException(record.exc_info)
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        head = f'time="{at}" level={record.levelname.lower()} msg="'.encode()
        tail = f'" {self._context}\n'.encode()
        body = _escaped(message).encode(errors="replace")[: MAX_LINE - len(head) - len(tail)]
        return head + body.rstrip(b"\\") + tail

    def _write(self, line: bytes) -> bool:
        for _ in range(2):
            if self._fd < 0 and not self._open():
                return False
            try:
                os.write(self._fd, line)
                return True
            except BlockingIOError:
                return False
            except OSError:
                self._forget()
        return False

    def _open(self) -> bool:
        with contextlib.suppress(OSError):
            self._fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            return True
        return False

    def _forget(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return "".join(c if c.isprintable() else "?" for c in text)
