"""The transcript: every decision since the policy was set, each entry bound to all before it. Pure.

    head 0        SHA-256("parma transcript 1\\n")
    entry n       canonical JSON of the decision record: sorted names, no white space, UTF-8
    head n        SHA-256(head n-1 || SHA-256(entry n))

A report over a head proves what the group was asked and what it answered. The chain covers every decision; of the
entries the newest are kept, and `base` is the head before the first of them.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from parma_api.policy.decision import DecisionRecord

START: Final = hashlib.sha256(b"parma transcript 1\n").digest()
MAX_BYTES: Final = 8 << 20
"""Of the entries that are kept."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a verifier replays: the head before the first entry, how many came before it, and the entries."""

    base: bytes
    skipped: int
    entries: tuple[bytes, ...]
    head: bytes


def encode(sequence: int, record: DecisionRecord) -> bytes:
    """An entry's bytes."""
    document = {
        "sequence": sequence,
        "point": str(record.point),
        "allowed": record.allowed,
        "reason_codes": list(record.reason_codes),
        "generation": record.metadata_generation,
        "input": record.input,
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode(errors="replace")


def link(head: bytes, entry: bytes) -> bytes:
    """The head after `entry`."""
    return hashlib.sha256(head + hashlib.sha256(entry).digest()).digest()


def replay(base: bytes, entries: Iterable[bytes]) -> bytes:
    """The head after all of `entries`."""
    head = base
    for entry in entries:
        head = link(head, entry)
    return head


def encode_file(kept: Kept) -> bytes:
    """As `parma attest verify --transcript` reads it."""
    document = {
        "format": 1,
        "skipped": kept.skipped,
        "base": kept.base.hex(),
        "entries": [entry.decode() for entry in kept.entries],
        "head": kept.head.hex(),
    }
    return json.dumps(document, ensure_ascii=False).encode()


class Transcript:
    """Grows with each decision; give `record` to the gate as an observer."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._entries: deque[bytes] = deque()
        self._size = 0
        self._base = self.head = START
        self.count = 0
        """Decisions so far."""

    def record(self, record: DecisionRecord) -> None:
        """Add a decision."""
        entry = encode(self.count, record)
        self.count += 1
        self.head = link(self.head, entry)
        self._entries.append(entry)
        self._size += len(entry)
        while self._size > self._max_bytes and len(self._entries) > 1:
            oldest = self._entries.popleft()
            self._size -= len(oldest)
            self._base = link(self._base, oldest)

    def kept(self) -> Kept:
        """What can be replayed."""
        skipped = self.count - len(self._entries)
        return Kept(self._base, skipped, tuple(self._entries), self.head)
