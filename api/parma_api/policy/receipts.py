"""Transparency ledgers: their keys, and receipts of the CCF profile (policy.md, section 11.7)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from parma_api.policy.cose import (
    CoseError,
    PublicKey,
    Sign1,
    decode,
    parse_sign1,
    public_key,
    verify,
)
from parma_api.policy.fragment import Receipt

_KEY_SET, _KEY_ID, _CLAIMS, _STRUCTURE, _PROOFS = 1, 4, 15, 395, 396
_CCF_STRUCTURE: Final = 2
_INCLUSION: Final = -1
_DIGEST: Final = 32
_MAX_DEPTH: Final = 64
_MAX_KEYS: Final = 256


@dataclass(frozen=True, slots=True)
class LedgerKey:
    """A ledger's key and the subjects of the lists that offered exactly it."""

    encoded: bytes
    key: PublicKey
    subjects: frozenset[str]


@dataclass(frozen=True, slots=True)
class LedgerKeys:
    """All allowed keys, by ledger and key id; immutable, so that a load is all or nothing."""

    keys: Mapping[tuple[str, bytes], LedgerKey] = field(default_factory=dict)

    def with_list(
        self, subject: str, offered: Mapping[str, Sequence[OfferedKey]], allowed: Sequence[str]
    ) -> LedgerKeys:
        """The store after a list. A different key under a known id replaces it and its subjects."""
        merged = dict(self.keys)
        for ledger in allowed:
            for key in offered.get(ledger, ()):
                known = merged.get((ledger, key.key_id))
                same = known is not None and known.encoded == key.encoded
                subjects = known.subjects if known is not None and same else frozenset()
                merged[ledger, key.key_id] = LedgerKey(key.encoded, key.key, subjects | {subject})
        return LedgerKeys(merged)

    def check(self, encoded: Sequence[bytes], message: Sign1) -> tuple[Receipt, ...]:
        """The receipts that hold for `message`; those of unknown ledgers and invalid ones are ignored."""
        digest = hashlib.sha256(message.bare()).digest()
        found = []
        for item in encoded:
            try:
                found.append(self._check(parse_sign1(item), digest))
            except CoseError:
                continue
        return tuple(found)

    def _check(self, receipt: Sign1, data_hash: bytes) -> Receipt:
        claims, key_id = receipt.header.get(_CLAIMS), receipt.header.get(_KEY_ID)
        ledger = claims.get(1) if isinstance(claims, Mapping) else None
        if receipt.header.get(_STRUCTURE) != _CCF_STRUCTURE or receipt.payload is not None:
            raise CoseError("not of the CCF profile")
        if not isinstance(ledger, str) or not isinstance(key_id, bytes):
            raise CoseError("no ledger or no key id")
        known = self.keys.get((ledger, key_id))
        if known is None:
            raise CoseError("an unknown ledger")
        verify(receipt, known.key, _root(receipt, data_hash))
        return Receipt(ledger, tuple(sorted(known.subjects)))


@dataclass(frozen=True, slots=True)
class OfferedKey:
    """A key of a list that was not judged yet."""

    key_id: bytes
    encoded: bytes
    key: PublicKey


def parse_trust_list(payload: bytes) -> dict[str, tuple[OfferedKey, ...]]:
    """Ledgers and their keys. Raises CoseError."""
    document = decode(payload)
    if not isinstance(document, Mapping):
        raise CoseError("a trust list is a map of ledgers")
    return {_ledger(name): _keys(entry) for name, entry in document.items()}


def _ledger(name: object) -> str:
    if not isinstance(name, str) or not name or name == "*":
        raise CoseError("a ledger's name is no text")
    return name


def _keys(entry: object) -> tuple[OfferedKey, ...]:
    listed = entry.get(_KEY_SET) if isinstance(entry, Mapping) else None
    if not isinstance(listed, list | tuple) or len(listed) > _MAX_KEYS:
        raise CoseError("a ledger has no key set, or one that is too large")
    offered = []
    for raw in listed:
        key_id, key = public_key(raw)
        offered.append(OfferedKey(key_id, _encoded(key), key))
    return tuple(offered)


def _encoded(key: PublicKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _root(receipt: Sign1, data_hash: bytes) -> bytes:
    """The root that the inclusion proof leads to. Raises CoseError."""
    proofs = receipt.unprotected.get(_PROOFS)
    listed = proofs.get(_INCLUSION) if isinstance(proofs, Mapping) else None
    if not isinstance(listed, list | tuple) or len(listed) != 1 or not isinstance(listed[0], bytes):
        raise CoseError("not one inclusion proof")
    proof = decode(listed[0])
    if not isinstance(proof, Mapping):
        raise CoseError("the proof is no map")
    node = _leaf(proof.get(1), data_hash)
    path = proof.get(2)
    if not isinstance(path, list | tuple) or len(path) > _MAX_DEPTH:
        raise CoseError("the proof has no path, or one that is too long")
    for step in path:
        left, sibling = step if isinstance(step, list | tuple) and len(step) == 2 else (None, None)
        if not isinstance(left, bool) or not isinstance(sibling, bytes) or len(sibling) != _DIGEST:
            raise CoseError("a step of the path is broken")
        node = hashlib.sha256(sibling + node if left else node + sibling).digest()
    return node


def _leaf(leaf: object, data_hash: bytes) -> bytes:
    if not isinstance(leaf, list | tuple) or len(leaf) != 3:
        raise CoseError("the proof has no leaf")
    transaction, evidence, data = leaf
    if (
        not isinstance(transaction, bytes)
        or len(transaction) != _DIGEST
        or not isinstance(evidence, str)
    ):
        raise CoseError("the leaf is broken")
    if data != data_hash:
        raise CoseError("the receipt is for something else")
    return hashlib.sha256(
        transaction + hashlib.sha256(evidence.encode()).digest() + data_hash
    ).digest()
