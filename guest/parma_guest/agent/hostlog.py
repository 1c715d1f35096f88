"""The agent's log. Every line goes to the host's eyes, so none goes anywhere until the policy allows it
(`runtime_logging`)."""

from __future__ import annotations

import logging
import os
import re
from typing import Final

MAX_LINE: Final = 240
_NOT_PRINTABLE: Final = re.compile(r"[^ -~]")
CONSOLE: Final = 2


def say(text: str, fd: int = CONSOLE) -> None:
    """A line on the console, whatever the policy says: for texts that the agent's own code holds whole."""
    line = _NOT_PRINTABLE.sub("?", f"parma: {text}")[:MAX_LINE]
    try:
        os.write(fd, f"{line}\n".encode())
    except OSError:
        return


class HostLog(logging.Handler):
    """Drops records until `allow`."""

    def __init__(self, fd: int = CONSOLE) -> None:
        super().__init__()
        self._fd = fd
        self._allowed = False

    def allow(self) -> None:
        """The policy lets the agent log to the host."""
        self._allowed = True

    def emit(self, record: logging.LogRecord) -> None:
        """One short line; tracebacks keep their last frame only."""
        if not self._allowed:
            return
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            trace = error.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            where = (
                "" if trace is None else f" at {trace.tb_frame.f_code.co_name}:{trace.tb_lineno}"
            )
            text = f"{text} ({type(error).__name__}{where})"
        say(f"{record.levelname.lower()} {text}", self._fd)


def install(handler: HostLog) -> None:
    """Make it the only handler."""
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.raiseExceptions = False
