"""What an OVMF image says about itself: a table of GUIDs at its end, and where the pages of SEV metadata lie.

Read backwards from 32 bytes before the end: entries {data, u16 length of data + 18, GUID}, the first the footer's own.
The file is the operator's or the distribution's: every offset is checked.
"""

from __future__ import annotations

import enum
import struct
import uuid
from dataclasses import dataclass
from typing import Final

from parma_api.snp.measure.pages import PAGE_SIZE
from parma_api.status import InvalidArgumentError

MAX_SIZE: Final = 64 << 20
_FOUR_GIB: Final = 1 << 32
_FOOTER: Final = uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d")
_METADATA: Final = uuid.UUID("dc886566-984a-4798-a75e-5585a7bf67cc")
_HASH_TABLE: Final = uuid.UUID("7255371f-3a3b-4b04-927b-1da6efa8d454")
_RESET_BLOCK: Final = uuid.UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e")
_TAIL: Final = 32
_ENTRY: Final = struct.Struct("<H16s")
_HEADER: Final = struct.Struct("<4sIII")
_SECTION: Final = struct.Struct("<III")
_MAX_PAGES: Final = 1 << 16


class FirmwareError(InvalidArgumentError):
    """The file is no OVMF image for SNP guests."""


class SectionKind(enum.IntEnum):
    """Of a piece of guest memory that is measured beside the image."""

    SEC_MEM = 1
    SECRETS = 2
    CPUID = 3
    SVSM_CAA = 4
    KERNEL_HASHES = 0x10


@dataclass(frozen=True, slots=True)
class Section:
    """`size` bytes at `address`, whole pages."""

    kind: SectionKind
    address: int
    size: int


@dataclass(frozen=True, slots=True)
class Firmware:
    """An OVMF image; `hash_table` is where the kernel's hashes lie, None in builds that do not check them."""

    data: bytes
    sections: tuple[Section, ...]
    hash_table: int | None
    reset_address: int

    @property
    def address(self) -> int:
        """Where it lies in the guest: it ends at 4 GiB."""
        return _FOUR_GIB - len(self.data)

    @property
    def checks_kernel(self) -> bool:
        """Whether kernel, initrd and command line can be measured: the AmdSev build's way."""
        has_section = any(section.kind is SectionKind.KERNEL_HASHES for section in self.sections)
        return has_section and self.hash_table is not None


def parse_firmware(data: bytes) -> Firmware:
    """Raises FirmwareError."""
    if not 0 < len(data) <= MAX_SIZE or len(data) % PAGE_SIZE:
        raise FirmwareError("the firmware is empty, too large, or not made of whole pages")
    entries = _entries(data)
    reset = entries.get(_RESET_BLOCK, b"")
    if _METADATA not in entries or len(reset) < 4:
        raise FirmwareError("the firmware has no SEV metadata: it is not made for SEV-SNP")
    table = entries.get(_HASH_TABLE)
    if table is not None and len(table) != 8:
        raise FirmwareError("the firmware's entry for the hash table has another length")
    return Firmware(
        data=data,
        sections=_sections(data, entries[_METADATA]),
        hash_table=int.from_bytes(table[:4], "little") if table is not None else None,
        reset_address=int.from_bytes(reset[:4], "little"),
    )


def _entries(data: bytes) -> dict[uuid.UUID, bytes]:
    end = len(data) - _TAIL
    guid, body, _ = _entry(data, end, 0)
    if guid != _FOOTER:
        raise FirmwareError("the firmware has no table of GUIDs: it is no OVMF image")
    # The footer's length counts the whole table, its own entry included.
    start, at = end - body, end - _ENTRY.size
    found: dict[uuid.UUID, bytes] = {}
    while at > start:
        guid, length, content = _entry(data, at, start)
        if guid in found:
            raise FirmwareError(f"the firmware's table names {guid} twice")
        found[guid] = content
        at -= length
    return found


def _entry(data: bytes, end: int, start: int) -> tuple[uuid.UUID, int, bytes]:
    """GUID, whole length and content of the entry that ends at `end`."""
    if end - _ENTRY.size < start:
        raise FirmwareError("the firmware's table of GUIDs is cut")
    length, guid = _ENTRY.unpack_from(data, end - _ENTRY.size)
    if length < _ENTRY.size or end - length < start:
        raise FirmwareError("an entry of the firmware's table has a wrong length")
    return uuid.UUID(bytes_le=guid), length, data[end - length : end - _ENTRY.size]


def _sections(data: bytes, entry: bytes) -> tuple[Section, ...]:
    offset = len(data) - int.from_bytes(entry[:4], "little") if len(entry) == 4 else -1
    if not 0 <= offset <= len(data) - _HEADER.size:
        raise FirmwareError("the firmware's SEV metadata lies outside of it")
    magic, size, version, count = _HEADER.unpack_from(data, offset)
    whole = _HEADER.size + count * _SECTION.size
    if magic != b"ASEV" or version != 1 or size != whole or offset + whole > len(data):
        raise FirmwareError("the firmware's SEV metadata has an unknown form")
    raw = _SECTION.iter_unpack(data[offset + _HEADER.size : offset + whole])
    sections = tuple(_section(*values) for values in raw)
    if sum(section.size for section in sections) > _MAX_PAGES * PAGE_SIZE:
        raise FirmwareError("the firmware's SEV metadata covers too much memory")
    return sections


def _section(address: int, size: int, kind: int) -> Section:
    if address % PAGE_SIZE or size % PAGE_SIZE or kind not in list(SectionKind):
        raise FirmwareError(f"a section of SEV metadata is unknown or uneven: kind {kind}")
    return Section(SectionKind(kind), address, size)
