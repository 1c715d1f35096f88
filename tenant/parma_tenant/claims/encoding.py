"""Texts in which keys and claims travel: canonical JSON (RFC 8785 for what occurs here) and base64url, read
strictly.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from parma_api.status import InvalidArgumentError

_B64URL: Final = re.compile(r"[A-Za-z0-9_-]*")
_MAX_DEPTH: Final = 32


def canonical_json(document: Mapping[str, Any]) -> bytes:
    """Sorted names, no white space, UTF-8. As RFC 8785 for ASCII names and values that are no fractions."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def read_object(data: bytes, what: str, limit: int) -> dict[str, Any]:
    """A JSON object. Raises InvalidArgumentError: too long, no JSON, no object, a name twice, too deep."""
    if len(data) > limit:
        raise InvalidArgumentError(f"{what} has at most {limit} bytes, this has {len(data)}")
    try:
        document = json.loads(
            data.decode("utf-8"), object_pairs_hook=_no_doubles, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        # The parser's own words would quote the text, which may be a secret.
        raise InvalidArgumentError(f"{what} is no JSON, or has a name twice") from None
    if not isinstance(document, dict):
        raise InvalidArgumentError(f"{what} is no JSON object")
    if _depth(document) > _MAX_DEPTH:
        raise InvalidArgumentError(f"{what} is nested more than {_MAX_DEPTH} deep")
    return document


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _depth(value: object) -> int:
    deepest, level = 0, [value]
    while level and deepest <= _MAX_DEPTH:
        deepest += 1
        level = [
            child
            for one in level
            if isinstance(one, dict | list)
            for child in (one.values() if isinstance(one, dict) else one)
        ]
    return deepest


def to_b64url(data: bytes) -> str:
    """Without padding (RFC 7515)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_b64url(text: object, what: str) -> bytes:
    """With or without padding.

    Raises InvalidArgumentError for anything else, unused bits that are not zero included.
    """
    wrong = InvalidArgumentError(f"{what} is no base64url")
    if not isinstance(text, str):
        raise wrong
    bare = text.rstrip("=")
    padded = bare + "=" * (-len(bare) % 4)
    if text not in (bare, padded) or not _B64URL.fullmatch(bare):
        raise wrong
    try:
        data = base64.urlsafe_b64decode(padded)
    except (binascii.Error, ValueError):
        raise wrong from None
    if to_b64url(data) != bare:
        raise wrong
    return data


def from_b64(text: object, what: str) -> bytes:
    """Standard base64, padded. Raises InvalidArgumentError."""
    try:
        if isinstance(text, str):
            return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        pass
    raise InvalidArgumentError(f"{what} is no base64")
