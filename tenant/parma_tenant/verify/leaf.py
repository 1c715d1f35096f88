"""A VCEK's or VLEK's own extensions: what chip, which patch levels (AMD 57230; attestation reference, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from parma_api.snp.product import TcbLayout
from parma_api.snp.tcb import Tcb, TcbError
from parma_api.status import InvalidArgumentError

ARC: Final = "1.3.6.1.4.1.3704.1."
_LEVELS: Final = {
    "3.1": "bootloader",
    "3.2": "tee",
    "3.3": "snp",
    "3.4": "spl4",
    "3.5": "spl5",
    "3.6": "spl6",
    "3.7": "spl7",
    "3.8": "microcode",
    "3.9": "fmc",
}
_WANTED: Final = {
    TcbLayout.MILAN: frozenset(_LEVELS.values()) - {"fmc"},
    TcbLayout.TURIN: frozenset(_LEVELS.values()) - {"spl4"},
}
_STRUCT_VERSION: Final = {0: TcbLayout.MILAN, 1: TcbLayout.TURIN}
_INTEGER, _OCTETS, _IA5 = 0x02, 0x04, 0x16


class LeafError(InvalidArgumentError):
    """Extensions that are missing, doubled, of another form, or contradict each other."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """What the extensions say; `hwid` is a VCEK's, `csp_id` a VLEK's."""

    layout: TcbLayout
    product_name: str
    levels: Mapping[str, int]
    hwid: bytes | None
    csp_id: str | None

    def tcb(self) -> Tcb:
        """The TCB from which the key was derived. Raises LeafError for levels where the layout has none."""
        spare = [name for name in self.levels if name.startswith("spl") and self.levels[name]]
        if spare:
            raise LeafError(f"the certificate's {spare[0]} is not zero")
        levels = {name: value for name, value in self.levels.items() if name[:3] != "spl"}
        try:
            return Tcb(self.layout, **levels)
        except TcbError as error:
            raise LeafError(error.message) from error


def amd_extensions(certificate: x509.Certificate) -> dict[str, bytes]:
    """AMD's extensions by the end of their OID. Raises LeafError for a doubled OID or broken extensions."""
    try:
        extensions = certificate.extensions
    except x509.DuplicateExtension as error:
        raise LeafError(f"the extension {error.oid.dotted_string} occurs twice") from error
    except ValueError as error:
        raise LeafError(f"the extensions cannot be read: {error}") from error
    return {
        extension.oid.dotted_string.removeprefix(ARC): extension.value.public_bytes()
        for extension in extensions
        if extension.oid.dotted_string.startswith(ARC)
    }


def read_leaf(certificate: x509.Certificate) -> Leaf:
    """Raises LeafError."""
    found = amd_extensions(certificate)
    version = _integer(found, "1")
    if version not in _STRUCT_VERSION:
        raise LeafError(f"the certificate's structVersion is {version}; known are 0 and 1")
    layout = _STRUCT_VERSION[version]
    levels = {name: _integer(found, suffix) for suffix, name in _LEVELS.items() if suffix in found}
    if levels.keys() != _WANTED[layout]:
        odd = ", ".join(sorted(levels.keys() ^ _WANTED[layout]))
        raise LeafError(f"patch levels missing or too many for {layout.value}: {odd}")
    leaf = Leaf(layout, _text(found, "2"), levels, _hwid(found, layout), _csp_id(found))
    if leaf.hwid is not None and leaf.csp_id is not None:
        raise LeafError("the certificate names a chip and a cloud provider: it can be for one only")
    return leaf


def _integer(found: Mapping[str, bytes], suffix: str) -> int:
    """A DER INTEGER from 0 to 255 in its shortest form: 0x80 and above take two bytes of content."""
    body = _content(found, suffix, _INTEGER)
    value = int.from_bytes(body, "big", signed=True)
    shortest = value.bit_length() // 8 + 1
    if not 0 <= value <= 0xFF or len(body) != shortest:
        raise LeafError(f"extension {ARC}{suffix} is no integer from 0 to 255: {body.hex()}")
    return value


def _text(found: Mapping[str, bytes], suffix: str) -> str:
    body = _content(found, suffix, _IA5)
    if not body.isascii() or not body.decode("ascii").isprintable():
        raise LeafError(f"extension {ARC}{suffix} is no printable text")
    return body.decode("ascii")


def _content(found: Mapping[str, bytes], suffix: str, tag: int) -> bytes:
    """The content of a short DER value of this tag that fills the extension."""
    value = found.get(suffix)
    if value is None:
        raise LeafError(f"the extension {ARC}{suffix} is missing")
    if len(value) < 3 or value[0] != tag or value[1] != len(value) - 2 or value[1] >= 0x80:
        raise LeafError(f"extension {ARC}{suffix} has another form: {value[:16].hex()}")
    return value[2:]


def _hwid(found: Mapping[str, bytes], layout: TcbLayout) -> bytes | None:
    """Raw bytes, or the same as an OCTET STRING: both are in use."""
    value = found.get("4")
    if value is None:
        return None
    size = 64 if layout is TcbLayout.MILAN else 8
    if len(value) == size:
        return value
    if len(value) == size + 2 and value[:2] == bytes((_OCTETS, size)):
        return value[2:]
    raise LeafError(f"the chip id in the certificate has {len(value)} bytes; {size} are wanted")


def _csp_id(found: Mapping[str, bytes]) -> str | None:
    return _text(found, "5") if "5" in found else None
