"""The broker's own certificates: a root that relying parties name, and beneath it who signs tokens and releases, and
TLS.

Root and signing key are made once and kept sealed in the database, so that brokers that share it are one service. The
certificates are made at each start, for the host's name of now.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import json
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from parma_api.status import DataLossError
from parma_tenant.broker.vault import Vault
from parma_tenant.claims.encoding import canonical_json, to_b64url
from parma_tenant.claims.keys import rsa_jwk

_DAY: Final = datetime.timedelta(days=1)
_USAGE: Final = (
    "digital_signature content_commitment key_encipherment data_encipherment key_agreement"
    " key_cert_sign crl_sign encipher_only decipher_only"
).split()


@dataclass(frozen=True, slots=True)
class Authority:
    """Root, and the signer beneath it."""

    root: x509.Certificate
    root_key: ec.EllipticCurvePrivateKey
    signer: x509.Certificate
    signer_key: rsa.RSAPrivateKey

    @property
    def kid(self) -> str:
        """The signing key's name: its RFC 7638 thumbprint."""
        jwk = rsa_jwk(self.signer_key.public_key())
        text = canonical_json({name: jwk[name] for name in ("e", "kty", "n")})
        return to_b64url(hashlib.sha256(text).digest())

    def header(self) -> dict[str, Any]:
        """Of what it signs: kid, x5c, x5t#S256."""
        der = self.signer.public_bytes(Encoding.DER)
        return {
            "kid": self.kid,
            "x5c": self.x5c(),
            "x5t#S256": to_b64url(hashlib.sha256(der).digest()),
        }

    def x5c(self) -> list[str]:
        """The signer's certificate, then the root, as RFC 7515 has them."""
        return [
            base64.b64encode(one.public_bytes(Encoding.DER)).decode()
            for one in (self.signer, self.root)
        ]

    def root_pem(self) -> bytes:
        """What relying parties name."""
        return self.root.public_bytes(Encoding.PEM)

    def tls_pem(self, hosts: tuple[str, ...]) -> bytes:
        """A fresh TLS key and certificate for these names, as one PEM text: secret."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _leaf("Parma broker", key.public_key(), hosts, self.root, self.root_key)
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return secret + certificate.public_bytes(Encoding.PEM)


def load_authority(vault: Vault, hosts: tuple[str, ...]) -> Authority:
    """The brokers' authority, made when there is none, with a signer's certificate for `hosts`. Raises ApiError."""
    fresh = b"" if vault.has_signer() else _fresh()
    kept = json.loads(vault.signer(fresh))
    root = x509.load_pem_x509_certificate(kept["root"].encode())
    root_key = load_pem_private_key(kept["root_key"].encode(), password=None)
    signer_key = load_pem_private_key(kept["signer_key"].encode(), password=None)
    if not isinstance(root_key, ec.EllipticCurvePrivateKey) or not isinstance(
        signer_key, rsa.RSAPrivateKey
    ):
        raise DataLossError("the database holds no signing keys of a broker")
    signer = _leaf("Parma broker signer", signer_key.public_key(), hosts, root, root_key)
    return Authority(root, root_key, signer, signer_key)


def _fresh() -> bytes:
    root_key = ec.generate_private_key(ec.SECP384R1())
    root = _root(root_key)
    signer_key = rsa.generate_private_key(65537, 3072)
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return canonical_json(
        {
            "root": root.public_bytes(Encoding.PEM).decode(),
            "root_key": root_key.private_bytes(*form).decode(),
            "signer_key": signer_key.private_bytes(*form).decode(),
        }
    )


def _root(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = _name("Parma broker root")
    now = datetime.datetime.now(datetime.UTC)
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + 20 * 365 * _DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA384())
    )


def _leaf(
    common_name: str,
    public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    hosts: tuple[str, ...],
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(root.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + 2 * 365 * _DAY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_general(host) for host in hosts]), critical=False
        )
        .add_extension(authority, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(root_key, hashes.SHA384())
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*names: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in names for name in _USAGE})
