"""JSON of the host, read strictly: one meaning for each document, or none."""

from __future__ import annotations

import json
from typing import Final, NoReturn

from parma_api.status import InvalidArgumentError, ResourceExhaustedError

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 24


def read_document(data: bytes, what: str) -> dict[str, object]:
    """The object in `data`. Raises InvalidArgumentError (malformed, a name twice, a fraction), ResourceExhaustedError.

    `what` names the document in messages.
    """
    if len(data) > MAX_BYTES:
        raise ResourceExhaustedError(f"{what}: {len(data)} bytes, at most {MAX_BYTES} are read")
    try:
        document = json.loads(
            data.decode(),
            object_pairs_hook=_object,
            parse_float=_no_fraction,
            parse_constant=_no_fraction,
        )
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"{what}: {_reason(error)}") from None
    if not isinstance(document, dict):
        raise InvalidArgumentError(f"{what}: not a JSON object")
    _check(document, what, 1)
    return document


class _RepeatedNameError(ValueError):
    pass


class _FractionError(ValueError):
    pass


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RepeatedNameError("an object has the same name twice")
    return found


def _no_fraction(text: str) -> NoReturn:
    raise _FractionError(
        f"{text[:32]!r} is no integer, and no field of the document is anything else"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, _RepeatedNameError | _FractionError):
        return str(error)
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at line {error.lineno}"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return f"nested deeper than {MAX_DEPTH}" if isinstance(error, RecursionError) else "not JSON"


def _check(value: object, what: str, depth: int) -> None:
    """Depth, and texts: programs written in C read them up to a NUL, and no surrogate stands alone."""
    if depth > MAX_DEPTH:
        raise InvalidArgumentError(f"{what}: nested deeper than {MAX_DEPTH}")
    if isinstance(value, dict):
        for name, member in value.items():
            _check(name, what, depth)
            _check(member, what, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, what, depth + 1)
    elif isinstance(value, str) and ("\0" in value or not _is_unicode(value)):
        raise InvalidArgumentError(f"{what}: a text holds NUL or half a surrogate pair")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
