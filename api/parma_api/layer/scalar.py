"""Numbers and times as tar headers and PAX records write them.

Python's own `int` takes underscores, spaces and digits of all scripts, and grows slow on long texts, so digits are
checked by hand. Sources: POSIX pax (ustar and extended header formats), GNU tar's base-256 extension.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from parma_api.layer.errors import TarHeaderError

MAX_INT64 = (1 << 63) - 1
_NANO = 1_000_000_000
_MAX_DIGITS = 19


class Time(NamedTuple):
    """Seconds since 1970, and 0 to 999999999 nanoseconds on top."""

    seconds: int
    nanoseconds: int = 0


def decimal(text: bytes) -> int | None:
    """A signed decimal integer of 64 bits: a sign or none, then digits only. None for anything else."""
    negative = text[:1] == b"-"
    digits = text[1:] if text[:1] in (b"-", b"+") else text
    if not digits.isdigit():
        return None
    digits = digits.lstrip(b"0")
    if len(digits) > _MAX_DIGITS:
        return None
    magnitude = int(digits or b"0")
    value = -magnitude if negative else magnitude
    return value if -MAX_INT64 - 1 <= value <= MAX_INT64 else None


def time(text: bytes) -> Time | None:
    """A PAX time: `seconds`, `seconds.` or `seconds.fraction`; digits after the ninth are cut off."""
    whole, _, fraction = text.partition(b".")
    seconds = decimal(whole)
    if seconds is None:
        return None
    if not fraction:
        return Time(seconds)
    if not fraction.isdigit():
        return None
    nanoseconds = int(fraction[:9].ljust(9, b"0"))
    if text[:1] == b"-" and nanoseconds:
        return Time(seconds - 1, _NANO - nanoseconds) if seconds > -MAX_INT64 - 1 else None
    return Time(seconds, nanoseconds)


def octal(field: bytes) -> int:
    """An octal field: NULs and spaces around it do not count, an empty one is 0. Raises TarHeaderError."""
    digits = field.strip(b"\0 ").partition(b"\0")[0]
    if digits.translate(None, b"01234567"):
        raise TarHeaderError("a number in a header is not octal")
    return int(digits, 8) if digits else 0


@functools.lru_cache(maxsize=4096)
def number(field: bytes) -> int:
    """An octal field, or a base-256 one, which the top bit of its first byte tells. Raises TarHeaderError.

    Modes, owners and zeros repeat from header to header, so the last values are kept.
    """
    if field[0] < 0x80:
        return octal(field)
    if negative := field[0] & 0x40:
        field = bytes(byte ^ 0xFF for byte in field)
    value = int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")
    if value > MAX_INT64:
        raise TarHeaderError("a number in a header does not fit in 64 bits")
    return -1 - value if negative else value
