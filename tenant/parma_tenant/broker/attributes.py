"""A key's attributes, as Key Vault names them: exportable, enabled, nbf and exp in seconds of the epoch.

One that is not known is refused: whoever wrote it means something by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from parma_api.status import InvalidArgumentError

_TIMES: Final = ("nbf", "exp")
_NAMES: Final = ("exportable", "enabled", *_TIMES)
_LATEST: Final = 1 << 40


def read_attributes(value: object) -> dict[str, Any]:
    """With `enabled`. Raises InvalidArgumentError."""
    if not isinstance(value, dict) or set(value) - set(_NAMES):
        raise InvalidArgumentError(f"attributes is an object of {', '.join(_NAMES)}")
    if value.get("exportable") is not True:
        raise InvalidArgumentError("a key with a release policy has the attribute exportable: true")
    if not isinstance(value.get("enabled", True), bool):
        raise InvalidArgumentError("enabled is true or false")
    for name in _TIMES:
        time = value.get(name, 0)
        if type(time) is not int or not 0 <= time < _LATEST:
            raise InvalidArgumentError(f"{name} is a number of seconds")
    return {"enabled": True, **value}


def is_usable(attributes: Mapping[str, Any], now: float) -> bool:
    """Whether the key may be released at `now`, seconds of the epoch."""
    begin, end = attributes.get("nbf", 0), attributes.get("exp", _LATEST)
    return attributes.get("enabled") is True and begin <= now < end
