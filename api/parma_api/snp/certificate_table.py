"""The certificate table of an extended report: GUID, offset, length for each, then the bytes (GHCB specification).

entry    GUID [16] in the order of its text form, offset u32, length u32; the last entry is all zero
offset   from the table's start, behind the header
"""

from __future__ import annotations

import enum
import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from parma_api.status import InvalidArgumentError

MAX_SIZE: Final = 16 * 1024
"""SEV_FW_BLOB_MAX_SIZE of linux/psp-sev.h."""
_ENTRY: Final = struct.Struct("<16sII")
_END: Final = bytes(_ENTRY.size)


class Slot(enum.Enum):
    """What an entry holds; ASK is the ASVK too. Entries of other GUIDs are passed over."""

    ARK = uuid.UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae")
    ASK = uuid.UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782")
    VCEK = uuid.UUID("63da758d-e664-4564-adc5-f4b93be8accd")
    VLEK = uuid.UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1")
    CRL = uuid.UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea")


class TableError(InvalidArgumentError):
    """The bytes are no certificate table."""


@dataclass(frozen=True, slots=True)
class _Entry:
    guid: uuid.UUID
    offset: int
    length: int


def parse_table(data: bytes) -> dict[Slot, bytes]:
    """What the table holds. Raises TableError: no end, an entry outside the table, a GUID twice, too long.

    Entries may overlap. Zeros behind the last one are padding to a whole page; other bytes there are refused.
    """
    if len(data) > MAX_SIZE:
        raise TableError(f"a certificate table has at most {MAX_SIZE} bytes, this has {len(data)}")
    entries, behind = _entries(data)
    found: dict[Slot, bytes] = {}
    seen: set[uuid.UUID] = set()
    for entry in entries:
        end = entry.offset + entry.length
        if entry.offset < behind or end > len(data):
            raise TableError(f"the entry {entry.guid} lies outside the certificate table")
        if entry.guid in seen:
            raise TableError(f"the certificate table has the entry {entry.guid} twice")
        seen.add(entry.guid)
        if entry.guid in (slot.value for slot in Slot):
            found[Slot(entry.guid)] = data[entry.offset : end]
    last = max((entry.offset + entry.length for entry in entries), default=behind)
    if any(data[last:]):
        raise TableError("bytes behind the last entry of the certificate table")
    return found


def _entries(data: bytes) -> tuple[list[_Entry], int]:
    """The entries and the length of the header with its end."""
    entries: list[_Entry] = []
    for offset in range(0, len(data) - _ENTRY.size + 1, _ENTRY.size):
        if data[offset : offset + _ENTRY.size] == _END:
            return entries, offset + _ENTRY.size
        guid, start, length = _ENTRY.unpack_from(data, offset)
        entries.append(_Entry(uuid.UUID(bytes=guid), start, length))
    raise TableError("the certificate table has no end")


def build_table(certificates: Mapping[Slot, bytes]) -> bytes:
    """The bytes of a table, without padding."""
    offset = _ENTRY.size * (len(certificates) + 1)
    head, body = bytearray(), bytearray()
    for slot, der in certificates.items():
        head += _ENTRY.pack(slot.value.bytes, offset, len(der))
        body += der
        offset += len(der)
    return bytes(head) + _END + bytes(body)


def looks_like_table(data: bytes) -> bool:
    """Whether `data` begins with an entry of a known GUID, or with the end of an empty table."""
    known = {slot.value.bytes for slot in Slot}
    return data[:16] in known or data[: _ENTRY.size] == _END
