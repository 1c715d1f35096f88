"""Certificates and revocation lists as they are handed over, told apart by content: PEM, DER, table, THIM JSON.

Strict: bytes before, between or behind what is read are refused, so that what was looked at is all there was.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning

from parma_api.snp.certificate_table import Slot, TableError, looks_like_table, parse_table
from parma_api.status import InvalidArgumentError

MAX_SIZE: Final = 1 << 20
MAX_CERTIFICATES: Final = 32
_THIM: Final = frozenset(("vcekCert", "certificateChain", "tcbm", "cacheControl"))
_BLOCK: Final = re.compile(
    rb"-----BEGIN (?P<kind>[A-Z0-9 ]{1,32})-----\r?\n(?P<body>[A-Za-z0-9+/=\r\n]{1,65536}?)-----END (?P=kind)-----"
)


class IntakeError(InvalidArgumentError):
    """Bytes that are no certificate, no list, or more than that."""


@dataclass(frozen=True, slots=True)
class Given:
    """A certificate and the slot of the table from which it came, if it came from one."""

    certificate: x509.Certificate
    der: bytes
    slot: Slot | None = None


@dataclass(frozen=True, slots=True)
class Certificates:
    """What one or several sources hold, each certificate once; `crls` are those of tables."""

    given: tuple[Given, ...] = ()
    crls: tuple[x509.CertificateRevocationList, ...] = ()

    def __add__(self, other: Certificates) -> Certificates:
        once = {(one.der, one.slot): one for one in (*self.given, *other.given)}
        return Certificates(tuple(once.values()), self.crls + other.crls)


def read_sources(sources: Iterable[bytes]) -> Certificates:
    """All sources together. Raises IntakeError."""
    together = Certificates()
    for source in sources:
        together += read_certificates(source)
    if len(together.given) > MAX_CERTIFICATES:
        raise IntakeError(f"more than {MAX_CERTIFICATES} certificates")
    return together


def read_certificates(data: bytes) -> Certificates:
    """One source in any of the four forms. Raises IntakeError."""
    if len(data) > MAX_SIZE:
        raise IntakeError(f"certificates of more than {MAX_SIZE} bytes")
    if looks_like_table(data):
        return _table(data)
    if data[:1] == b"\x30":
        return Certificates((Given(_certificate(data), data),))
    text = data.strip()
    if text.startswith(b"{"):
        return _thim(text)
    if text.startswith(b"-----BEGIN "):
        return Certificates() + Certificates(_pem(text))
    return _table(data)


def read_crl(data: bytes) -> x509.CertificateRevocationList:
    """A revocation list, PEM or DER. Raises IntakeError."""
    if len(data) > MAX_SIZE:
        raise IntakeError(f"a revocation list of more than {MAX_SIZE} bytes")
    text = data.strip()
    if text.startswith(b"-----BEGIN "):
        blocks = _blocks(text, b"X509 CRL")
        if len(blocks) != 1:
            raise IntakeError("one revocation list is wanted, and this is several")
        return _crl(blocks[0])
    return _crl(data)


def load_certificate(data: bytes) -> x509.Certificate:
    """Exactly one certificate, PEM or DER. Raises IntakeError."""
    given = read_certificates(data).given
    if len(given) != 1:
        raise IntakeError(f"one certificate is wanted, and these are {len(given)}")
    return given[0].certificate


def _certificate(der: bytes) -> x509.Certificate:
    try:
        with warnings.catch_warnings():
            # AMD's leaves have the serial number 0, which RFC 5280 forbids.
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            return x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise IntakeError(f"no certificate: {_line(error)}") from error


def _crl(der: bytes) -> x509.CertificateRevocationList:
    try:
        return x509.load_der_x509_crl(der)
    except ValueError as error:
        raise IntakeError(f"no revocation list: {_line(error)}") from error


def _line(error: Exception) -> str:
    return (str(error).splitlines() or ["malformed"])[0][:160]


def _pem(text: bytes) -> tuple[Given, ...]:
    ders = _blocks(text, b"CERTIFICATE")
    return tuple(Given(_certificate(der), der) for der in ders)


def _blocks(text: bytes, kind: bytes) -> list[bytes]:
    """The contents of PEM blocks of this kind, which with white space are all that there is."""
    found, at = [], 0
    for block in _BLOCK.finditer(text):
        if text[at : block.start()].strip() or block["kind"] != kind:
            raise IntakeError(f"something else than PEM blocks of {kind.decode()}")
        at = block.end()
        try:
            found.append(base64.b64decode(re.sub(rb"[\r\n]", b"", block["body"]), validate=True))
        except binascii.Error as error:
            raise IntakeError("a PEM block is no base64") from error
        if len(found) > MAX_CERTIFICATES:
            raise IntakeError(f"more than {MAX_CERTIFICATES} PEM blocks")
    if text[at:].strip() or not found:
        raise IntakeError(f"something else than PEM blocks of {kind.decode()}")
    return found


def _thim(text: bytes) -> Certificates:
    """Azure's certificate service: {vcekCert, certificateChain, tcbm, cacheControl}."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise IntakeError(f"no JSON: {_line(error)}") from error
    leaf, chain = document.get("vcekCert"), document.get("certificateChain")
    if not isinstance(leaf, str) or not isinstance(chain, str) or set(document) - _THIM:
        raise IntakeError(f"JSON without vcekCert and certificateChain, or with more than {_THIM}")
    return Certificates(_pem(_ascii(leaf))) + Certificates(_pem(_ascii(chain)))


def _ascii(text: str) -> bytes:
    try:
        return text.strip().encode("ascii")
    except UnicodeEncodeError as error:
        raise IntakeError("PEM that is not ASCII") from error


def _table(data: bytes) -> Certificates:
    try:
        slots = parse_table(data)
    except TableError as error:
        raise IntakeError(
            f"neither PEM, nor DER, nor JSON, nor a certificate table: {error.message}"
        ) from error
    ders = {slot: der for slot, der in slots.items() if slot is not Slot.CRL}
    given = tuple(Given(_certificate(der), der, slot) for slot, der in ders.items())
    crls = (_crl(slots[Slot.CRL]),) if Slot.CRL in slots else ()
    return Certificates(given, crls)
