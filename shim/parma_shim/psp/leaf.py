"""The stub's leaves: a key follows from chip (VLEK: provider) and TCB, so that another TCB is another key.

Extensions: attestation reference section 3, arc 1.3.6.1.4.1.3704.1; all of them non-critical, as AMD's are.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from parma_api.snp.bits import SigningKey
from parma_api.snp.product import ProductLine, TcbLayout
from parma_api.snp.tcb import Tcb
from parma_shim.psp.chain import DAY, PSS, Authority, subject

CSP_ID: Final = "parma-stub"
"""The cloud provider in a VLEK."""
_ARC = "1.3.6.1.4.1.3704.1"
_P384_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
_LABELS: Final = {SigningKey.VCEK: b"parma stub vcek", SigningKey.VLEK: b"parma stub vlek"}
_YEARS: Final = {SigningKey.VCEK: 7, SigningKey.VLEK: 1}
_LEVELS: Final = {
    "bootloader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8", "fmc": "3.9",
}  # fmt: skip
_SPARE: Final = {
    TcbLayout.MILAN: ("3.4", "3.5", "3.6", "3.7"),
    TcbLayout.TURIN: ("3.5", "3.6", "3.7"),
}


@dataclass(frozen=True, slots=True)
class Leaf:
    """The certificate, and the key that signs reports."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def chip_id(chip_seed: bytes, line: ProductLine = ProductLine.MILAN) -> bytes:
    """The chip's name as in a report: 64 bytes, Turin's with eight that count."""
    name = hashlib.sha512(b"parma stub chip" + chip_seed).digest()
    return name[: line.chip_id_size].ljust(64, b"\0")


def leaf_key(authority: Authority, chip_seed: bytes, tcb: Tcb) -> ec.EllipticCurvePrivateKey:
    """A function of chip or provider, of the TCB, and of a secret that only this host's stub has."""
    who = CSP_ID.encode() if authority.signer is SigningKey.VLEK else chip_seed
    message = _LABELS[authority.signer] + tcb.to_bytes() + who
    material = hmac.digest(authority.secret(), message, "sha512")
    scalar = int.from_bytes(material, "big") % (_P384_ORDER - 1) + 1
    return ec.derive_private_key(scalar, ec.SECP384R1())


def make_leaf(authority: Authority, chip_seed: bytes, tcb: Tcb) -> Leaf:
    """The leaf of this authority for this chip at this TCB."""
    key, now = leaf_key(authority, chip_seed, tcb), datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject(f"SEV-{authority.signer.name}"))
        .issuer_name(authority.ask.subject)
        .public_key(key.public_key())
        .serial_number(1)  # AMD's have 0, which the builder refuses
        .not_valid_before(now - DAY)
        .not_valid_after(now + _YEARS[authority.signer] * 365 * DAY)
    )
    for suffix, value in _extensions(authority, chip_seed, tcb).items():
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(f"{_ARC}.{suffix}"), value)
        builder = builder.add_extension(extension, critical=False)
    return Leaf(key, builder.sign(authority.ask_key, hashes.SHA384(), rsa_padding=PSS))


def vcek_certificate(authority: Authority, chip_seed: bytes, tcb: Tcb) -> x509.Certificate:
    """The leaf's certificate alone."""
    return make_leaf(authority, chip_seed, tcb).certificate


def host_certificates(authority: Authority, leaf: x509.Certificate, tcb: Tcb) -> bytes:
    """What Azure's certificate service answers, and `host-amd-cert-base64` holds: JSON with PEM in it.

    tcbm is the TCB as a number of 16 hexadecimal digits, the microcode's level first.
    """
    document = {
        "vcekCert": leaf.public_bytes(serialization.Encoding.PEM).decode(),
        "tcbm": tcb.to_bytes()[::-1].hex().upper(),
        "certificateChain": authority.pem().decode(),
        "cacheControl": "86400",
    }
    return json.dumps(document).encode()


def _extensions(authority: Authority, chip_seed: bytes, tcb: Tcb) -> dict[str, bytes]:
    line, layout = authority.line, authority.line.tcb_layout
    vlek = authority.signer is SigningKey.VLEK
    stepping = "-B0" if line is ProductLine.MILAN and not vlek else ""
    levels = {_LEVELS[name]: value for name, value in tcb.components().items()}
    levels |= dict.fromkeys(_SPARE[layout], 0)
    found = {
        "1": _der_integer(0 if layout is TcbLayout.MILAN else 1),
        "2": _der_text(f"{line}{stepping}"),
        **{suffix: _der_integer(levels[suffix]) for suffix in sorted(levels)},
    }
    if vlek:
        return found | {"5": _der_text(CSP_ID)}
    hwid = chip_id(chip_seed, line)[: line.chip_id_size]
    return found | {"4": bytes((4, len(hwid))) + hwid if len(hwid) == 64 else hwid}


def _der_integer(value: int) -> bytes:
    body = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes((2, len(body))) + body


def _der_text(text: str) -> bytes:
    """IA5String."""
    return bytes((0x16, len(text))) + text.encode("ascii")
