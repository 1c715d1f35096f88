"""Chains and reports in AMD's form under keys of our own, each part of which a test can make wrong."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from parma_api.snp.product import TcbLayout
from parma_api.snp.report import SIGNED_SIZE, FirmwareVersion, Report, build, with_signature
from parma_api.snp.tcb import Tcb

NOW = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
YEAR = datetime.timedelta(days=365)
ARC = "1.3.6.1.4.1.3704.1"
PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
MILAN_TCB = Tcb(TcbLayout.MILAN, 4, 0, 24, 219)
TURIN_TCB = Tcb(TcbLayout.TURIN, 1, 1, 4, 81, fmc=1)
CHIP = bytes(range(1, 65))
USAGE = dict.fromkeys(
    (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement"
        " key_cert_sign crl_sign encipher_only decipher_only"
    ).split(),
    False,
)


@cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    """One key for each name; 2048 bits, because tests wait for them."""
    assert name
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def leaf_key(curve: type[ec.EllipticCurve]) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve())


def named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def integer(value: int) -> bytes:
    body = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes((2, len(body))) + body


def text(value: str) -> bytes:
    return bytes((0x16, len(value))) + value.encode()


def leaf_extensions(
    tcb: Tcb, product: str, chip: bytes | None, csp: str | None
) -> dict[str, bytes]:
    turin = tcb.layout is TcbLayout.TURIN
    levels = {"3.1": tcb.bootloader, "3.2": tcb.tee, "3.3": tcb.snp, "3.8": tcb.microcode}
    levels |= dict.fromkeys(("3.5", "3.6", "3.7") if turin else ("3.4", "3.5", "3.6", "3.7"), 0)
    if tcb.fmc is not None:
        levels["3.9"] = tcb.fmc
    found = {"1": integer(int(turin)), "2": text(product)}
    found |= {suffix: integer(level) for suffix, level in sorted(levels.items())}
    if chip is not None:
        found["4"] = chip
    if csp is not None:
        found["5"] = text(csp)
    return found


@dataclass(frozen=True)
class Spec:
    """One certificate. `signer` is the name of the key that signs it."""

    subject: str
    issuer: str
    key: str
    signer: str
    serial: int = 1
    ca: bool | None = True
    path_length: int | None = None
    usage: frozenset[str] | None = frozenset({"key_cert_sign"})
    start: datetime.datetime = NOW - YEAR
    end: datetime.datetime = NOW + YEAR
    extensions: Mapping[str, bytes] = field(default_factory=dict)
    critical: bool = False
    scheme: padding.AsymmetricPadding = field(default_factory=lambda: PSS)
    digest: hashes.HashAlgorithm = field(default_factory=hashes.SHA384)
    curve: type[ec.EllipticCurve] | None = None

    def but(self, **changes: object) -> Spec:
        return replace(self, **changes)  # type: ignore[arg-type]

    def make(self) -> x509.Certificate:
        key = leaf_key(self.curve) if self.curve else rsa_key(self.key)
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(self.subject))
            .issuer_name(named(self.issuer))
            .public_key(key.public_key())
            .serial_number(self.serial)
            .not_valid_before(self.start)
            .not_valid_after(self.end)
        )
        if self.ca is not None:
            constraints = x509.BasicConstraints(ca=self.ca, path_length=self.path_length)
            builder = builder.add_extension(constraints, critical=True)
        if self.usage is not None:
            usage = x509.KeyUsage(**(USAGE | dict.fromkeys(self.usage, True)))
            builder = builder.add_extension(usage, critical=True)
        for suffix, value in self.extensions.items():
            oid = x509.ObjectIdentifier(f"{ARC}.{suffix}")
            builder = builder.add_extension(
                x509.UnrecognizedExtension(oid, value), critical=self.critical
            )
        return builder.sign(rsa_key(self.signer), self.digest, rsa_padding=self.scheme)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Chain:
    """Root, issuer and leaf of one report."""

    root: Spec
    issuer: Spec
    leaf: Spec

    def ders(self) -> tuple[bytes, ...]:
        """Leaf first."""
        return tuple(spec.make().public_bytes(Encoding.DER) for spec in self.specs)

    @property
    def specs(self) -> tuple[Spec, ...]:
        return (self.leaf, self.issuer, self.root)


def chain(
    line: str = "Milan",
    tcb: Tcb = MILAN_TCB,
    chip: bytes = CHIP,
    *,
    vlek: bool = False,
) -> Chain:
    ark, ask = f"ARK-{line}", f"SEV-VLEK-{line}" if vlek else f"SEV-{line}"
    extensions = (
        leaf_extensions(tcb, line, None, "ExampleCloud")
        if vlek
        else leaf_extensions(tcb, line, chip, None)
    )
    return Chain(
        root=Spec(ark, ark, "root", "root", usage=frozenset({"key_cert_sign", "crl_sign"})),
        issuer=Spec(ask, ark, "issuer", "root", serial=2, path_length=0),
        leaf=Spec(
            "SEV-VLEK" if vlek else "SEV-VCEK",
            ask,
            "leaf",
            "issuer",
            serial=3,
            ca=None,
            usage=None,
            extensions=extensions,
            curve=ec.SECP384R1,
        ),
    )


def report(tcb: Tcb = MILAN_TCB, chip: bytes = CHIP, **fields: object) -> Report:
    """An unsigned report of version 3; the CPUID is the line's of the TCB's layout (Milan or Turin)."""
    raw = tcb.to_bytes()
    turin = tcb.layout is TcbLayout.TURIN
    values: dict[str, object] = {
        "version": 3,
        "guest_svn": 0,
        "policy": 0x30000,
        "family_id": bytes(16),
        "image_id": bytes(16),
        "vmpl": 0,
        "signature_algorithm": 1,
        "current_tcb": raw,
        "platform_info": 1,
        "key_info": 0,
        "report_data": bytes(64),
        "measurement": b"\x01" * 48,
        "host_data": b"\x02" * 32,
        "id_key_digest": bytes(48),
        "author_key_digest": bytes(48),
        "report_id": b"\x03" * 32,
        "report_id_ma": b"\xff" * 32,
        "reported_tcb": raw,
        "cpuid_family": 0x1A if turin else 0x19,
        "cpuid_model": 2 if turin else 1,
        "cpuid_stepping": 1,
        "chip_id": chip.ljust(64, b"\0"),
        "committed_tcb": raw,
        "current_firmware": FirmwareVersion(1, 55, 29),
        "committed_firmware": FirmwareVersion(1, 55, 29),
        "launch_tcb": raw,
        "launch_mitigations": 0,
        "current_mitigations": 0,
        "signature_r": bytes(72),
        "signature_s": bytes(72),
        "reserved": b"",
    }
    return Report(**(values | fields))  # type: ignore[arg-type]


def sign(unsigned: Report | bytes) -> bytes:
    """The report's bytes with the leaf's signature."""
    data = bytearray(build(unsigned) if isinstance(unsigned, Report) else unsigned)
    signature = leaf_key(ec.SECP384R1).sign(bytes(data[:SIGNED_SIZE]), ec.ECDSA(hashes.SHA384()))
    r, s = decode_dss_signature(signature)
    blank = report()
    tail = build(with_signature(blank, r, s))[SIGNED_SIZE:]
    data[SIGNED_SIZE:] = tail
    return bytes(data)


def crl(
    serials: tuple[int, ...] = (),
    *,
    issuer: str = "ARK-Milan",
    signer: str = "root",
    start: datetime.datetime = NOW - YEAR,
    end: datetime.datetime = NOW + YEAR,
    delta: bool = False,
) -> x509.CertificateRevocationList:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(named(issuer))
        .last_update(start)
        .next_update(end)
        .add_extension(x509.CRLNumber(7), critical=False)
    )
    if delta:
        builder = builder.add_extension(x509.DeltaCRLIndicator(3), critical=True)
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(start)
        builder = builder.add_revoked_certificate(revoked.build())
    return builder.sign(rsa_key(signer), hashes.SHA384(), rsa_padding=PSS)
