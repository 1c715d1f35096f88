"""A second opinion on a chain: OpenSSL's path validation, through pyOpenSSL, at the given time.

It can only refuse: a chain must satisfy both. What it says goes to the check that it concerns.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Final

from OpenSSL import crypto

from parma_tenant.verify.path import Path

_VALIDITY: Final = frozenset((9, 10, 13, 14))
"""X509_V_ERR_CERT_NOT_YET_VALID, CERT_HAS_EXPIRED, and the two for malformed dates (openssl/x509_vfy.h)."""
_SIGNATURE: Final = frozenset((4, 6, 7))
"""X509_V_ERR_UNABLE_TO_DECRYPT_CERT_SIGNATURE, UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY, CERT_SIGNATURE_FAILURE."""


def second_opinion(path: Path, at: datetime.datetime) -> Mapping[str, str]:
    """Check name to OpenSSL's complaint; empty when it agrees. The path's root is taken as trusted here."""
    leaf, issuer, root = path.certificates
    try:
        store = crypto.X509Store()
        store.add_cert(crypto.X509.from_cryptography(root))
        store.set_time(at.astimezone(datetime.UTC))
        context = crypto.X509StoreContext(
            store,
            crypto.X509.from_cryptography(leaf),
            [crypto.X509.from_cryptography(issuer)],
        )
        context.verify_certificate()
    except crypto.X509StoreContextError as error:
        number, text = error.errors[0], error.errors[2]
        return {_concerned(int(number)): str(text)}
    except (crypto.Error, ValueError) as error:
        return {"chain.signature": f"cannot judge: {type(error).__name__}"}
    return {}


def _concerned(number: int) -> str:
    if number in _VALIDITY:
        return "chain.validity"
    return "chain.signature" if number in _SIGNATURE else "chain.names"
