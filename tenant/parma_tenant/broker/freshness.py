"""Challenges of the broker's own: a nonce that it can recognise later, without keeping it.

    nonce  random [12] || end u32, seconds of the epoch || HMAC-SHA256(master, label || random || end)[:16]

Brokers that share the master key recognise each other's. A claim over such a nonce was made within its lifetime.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Callable
from typing import Final

SECONDS: Final = 300
_LABEL: Final = b"parma broker challenge 1"
_END: Final = struct.Struct(">I")
_RANDOM, _TAG = 12, 16
_SIZE: Final = _RANDOM + _END.size + _TAG


class Challenges:
    """Makes and recognises nonces of 32 bytes."""

    def __init__(self, secret: bytes, clock: Callable[[], float]) -> None:
        """`clock`: seconds of the epoch."""
        self._key = hmac.digest(secret, b"parma broker challenge key", "sha256")
        self._clock = clock

    def new(self) -> bytes:
        """A nonce."""
        head = os.urandom(_RANDOM) + _END.pack(int(self._clock()) + SECONDS)
        return head + self._tag(head)

    def is_fresh(self, nonce: bytes) -> bool:
        """Whether it is ours and its time is not over."""
        if len(nonce) != _SIZE:
            return False
        head, tag = nonce[:-_TAG], nonce[-_TAG:]
        (end,) = _END.unpack_from(head, _RANDOM)
        return hmac.compare_digest(tag, self._tag(head)) and self._clock() <= end

    def _tag(self, head: bytes) -> bytes:
        return hmac.new(self._key, _LABEL + head, hashlib.sha256).digest()[:_TAG]
