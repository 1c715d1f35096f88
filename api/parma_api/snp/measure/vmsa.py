"""The first state of a vCPU, as QEMU and KVM set it (SEV-ES save area: APM volume 2, table B-4)."""

from __future__ import annotations

import struct
from typing import Final

from parma_api.snp.measure.pages import PAGE_SIZE
from parma_api.status import InvalidArgumentError

BOOT_ADDRESS: Final = 0xFFFFFFF0
"""Where the first vCPU starts."""
SIGNATURES: Final = {
    "EPYC": 0x800F12,
    "EPYC-v1": 0x800F12,
    "EPYC-v2": 0x800F12,
    "EPYC-v3": 0x800F12,
    "EPYC-v4": 0x800F12,
    "EPYC-IBPB": 0x800F12,
    "EPYC-Rome": 0x830F10,
    "EPYC-Rome-v1": 0x830F10,
    "EPYC-Rome-v2": 0x830F10,
    "EPYC-Rome-v3": 0x830F10,
    "EPYC-Milan": 0xA00F11,
    "EPYC-Milan-v1": 0xA00F11,
    "EPYC-Milan-v2": 0xA00F11,
    "EPYC-Genoa": 0xA10F10,
    "EPYC-Genoa-v1": 0xA10F10,
    "EPYC-Turin": 0xB00F00,
}
"""Leaf 1 EAX of QEMU's models, which is not the host's."""
_SEGMENT: Final = struct.Struct("<HHIQ")
_DATA, _CODE, _LDT, _BUSY_TSS = 0x93, 0x9B, 0x82, 0x8B


def signature_of(model: str) -> int:
    """Raises InvalidArgumentError for a model that is not known."""
    try:
        return SIGNATURES[model]
    except KeyError:
        known = ", ".join(SIGNATURES)
        raise InvalidArgumentError(f"unknown CPU model {model!r}: known are {known}") from None


def vmsa(start: int, signature: int, features: int) -> bytes:
    """The page of a vCPU that starts at `start`; `features` are the SEV_FEATURES."""
    segments = {
        0x00: (0, _DATA, 0),  # es
        0x10: (0xF000, _CODE, start & 0xFFFF0000),  # cs
        0x20: (0, _DATA, 0),  # ss
        0x30: (0, _DATA, 0),  # ds
        0x40: (0, _DATA, 0),  # fs
        0x50: (0, _DATA, 0),  # gs
        0x60: (0, 0, 0),  # gdtr
        0x70: (0, _LDT, 0),  # ldtr
        0x80: (0, 0, 0),  # idtr
        0x90: (0, _BUSY_TSS, 0),  # tr
    }
    registers = {
        0x0D0: 0x1000,  # efer: SVME
        0x148: 0x40,  # cr4: MCE
        0x158: 0x10,  # cr0: ET
        0x160: 0x400,  # dr7
        0x168: 0xFFFF0FF0,  # dr6
        0x170: 0x2,  # rflags
        0x178: start & 0xFFFF,  # rip
        0x268: 0x7040600070406,  # g_pat
        0x310: signature,  # rdx
        0x3B0: features,  # sev_features
        0x3E8: 0x1,  # xcr0
    }
    page = bytearray(PAGE_SIZE)
    for offset, (selector, attributes, base) in segments.items():
        _SEGMENT.pack_into(page, offset, selector, attributes, 0xFFFF, base)
    for offset, value in registers.items():
        struct.pack_into("<Q", page, offset, value)
    struct.pack_into("<I", page, 0x408, 0x1F80)  # mxcsr
    struct.pack_into("<H", page, 0x410, 0x37F)  # x87 control word
    return bytes(page)
