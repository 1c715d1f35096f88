"""The little that the build reads from ELF files: which shared libraries one needs. Pure."""

from __future__ import annotations

import struct

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB = 1, 5


def needed(data: bytes) -> list[str]:
    """The DT_NEEDED names of a 64-bit little-endian ELF file; none for anything else (ELF-64)."""
    if data[:6] != b"\x7fELF\x02\x01":
        return []
    offset, entry_size, count = struct.unpack_from("<Q14xHH", data, 32)
    headers = [
        struct.unpack_from("<IIQQQQQQ", data, offset + index * entry_size) for index in range(count)
    ]
    loads = [h for h in headers if h[0] == _PT_LOAD]
    dynamic = next((h for h in headers if h[0] == _PT_DYNAMIC), None)
    if dynamic is None:
        return []
    start, size = dynamic[2], dynamic[5]
    tags = list(struct.iter_unpack("<QQ", data[start : start + size]))
    table = next((value for tag, value in tags if tag == _DT_STRTAB), 0)
    strings = next((h[2] + table - h[3] for h in loads if h[3] <= table < h[3] + h[5]), 0)
    names = [strings + value for tag, value in tags if tag == _DT_NEEDED]
    return [data[at : data.index(b"\0", at)].decode("ascii") for at in names]
