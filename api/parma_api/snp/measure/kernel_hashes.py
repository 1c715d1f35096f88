"""The table that QEMU puts before the firmware: what the kernel, the initrd and the command line must hash to.

header   GUID [16], u16 length of all; entries of 50 bytes: GUID [16], u16 50, SHA-256 [32]; padded to 16 bytes
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from dataclasses import dataclass
from typing import Final

from parma_api.snp.measure.pages import PAGE_SIZE
from parma_api.status import InvalidArgumentError

_HEADER: Final = uuid.UUID("9438d606-4f22-4cc9-b479-a793d411fd21")
_CMDLINE: Final = uuid.UUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a")
_INITRD: Final = uuid.UUID("44baf731-3a2f-4bd7-9af1-41e29169781d")
_KERNEL: Final = uuid.UUID("4de79437-abd2-427f-b835-d5b172d2045b")
_ENTRY: Final = struct.Struct("<16sH32s")
_PREFIX: Final = struct.Struct("<16sH")
EMPTY: Final = hashlib.sha256(b"").digest()
"""What stands for an initrd that is not there."""


@dataclass(frozen=True, slots=True)
class KernelHashes:
    """SHA-256 of the kernel file and the initrd file; the command line as text."""

    kernel: bytes
    initrd: bytes
    cmdline: str

    def table(self) -> bytes:
        """As it lies in memory; the command line counts with its final NUL."""
        cmdline = hashlib.sha256(self.cmdline.encode() + b"\0").digest()
        digests = ((_CMDLINE, cmdline), (_INITRD, self.initrd), (_KERNEL, self.kernel))
        entries = b"".join(_ENTRY.pack(guid.bytes_le, _ENTRY.size, sha) for guid, sha in digests)
        table = _PREFIX.pack(_HEADER.bytes_le, _PREFIX.size + len(entries)) + entries
        return table + bytes(-len(table) % 16)

    def page(self, address: int) -> bytes:
        """The page that holds the table at `address`. Raises InvalidArgumentError if it does not fit."""
        offset, table = address % PAGE_SIZE, self.table()
        if offset + len(table) > PAGE_SIZE:
            raise InvalidArgumentError("the firmware's place for kernel hashes crosses a page")
        return bytes(offset) + table + bytes(PAGE_SIZE - offset - len(table))
