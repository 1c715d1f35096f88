"""Tells a person what happens: numbered steps, facts below them, one line for each refusal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_BOLD, _DIM, _GREEN, _RED, _PLAIN = "\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m"


class Narrator:
    """Writes to a stream; colours only on a terminal."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        self._colour = stream.isatty()
        self._number = 0
        self._began = time.monotonic()

    def _write(self, text: str, style: str = "") -> None:
        body = f"{style}{text}{_PLAIN}" if style and self._colour else text
        self._stream.write(body + "\n")
        self._stream.flush()

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """A numbered step; says how long it took, or that it failed."""
        self._number += 1
        self._write(f"\n{self._number}. {title}", _BOLD)
        began = time.monotonic()
        try:
            yield
        except BaseException:
            self._write("   this step did not do what it says", _RED)
            raise
        self._write(f"   done in {time.monotonic() - began:.1f} s", _DIM)

    def say(self, text: str) -> None:
        """A fact below the current step."""
        for line in text.rstrip().splitlines():
            self._write(f"   {line}")

    def refused(self, what: str, reason: str) -> None:
        """One attack, and what the guest said."""
        self._write(f"   refused: {what}", _GREEN)
        self._write(f"            {reason}", _DIM)

    def end(self, text: str) -> None:
        """The last line."""
        self._write(f"\n{text} ({time.monotonic() - self._began:.0f} s in all)", _BOLD)
