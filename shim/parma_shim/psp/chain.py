"""The stub's authorities: ARK, ASK and ASVK in the form of AMD's, under names that say stub; and the revocation list.

Forms: attestation reference section 3 (AMD 57230). The authorities of a product line are made once and kept in a folder
of the host's, keys readable by their owner only.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from parma_api.snp.bits import SigningKey
from parma_api.snp.kds import crl_path
from parma_api.snp.product import ProductLine
from parma_api.status import DataLossError, InvalidArgumentError

PSS: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
DAY: Final = datetime.timedelta(days=1)
_PEM: Final = serialization.Encoding.PEM
_KDS: Final = "http://kds.stub.invalid"
_SERIALS: Final = {
    ProductLine.MILAN: (65536, 65537, 65793),
    ProductLine.GENOA: (131072, 131074, 131329),
    ProductLine.TURIN: (196608, 196609, 196865),
}
"""Of ARK, ASK and ASVK: AMD's."""


@dataclass(frozen=True, slots=True)
class Authority:
    """Root and issuer of one line, for one kind of leaf, with their keys. `ask` is the ASVK where leaves are VLEKs."""

    line: ProductLine
    signer: SigningKey
    ark: x509.Certificate
    ark_key: rsa.RSAPrivateKey
    ask: x509.Certificate
    ask_key: rsa.RSAPrivateKey

    def pem(self) -> bytes:
        """Issuer then root, as AMD's service orders them."""
        return self.ask.public_bytes(_PEM) + self.ark.public_bytes(_PEM)

    def secret(self) -> bytes:
        """What only this host's stub knows."""
        numbers = self.ask_key.private_numbers()
        return numbers.d.to_bytes(self.ask_key.key_size // 8, "big")


def load_or_create(
    folder: Path, product: str = "Milan", signer: SigningKey = SigningKey.VCEK
) -> Authority:
    """The authority kept in `folder`, made when there is none, once, also by several at the same time.

    Raises InvalidArgumentError for a line without a stub, DataLossError for files that are no authority, OSError.
    """
    line = known_line(product)
    issuer = "asvk" if signer is SigningKey.VLEK else "ask"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        pair = _Pair(folder, f"{line}.ark")
        if not pair.exists():
            _discard(folder, line)
            _make_root(pair, line)
        ark, ark_key = pair.load()
        below = _Pair(folder, f"{line}.{issuer}")
        if not below.exists():
            _make_issuer(below, line, signer, ark, ark_key)
        return Authority(line, signer, ark, ark_key, *below.load())


def known_line(product: str) -> ProductLine:
    """Raises InvalidArgumentError."""
    try:
        line = ProductLine(product)
    except ValueError:
        line = ProductLine.VENICE
    if line not in _SERIALS:
        raise InvalidArgumentError(
            f"no stub of the product line {product!r}: {', '.join(_SERIALS)}"
        )
    return line


@dataclass(frozen=True, slots=True)
class _Pair:
    """A certificate and its key, as files."""

    folder: Path
    name: str

    def exists(self) -> bool:
        return all((self.folder / f"{self.name}.{part}").exists() for part in ("key", "pem"))

    def load(self) -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
        try:
            certificate = x509.load_pem_x509_certificate(self._read("pem"))
            key = serialization.load_pem_private_key(self._read("key"), password=None)
        except ValueError as error:
            raise DataLossError(
                f"{self.folder}: {self.name} is damaged; remove the folder"
            ) from error
        if not isinstance(key, rsa.RSAPrivateKey) or key.public_key() != certificate.public_key():
            raise DataLossError(f"{self.folder}: {self.name} is no pair; remove the folder")
        return certificate, key

    def store(self, certificate: x509.Certificate, key: rsa.RSAPrivateKey) -> None:
        """The certificate last: where it is, the key is."""
        secret = key.private_bytes(
            _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        for part, data in (("key", secret), ("pem", certificate.public_bytes(_PEM))):
            path = self.folder / f".{self.name}.{part}.{os.getpid()}"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            path.replace(self.folder / f"{self.name}.{part}")

    def _read(self, part: str) -> bytes:
        return (self.folder / f"{self.name}.{part}").read_bytes()


def _discard(folder: Path, line: ProductLine) -> None:
    """What hangs on a root that is not whole."""
    for name in ("ark", "ask", "asvk"):
        for part in ("key", "pem"):
            with contextlib.suppress(FileNotFoundError):
                (folder / f"{line}.{name}.{part}").unlink()


def _make_root(pair: _Pair, line: ProductLine) -> None:
    key = _new_key()
    name = subject(f"ARK-STUB-{line}")
    serial = _SERIALS[line][0]
    pair.store(_authority(line, SigningKey.VCEK, name, name, key, key, serial), key)


def _make_issuer(
    pair: _Pair,
    line: ProductLine,
    signer: SigningKey,
    ark: x509.Certificate,
    ark_key: rsa.RSAPrivateKey,
) -> None:
    key, vlek = _new_key(), signer is SigningKey.VLEK
    name = subject(f"SEV-VLEK-STUB-{line}" if vlek else f"SEV-STUB-{line}")
    serial = _SERIALS[line][2 if vlek else 1]
    pair.store(_authority(line, signer, name, ark.subject, key, ark_key, serial), key)


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=4096)


def subject(common_name: str) -> x509.Name:
    """A name that says stub twice."""
    oid = x509.NameOID
    parts = (
        (oid.ORGANIZATIONAL_UNIT_NAME, "Stub, not for production"),
        (oid.COUNTRY_NAME, "US"),
        (oid.ORGANIZATION_NAME, "Parma stub"),
        (oid.COMMON_NAME, common_name),
    )
    return x509.Name([x509.NameAttribute(key, value) for key, value in parts])


def _authority(
    line: ProductLine,
    signer: SigningKey,
    name: x509.Name,
    issuer: x509.Name,
    key: rsa.RSAPrivateKey,
    by: rsa.RSAPrivateKey,
    serial: int,
) -> x509.Certificate:
    now, is_root = datetime.datetime.now(datetime.UTC), name == issuer
    url = x509.UniformResourceIdentifier(_KDS + crl_path(line, signer))
    points = x509.CRLDistributionPoints([x509.DistributionPoint([url], None, None, None)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - DAY)
        .not_valid_after(now + 25 * 365 * DAY)
        .add_extension(
            x509.BasicConstraints(ca=True, path_length=None if is_root else 0), critical=True
        )
        .add_extension(_usage(*_USES["root" if is_root else "issuer"]), critical=True)
        .add_extension(points, critical=False)
        .sign(by, hashes.SHA384(), rsa_padding=PSS)
    )


_USES: Final = {"root": ("key_cert_sign", "crl_sign"), "issuer": ("key_cert_sign",)}
_ALL_USES: Final = (
    "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
    " encipher_only decipher_only"
).split()


def _usage(*uses: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in uses for name in _ALL_USES})


def revocation_list(
    authority: Authority, revoked: tuple[int, ...] = (), days: int = 180
) -> x509.CertificateRevocationList:
    """Signed by the ARK now, good for `days`; `revoked` are serials of issuers."""
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.ark.subject)
        .last_update(now - DAY)
        .next_update(now + days * DAY)
    )
    for certificate in _revoked(revoked, now):
        builder = builder.add_revoked_certificate(certificate)
    return builder.sign(authority.ark_key, hashes.SHA384(), rsa_padding=PSS)


def _revoked(serials: tuple[int, ...], now: datetime.datetime) -> Iterator[x509.RevokedCertificate]:
    for serial in serials:
        builder = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
        yield builder.build()
