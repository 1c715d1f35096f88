"""Time stamps in ext4's 64 bits: 34 bits of seconds, 30 of nanoseconds. Pure.

The reference's encoding has two oddities that the root hash depends on: for negative seconds the upper half is all
ones whatever the nanoseconds are, and 2038 to 2106 leave the epoch bits at 0 (layer format, section 7).
"""

from __future__ import annotations

from parma_api.layer.scalar import Time

ABSENT = 0
_YEAR_1 = Time(-62135596800)
"""The reference's zero time, which it cannot tell from no time."""
_MIN_SECONDS = -(1 << 31)
_MAX_SECONDS = 0x3_7FFF_FFFF
_SECONDS_BITS = 34
_MASK64 = (1 << 64) - 1
_NANO = 1_000_000_000


def encode(time: Time | None) -> int:
    """The 64 bits: the low half goes into the field, the high half into its "extra" field."""
    if time is None or time == _YEAR_1:
        return ABSENT
    if time.seconds < _MIN_SECONDS:
        return 0x8000_0000
    if time.seconds > _MAX_SECONDS:
        return _MAX_SECONDS
    return (time.seconds & _MASK64) | (time.nanoseconds << _SECONDS_BITS)


def decode(encoded: int) -> Time | None:
    """What the reference reads back: not the inverse of `encode` outside 1970 to 2038."""
    if encoded == ABSENT:
        return None
    seconds = encoded & ((1 << _SECONDS_BITS) - 1)
    if 0x7FFF_FFFF < seconds < 0x1_0000_0000:
        seconds -= 1 << 32
    carry, nanoseconds = divmod(encoded >> _SECONDS_BITS, _NANO)
    return Time(seconds + carry, nanoseconds)


def round_trip(encoded: int) -> int:
    """What becomes of a time that an implied parent takes from its own parent."""
    return encode(decode(encoded))
