"""Bit fields of the report: guest policy, platform information, key information (attestation reference, section 2)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, NamedTuple


class PolicyBit(enum.IntFlag):
    """Guest policy, bits above the ABI version."""

    SMT = 1 << 16
    MUST_BE_ONE = 1 << 17
    MIGRATE_MA = 1 << 18
    DEBUG = 1 << 19
    SINGLE_SOCKET = 1 << 20
    CXL_ALLOW = 1 << 21
    MEM_AES_256_XTS = 1 << 22
    RAPL_DIS = 1 << 23
    CIPHERTEXT_HIDING = 1 << 24
    PAGE_SWAP_DISABLE = 1 << 25


POLICY_RESERVED: Final = 0xFFFF_FFFF_FFFF_FFFF << 26 & 0xFFFF_FFFF_FFFF_FFFF
"""Bits of the guest policy that must be zero."""


class AbiVersion(NamedTuple):
    """The least version of the firmware's interface that the guest demands."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


def abi_of(policy: int) -> AbiVersion:
    """The ABI version in a guest policy."""
    return AbiVersion(policy >> 8 & 0xFF, policy & 0xFF)


class PlatformBit(enum.IntFlag):
    """Platform information. Others may be set (bit 6 is, on real machines): they are shown and refused by nobody."""

    SMT = 1 << 0
    TSME = 1 << 1
    ECC = 1 << 2
    RAPL_DIS = 1 << 3
    CIPHERTEXT_HIDING = 1 << 4
    ALIAS_CHECK = 1 << 5
    TIO = 1 << 7


class SigningKey(enum.IntEnum):
    """Who signed; other values are reserved."""

    VCEK = 0
    VLEK = 1
    NONE = 7


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """The word at 0x048; `signing_key` may be a reserved value."""

    author_key_enabled: bool
    mask_chip_key: bool
    signing_key: int
    reserved: int


def key_info(word: int) -> KeyInfo:
    """The fields of the word."""
    return KeyInfo(
        author_key_enabled=bool(word & 1),
        mask_chip_key=bool(word & 2),
        signing_key=word >> 2 & 7,
        reserved=word >> 5,
    )
