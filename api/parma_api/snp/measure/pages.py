"""The chain of measured pages: each step binds a page's kind, place and contents to all before it.

LD 0    48 zero bytes
LD n    SHA384(LD n-1 | contents [48] | u16 0x70 | u8 kind | u8 0 (IMI) | u8 VMPL3 VMPL2 VMPL1 | u8 0 | u64 gpa)
"""

from __future__ import annotations

import enum
import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

PAGE_SIZE: Final = 4096
DIGEST_SIZE: Final = 48
START: Final = bytes(DIGEST_SIZE)
VMSA_ADDRESS: Final = 0xFFFFFFFFF000
"""Where QEMU's host kernel measures every VMSA."""
_INFO: Final = struct.Struct("<48s48sHBBBBBBQ")
assert _INFO.size == 0x70


class PageKind(enum.IntEnum):
    """PAGE_TYPE of SNP_LAUNCH_UPDATE; contents count for the first two only."""

    NORMAL = 1
    VMSA = 2
    ZERO = 3
    UNMEASURED = 4
    SECRETS = 5
    CPUID = 6


@dataclass(frozen=True, slots=True)
class Page:
    """One step: `contents` is the page's SHA-384, or zeros."""

    kind: PageKind
    address: int
    contents: bytes = START


def extend(digest: bytes, pages: Iterable[Page]) -> bytes:
    """The digest after these pages."""
    for page in pages:
        info = _INFO.pack(digest, page.contents, _INFO.size, page.kind, 0, 0, 0, 0, 0, page.address)
        digest = hashlib.sha384(info).digest()
    return digest


def normal_pages(address: int, data: bytes) -> Iterator[Page]:
    """Data whose length is whole pages, page by page."""
    for offset in range(0, len(data), PAGE_SIZE):
        contents = hashlib.sha384(data[offset : offset + PAGE_SIZE]).digest()
        yield Page(PageKind.NORMAL, address + offset, contents)


def plain_pages(kind: PageKind, address: int, size: int) -> Iterator[Page]:
    """Pages whose contents do not count."""
    for offset in range(0, size, PAGE_SIZE):
        yield Page(kind, address + offset)


def vmsa_page(data: bytes) -> Page:
    """The saved state of one vCPU."""
    return Page(PageKind.VMSA, VMSA_ADDRESS, hashlib.sha384(data).digest())
