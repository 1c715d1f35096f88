"""Signed envelopes: everything about a fragment that is judged before the policy is asked (policy.md, section 11.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from parma_api.policy.cose import CoseError, Sign1, parse_sign1, verify
from parma_api.policy.did_x509 import (
    ChainError,
    IssuerError,
    check_issuer,
    find_path,
    load_certificates,
)

_ALGORITHM, _CLAIMS, _CHAIN, _RECEIPTS = 1, 15, 33, 394
_ISSUER, _SUBJECT, _SVN = 1, 2, "svn"
_MAX_RECEIPTS: Final = 16


class EnvelopeError(Exception):
    """The envelope is refused; `code` is the reason code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Envelope:
    """What was proved: this issuer signed this payload for this feed."""

    issuer: str
    feed: str
    header_svn: int | None
    payload: bytes
    message: Sign1
    receipts: tuple[bytes, ...] = ()
    """Unproved, each to be checked with the keys of the ledger it names."""


def open_signed(encoded: bytes) -> tuple[Sign1, list[object]]:
    """Steps 1 to 3: the message and its chain's path, signer first. Raises EnvelopeError (fragment.envelope)."""
    try:
        message = parse_sign1(encoded)
        chain, payload = _signed_parts(message)
        path = find_path(load_certificates(chain))
        verify(message, path[0].public_key(), payload)
    except (CoseError, ChainError) as error:
        raise EnvelopeError("fragment.envelope", str(error)) from None
    except (ValueError, TypeError) as error:  # a key of a kind that the library does not read
        raise EnvelopeError(
            "fragment.envelope", f"the signer's key: {type(error).__name__}"
        ) from None
    return message, list(path)


def _signed_parts(message: Sign1) -> tuple[list[bytes], bytes]:
    chain = message.header.get(_CHAIN)
    if not isinstance(chain, list | tuple) or not all(isinstance(der, bytes) for der in chain):
        raise CoseError("the protected header has no list of certificates")
    if message.payload is None or message.header.get(_ALGORITHM) is None:
        raise CoseError("the payload is detached, or no algorithm is stated")
    return list(chain), message.payload


def open_envelope(encoded: bytes) -> Envelope:
    """All of section 11.1 but the receipts. Raises EnvelopeError."""
    message, path = open_signed(encoded)
    issuer, feed, svn = _names(message)
    try:
        check_issuer(issuer, path)  # type: ignore[arg-type]
    except IssuerError as error:
        raise EnvelopeError("fragment.issuer_unproven", str(error)) from None
    assert message.payload is not None
    return Envelope(issuer, feed, svn, message.payload, message, _receipts(message))


def _names(message: Sign1) -> tuple[str, str, int | None]:
    claims = message.header.get(_CLAIMS)
    svn: int | None = None
    if _CLAIMS in message.header:
        found = claims if isinstance(claims, Mapping) else {}
        issuer, feed = found.get(_ISSUER), found.get(_SUBJECT)
        if _SVN in found:
            svn = _number(found[_SVN])
    else:
        issuer, feed = message.header.get("iss"), message.header.get("feed")
    if not isinstance(issuer, str) or not isinstance(feed, str) or not issuer or not feed:
        raise EnvelopeError("fragment.names_missing", "issuer or feed is missing, or no text")
    return issuer, feed, svn


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -(1 << 63) <= value < 1 << 63:
        raise EnvelopeError("fragment.svn_type", "the version in the header is no integer")
    return value


def _receipts(message: Sign1) -> tuple[bytes, ...]:
    listed = message.unprotected.get(_RECEIPTS)
    if not isinstance(listed, list | tuple):
        return ()
    return tuple(item for item in listed[:_MAX_RECEIPTS] if isinstance(item, bytes))
