"""The canonical text of an OCI `linux.seccomp` object and its digest (policy.md, section 8.9)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Final

from parma_api.status import InvalidArgumentError

_UINT32: Final = (1 << 32) - 1
_UINT64: Final = (1 << 64) - 1
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_ESCAPES: Final = {
    '"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t",
    "<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029",
}  # fmt: skip
_ESCAPED: Final = re.compile('["\\\\<>&\u2028\u2029\x00-\x1f]')


def seccomp_digest(profile: object) -> str:
    """SHA-256 of the canonical text in hexadecimal; "" without a profile. Raises InvalidArgumentError."""
    text = canonical_text(profile)
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def canonical_profile(profile: object) -> dict[str, object] | None:
    """The object that was hashed, which is the one to put in force: dropped members must not come back."""
    text = canonical_text(profile)
    decoded = json.loads(text) if text else None
    assert decoded is None or isinstance(decoded, dict)
    return decoded


def canonical_text(profile: object) -> str:
    """The text that is hashed; "" if `profile` is None. Raises InvalidArgumentError for a document of another form."""
    if profile is None:
        return ""
    source = _object(profile, "seccomp")
    members = [_member("defaultAction", _text(source, "defaultAction"))]
    members += _optional_number(source, "defaultErrnoRet")
    members += _optional_texts(source, "architectures") + _optional_texts(source, "flags")
    members += _optional_text(source, "listenerPath") + _optional_text(source, "listenerMetadata")
    rules = [_rule(rule) for rule in _list(source, "syscalls")]
    members += [_member("syscalls", _array(rules))] if rules else []
    return _braced(members)


def _rule(raw: object) -> str:
    rule = _object(raw, "syscalls")
    names = (
        _array([_quote(n) for n in _texts(rule, "names")])
        if rule.get("names") is not None
        else "null"
    )
    members = [_member("names", names), _member("action", _text(rule, "action"))]
    members += _optional_number(rule, "errnoRet")
    arguments = [_argument(argument) for argument in _list(rule, "args")]
    members += [_member("args", _array(arguments))] if arguments else []
    return _braced(members)


def _argument(raw: object) -> str:
    argument = _object(raw, "args")
    members = [
        _member("index", str(_number(argument, "index", _UINT32))),
        _member("value", str(_number(argument, "value", _UINT64))),
    ]
    second = _number(argument, "valueTwo", _UINT64)
    members += [_member("valueTwo", str(second))] if second else []
    return _braced([*members, _member("op", _text(argument, "op"))])


def _object(raw: object, what: str) -> Mapping[str, object]:
    if not isinstance(raw, Mapping):
        raise InvalidArgumentError(f"seccomp profile: {what} is no object")
    return raw


def _list(source: Mapping[str, object], name: str) -> list[object]:
    value = source.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidArgumentError(f"seccomp profile: {name} is no list")
    return value


def _texts(source: Mapping[str, object], name: str) -> list[str]:
    texts: list[str] = []
    for item in _list(source, name):
        if not isinstance(item, str):
            raise InvalidArgumentError(f"seccomp profile: {name} holds something else than texts")
        texts.append(item)
    return texts


def _string(source: Mapping[str, object], name: str) -> str:
    value = source.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidArgumentError(f"seccomp profile: {name} is no text")
    return value


def _number(source: Mapping[str, object], name: str, limit: int) -> int:
    value = source.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
        raise InvalidArgumentError(f"seccomp profile: {name} is no unsigned number")
    return value


def _optional_number(source: Mapping[str, object], name: str) -> list[str]:
    return [] if source.get(name) is None else [_member(name, str(_number(source, name, _UINT32)))]


def _optional_text(source: Mapping[str, object], name: str) -> list[str]:
    return [_member(name, _text(source, name))] if _string(source, name) else []


def _optional_texts(source: Mapping[str, object], name: str) -> list[str]:
    texts = _texts(source, name)
    return [_member(name, _array([_quote(text) for text in texts]))] if texts else []


def _text(source: Mapping[str, object], name: str) -> str:
    return _quote(_string(source, name))


def _member(name: str, encoded: str) -> str:
    return f'"{name}":{encoded}'


def _array(encoded: list[str]) -> str:
    return f"[{','.join(encoded)}]"


def _braced(members: list[str]) -> str:
    return "{" + ",".join(members) + "}"


def _quote(text: str) -> str:
    """As Go's encoding/json writes it, which is what existing policies were hashed with."""
    whole = _SURROGATE.sub("\ufffd", text)
    return (
        '"'
        + _ESCAPED.sub(lambda m: _ESCAPES.get(m.group(), f"\\u{ord(m.group()):04x}"), whole)
        + '"'
    )
