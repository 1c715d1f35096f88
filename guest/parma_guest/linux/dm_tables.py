"""Device-mapper tables as text, and what the kernel shows of them afterwards. Pure.

Formats: Documentation/admin-guide/device-mapper/{verity,dm-integrity,dm-crypt}.rst. Lengths are sectors of 512 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from parma_api.ids import RootHash

SECTOR = 512
BLOCK = 4096
SALT = bytes(32)
TAG_BYTES = 32
KEY_BYTES = 96
"""AES-256-XTS (64) and HMAC-SHA256 (32), in this order."""
CIPHER = "capi:authenc(hmac(sha256),xts(aes))-plain64"
_INTERLEAVE = 32768
_BUFFER = 128
_INTEGRITY_OPTIONS = (
    f"block_size:{BLOCK}",
    f"interleave_sectors:{_INTERLEAVE}",
    f"buffer_sectors:{_BUFFER}",
    "fix_padding",
)


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


def integrity(device: str, sectors: int) -> Target:
    """Room for dm-crypt's tags. Mode D, no journal: a crash ends the key's life with the VM's."""
    options = f"{len(_INTEGRITY_OPTIONS)} {' '.join(_INTEGRITY_OPTIONS)}"
    return Target(sectors, "integrity", f"{device} 0 {TAG_BYTES} D {options}")


def crypt(device: str, sectors: int, key_name: str) -> Target:
    """Authenticated encryption with the keyring's logon key `key_name`."""
    key = f":{KEY_BYTES}:logon:{key_name}"
    options = f"2 integrity:{TAG_BYTES}:aead sector_size:{BLOCK}"
    return Target(sectors, "crypt", f"{CIPHER} {key} 0 {device} 0 {options}")


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


# drivers/md/dm-integrity.c: get_provided_data_sectors, calculate_device_limits, calculate_journal_section_size
_SUPERBLOCK_SECTORS = 8
_PADDING_SECTORS = 8
_MAX_JOURNAL_SECTORS = 131072
_JOURNAL_FACTOR = 7
_JOURNAL_BLOCK_SECTORS = 8
_JOURNAL_SECTOR_DATA = 504
_PER_BLOCK = BLOCK // SECTOR


def provided_sectors(device_sectors: int, tag_bytes: int = TAG_BYTES) -> int:
    """What dm-integrity offers of a device of this size; 0 if the device is too small.

    Computed here because the superblock that states it lies on the host's disk.
    """
    initial = _initial_sectors(device_sectors, tag_bytes)
    if initial + _PADDING_SECTORS >= device_sectors:
        return 0
    run = _round_up(tag_bytes * (_INTERLEAVE // _PER_BLOCK), _PADDING_SECTORS * SECTOR) // SECTOR
    provided = 0
    for bit in range(device_sectors.bit_length() - 1, 2, -1):
        larger = provided | 1 << bit
        area, offset = divmod(larger - 1, _INTERLEAVE)
        last = area * _INTERLEAVE + (area + 1) * run + initial + offset
        if last < device_sectors:
            provided = larger
    return provided


def _initial_sectors(device_sectors: int, tag_bytes: int) -> int:
    entry = _round_up(8 + 8 * _PER_BLOCK + tag_bytes, 8)
    entries = _JOURNAL_SECTOR_DATA // entry * _JOURNAL_BLOCK_SECTORS
    section = entries * _PER_BLOCK + _JOURNAL_BLOCK_SECTORS
    journal = min(_MAX_JOURNAL_SECTORS, device_sectors >> _JOURNAL_FACTOR)
    return _SUPERBLOCK_SECTORS + section * max(1, journal // section)


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
