"""Device-mapper tables as text, and what the kernel shows of them afterwards. Pure.

Formats: Documentation/admin-guide/device-mapper/{verity,dm-integrity,dm-crypt}.rst. Lengths are sectors of 512 bytes.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from parma_api.block.integrity import (
    BLOCK,
    BUFFER,
    INTERLEAVE,
    SECTOR,
    SHORTEST_JOURNAL,
    TAG_BYTES,
)
from parma_api.ids import RootHash

SALT = bytes(32)
KEY_BYTES = 96
"""AES-256-XTS (64) and HMAC-SHA256 (32), in this order."""
CIPHER = "capi:authenc(hmac(sha256),xts(aes))-plain64"
PLAIN_KEY_BYTES = 64
PLAIN_CIPHER = "aes-xts-plain64"
_INTEGRITY_OPTIONS = (
    f"block_size:{BLOCK}",
    f"interleave_sectors:{INTERLEAVE}",
    f"buffer_sectors:{BUFFER}",
    "fix_padding",
)


class Mode(enum.Enum):
    """How dm-integrity writes a sector and its tag."""

    DIRECT = "D"
    """One after the other: a crash may leave them apart, which then reads as an error."""
    JOURNAL = "J"
    """Through the journal, both or neither: for what outlives the VM."""


_MODE_OPTIONS = {
    Mode.DIRECT: (f"journal_sectors:{SHORTEST_JOURNAL}",),
    Mode.JOURNAL: ("journal_watermark:50", "commit_time:10000"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """One line of a table that has one."""

    length: int
    kind: str
    parameters: str

    def describe(self) -> str:
        return f"0 {self.length} {self.kind} {self.parameters}"


def verity(device: str, data_blocks: int, root: RootHash) -> Target:
    """A layer. No option: `ignore_corruption` and `check_at_most_once` would give wrong bytes (storage.md 3)."""
    return Target(
        data_blocks * (BLOCK // SECTOR),
        "verity",
        f"1 {device} {device} {BLOCK} {BLOCK} {data_blocks} {data_blocks + 1} sha256 {root} {SALT.hex()}",
    )


def tree_blocks(data_blocks: int) -> int:
    """How many blocks verity's tree over so many data blocks has: 128 digests in a block."""
    total, level = 0, data_blocks
    while level > 1:
        level = -(-level // (BLOCK // 32))
        total += level
    return total


def integrity(device: str, sectors: int, mode: Mode = Mode.DIRECT) -> Target:
    """Room for dm-crypt's tags. Scratch has no journal: a crash ends its key's life with the VM's."""
    words = (*_MODE_OPTIONS[mode], *_INTEGRITY_OPTIONS)
    options = f"{len(words)} {' '.join(words)}"
    return Target(sectors, "integrity", f"{device} 0 {TAG_BYTES} {mode.value} {options}")


def crypt(device: str, sectors: int, key_name: str) -> Target:
    """Authenticated encryption with the keyring's logon key `key_name`."""
    key = f":{KEY_BYTES}:logon:{key_name}"
    options = f"2 integrity:{TAG_BYTES}:aead sector_size:{BLOCK}"
    return Target(sectors, "crypt", f"{CIPHER} {key} 0 {device} 0 {options}")


def crypt_plain(device: str, sectors: int, key_name: str) -> Target:
    """Encryption without tags, for what verity authenticates beneath it."""
    key = f":{PLAIN_KEY_BYTES}:logon:{key_name}"
    return Target(sectors, "crypt", f"{PLAIN_CIPHER} {key} 0 {device} 0 1 sector_size:{BLOCK}")


def same_table(want: Target, live: Target) -> bool:
    """Whether the kernel's live table is the one that was meant; every word of it counts.

    dm-integrity alone shows more than it was given: the sectors of the journal that mode D keeps unused, and the
    order of its options is its own.
    """
    if (want.length, want.kind) != (live.length, live.kind):
        return False
    if want.kind != "integrity":
        return want.parameters.split() == live.parameters.split()
    return _integrity_words(want) == _integrity_words(live)


def _integrity_words(target: Target) -> tuple[tuple[str, ...], frozenset[str]]:
    words = target.parameters.split()
    options = frozenset(word for word in words[5:] if not word.startswith("journal_sectors:"))
    return tuple(words[:4]), options
