"""The bundle's config.json, read as far as the shim needs it: what has the wrong form is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from parma_shim.errors import UsageError

MAX_DOCUMENT = 4 << 20
Object = dict[str, object]


def read_document(bundle: Path) -> Object:
    """Raises UsageError."""
    path = bundle / "config.json"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_DOCUMENT:
        raise UsageError(f"{path} has more than {MAX_DOCUMENT} bytes")
    return parse_object(data, str(path))


def parse_object(data: bytes, what: str) -> Object:
    """Raises UsageError."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{what} is not JSON") from error
    if not isinstance(document, dict):
        raise UsageError(f"{what} is not a JSON object")
    return document


def member(document: Mapping[str, object], name: str) -> Object:
    """An object in an object; empty when absent. Raises UsageError."""
    value = document.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"config.json: {name} is not an object")
    return cast("Object", value)


def objects(document: Mapping[str, object], name: str) -> Sequence[Object]:
    """A list of objects; empty when absent. Raises UsageError."""
    value = document.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UsageError(f"config.json: {name} is not a list of objects")
    return cast("list[Object]", value)


def texts(document: Mapping[str, object], name: str) -> tuple[str, ...]:
    """A list of texts; empty when absent. Raises UsageError."""
    value = document.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UsageError(f"config.json: {name} is not a list of texts")
    return tuple(value)


def text(document: Mapping[str, object], name: str) -> str:
    """A text; empty when absent. Raises UsageError."""
    value = document.get(name, "")
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UsageError(f"config.json: {name} is not a text")
    return value


def text_map(document: Mapping[str, object], name: str) -> dict[str, str]:
    """An object of texts. Raises UsageError."""
    found = member(document, name)
    if not all(isinstance(value, str) for value in found.values()):
        raise UsageError(f"config.json: {name} holds something else than texts")
    return cast("dict[str, str]", found)
