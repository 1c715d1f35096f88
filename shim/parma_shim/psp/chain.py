"""The stub's certificates: ARK, ASK and VCEK in the form of AMD's, under names that say stub.

Extensions and encodings: attestation reference section 3 (AMD 57230): arc 1.3.6.1.4.1.3704.1. The root and the ASK are
made once and kept in a folder of the host's; the VCEK's key follows from chip seed and TCB, so that a change of the TCB
changes it, as in hardware.
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import hmac
import json
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

_ARC = "1.3.6.1.4.1.3704.1"
_P384_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Tcb:
    """Security patch levels of Milan and Genoa; eight bytes in a report."""

    bootloader: int
    tee: int
    snp: int
    microcode: int

    def to_bytes(self) -> bytes:
        return bytes((self.bootloader, self.tee, 0, 0, 0, 0, self.snp, self.microcode))


@dataclass(frozen=True, slots=True)
class Authority:
    """Root and intermediate, with the key that signs leaves."""

    ark: x509.Certificate
    ask: x509.Certificate
    ask_key: rsa.RSAPrivateKey

    def pem(self) -> bytes:
        """ASK then ARK, as AMD's service orders them."""
        encoding = serialization.Encoding.PEM
        return self.ask.public_bytes(encoding) + self.ark.public_bytes(encoding)


def load_or_create(folder: Path, product: str = "Milan") -> Authority:
    """The authority kept in `folder`, made when there is none, once, also by several at the same time.

    Keys are readable by their owner only.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    names = [folder / f"{product}.{part}" for part in ("ark.pem", "ask.pem", "ask.key")]
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not all(path.exists() for path in names):
            _create(folder, product)
    ark, ask = (x509.load_pem_x509_certificate(path.read_bytes()) for path in names[:2])
    key = serialization.load_pem_private_key(names[2].read_bytes(), password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError(f"{names[2]} holds no RSA key; remove {folder} to make a new one")
    return Authority(ark, ask, key)


def _create(folder: Path, product: str) -> None:
    """Makes the authority in a folder beside, then moves each file into place, certificates last."""
    ark_key = rsa.generate_private_key(public_exponent=65537, key_size=4096)
    ask_key = rsa.generate_private_key(public_exponent=65537, key_size=4096)
    ark = _authority_certificate(f"ARK-STUB-{product}", None, ark_key, ark_key, 65536)
    ask = _authority_certificate(f"SEV-STUB-{product}", ark, ask_key, ark_key, 65537)
    secret = ask_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for name, data in (
        (f"{product}.ask.key", secret),
        (f"{product}.ask.pem", ask.public_bytes(serialization.Encoding.PEM)),
        (f"{product}.ark.pem", ark.public_bytes(serialization.Encoding.PEM)),
    ):
        part = folder / f".{name}.{os.getpid()}"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        part.replace(folder / name)


def _name(common_name: str) -> x509.Name:
    oid = x509.NameOID
    parts = (
        (oid.ORGANIZATIONAL_UNIT_NAME, "Stub, not for production"),
        (oid.COUNTRY_NAME, "US"),
        (oid.ORGANIZATION_NAME, "Parma stub"),
        (oid.COMMON_NAME, common_name),
    )
    return x509.Name([x509.NameAttribute(key, value) for key, value in parts])


def _authority_certificate(
    common_name: str,
    issuer: x509.Certificate | None,
    key: rsa.RSAPrivateKey,
    signer: rsa.RSAPrivateKey,
    serial: int,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    subject = _name(common_name)
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=issuer is None,
        encipher_only=False,
        decipher_only=False,
    )
    constraints = x509.BasicConstraints(ca=True, path_length=None if issuer is None else 0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - _DAY)
        .not_valid_after(now + 25 * 365 * _DAY)
        .add_extension(constraints, critical=True)
        .add_extension(usage, critical=True)
        .sign(signer, hashes.SHA384(), rsa_padding=_PSS)
    )


def vcek_key(authority: Authority, chip_seed: bytes, tcb: Tcb) -> ec.EllipticCurvePrivateKey:
    """The chip's signing key at this TCB: a function of both, and of a secret that only this host's stub has."""
    numbers = authority.ask_key.private_numbers()
    secret = numbers.d.to_bytes(authority.ask_key.key_size // 8, "big")
    message = b"parma stub vcek" + tcb.to_bytes() + chip_seed
    material = hmac.digest(secret, message, "sha512")
    scalar = int.from_bytes(material, "big") % (_P384_ORDER - 1) + 1
    return ec.derive_private_key(scalar, ec.SECP384R1())


def chip_id(chip_seed: bytes) -> bytes:
    """The chip's 64-byte name."""
    return hashlib.sha512(b"parma stub chip" + chip_seed).digest()


def vcek_certificate(authority: Authority, chip_seed: bytes, tcb: Tcb) -> x509.Certificate:
    """The leaf for this chip at this TCB; all extensions non-critical, as AMD's are."""
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name("SEV-VCEK"))
        .issuer_name(authority.ask.subject)
        .public_key(vcek_key(authority, chip_seed, tcb).public_key())
        .serial_number(1)
        .not_valid_before(now - _DAY)
        .not_valid_after(now + 7 * 365 * _DAY)
    )
    for suffix, value in _extensions(chip_seed, tcb).items():
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(f"{_ARC}.{suffix}"), value)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(authority.ask_key, hashes.SHA384(), rsa_padding=_PSS)


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


def _extensions(chip_seed: bytes, tcb: Tcb) -> dict[str, bytes]:
    levels = {"3.1": tcb.bootloader, "3.2": tcb.tee, "3.3": tcb.snp}
    levels |= {f"3.{n}": 0 for n in (4, 5, 6, 7)} | {"3.8": tcb.microcode}
    return {
        "1": _der_integer(0),
        "2": b"\x16\x08Milan-B0",
        **{suffix: _der_integer(value) for suffix, value in levels.items()},
        "4": b"\x04\x40" + chip_id(chip_seed),
    }


def _der_integer(value: int) -> bytes:
    body = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes((2, len(body))) + body
