"""Signals by name or number, as image configurations and Kubernetes write them (moby sys/signal)."""

from __future__ import annotations

import re
import signal
from typing import Final

_RELATIVE: Final = re.compile(r"RT(MIN|MAX)([+-][0-9]{1,2})?")
_FIRST_REAL: Final = 34
_LAST_REAL: Final = 64


def signal_number(text: str) -> int | None:
    """The number on Linux; None for what is no signal."""
    if text.isascii() and text.isdigit():
        return int(text) if len(text) < 3 and 0 < int(text) <= _LAST_REAL else None
    name = text.upper().removeprefix("SIG")
    if (relative := _RELATIVE.fullmatch(name)) is not None:
        base = _FIRST_REAL if relative[1] == "MIN" else _LAST_REAL
        number = base + int(relative[2] or 0)
        return number if _FIRST_REAL <= number <= _LAST_REAL else None
    found = signal.Signals.__members__.get(f"SIG{name}")
    return None if found is None else int(found)
