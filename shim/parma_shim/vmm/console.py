"""The guest's serial console: the last 64 KiB in memory, each line in the log, never a reason to stop the guest."""

from __future__ import annotations

import asyncio
import logging
import socket

from parma_shim.vmm.ring import CONSOLE_LIMIT, Ring

log = logging.getLogger(__name__)

LOGGED_LINES = 2000
"""Lines that one machine may put into the log: a guest that prints for ever fills the ring only."""


class Console:
    """Reads the console's socket for as long as the machine lives."""

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self.ring = Ring(CONSOLE_LIMIT)
        self._sock = sock
        self._pid = pid
        self._lines = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._read)

    def drain(self) -> None:
        """Takes what is left in the socket after the machine's end."""
        while self._read():
            pass

    def close(self) -> None:
        """Stops reading."""
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def _read(self) -> bool:
        try:
            data = self._sock.recv(16384)
        except (BlockingIOError, ConnectionResetError):
            return False
        if not data:
            self._loop.remove_reader(self._sock)
        for line in self.ring.feed(data):
            self._lines += 1
            if self._lines <= LOGGED_LINES:
                log.debug("console[%d]: %s", self._pid, line)
        return bool(data)
