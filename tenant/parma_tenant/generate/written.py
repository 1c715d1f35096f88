"""A policy's text read back: the literals that generated policies consist of, and the lines where they stand.

What a hand-written policy computes is not seen here; that is what the evaluator is for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_LIST: Final = r"^{name}\s*:?=\s*"
_BINDING: Final = re.compile(r"^([a-z_0-9]+)\s*:?=\s*([^\n]+)$", re.MULTILINE)
_NO_JSON: Final = re.compile(r'("(?:\\.|[^"\\\n])*")|#[^\n]*|,(?=\s*[\]}])')
"""A text, which stays; a comment and a trailing comma, which JSON has not."""
_KINDS: Final[Mapping[str, type]] = {
    "layers": str,
    "command": str,
    "env_rules": dict,
    "mounts": dict,
    "exec_processes": dict,
    "signals": int,
}
_ENTRY_LISTS: Final = ("command", "signals", "options")
_SPACE: Final = re.compile(r"[\s,]*")


@dataclass(frozen=True, slots=True)
class WrittenContainer:
    """A container's description; lines count from 1."""

    value: Mapping[str, Any]
    line: int
    lines: Mapping[str, int] = field(default_factory=dict)
    """Where each member stands."""

    @property
    def title(self) -> str:
        """Its name, else its id, else its command."""
        for key in ("name", "id"):
            if isinstance(self.value.get(key), str) and self.value[key]:
                return str(self.value[key])
        return " ".join(map(str, self.value.get("command") or ["?"]))


@dataclass(frozen=True, slots=True)
class Written:
    """What a text says."""

    containers: tuple[WrittenContainer, ...]
    lists: Mapping[str, list[Any]]
    """Other literal lists: fragments, external_processes, platform_rules, allow_port_forward."""
    bindings: Mapping[str, str]
    """Names at the top and what one line gives them."""
    lines: Mapping[str, int]
    """Lines of the names at the top."""

    def platform(self, member: str) -> list[Mapping[str, Any]]:
        """The platform rules' `env_rules` or `mounts`, all together."""
        listed = self.lists.get("platform_rules", [])
        rules = [_tidy(rule) for rule in listed if isinstance(rule, dict)]
        return [
            entry for rule in rules for entry in rule.get(member) or () if isinstance(entry, dict)
        ]


def read_policy(text: str) -> Written:
    """Never fails: what is no literal is absent."""
    blanked = _NO_JSON.sub(lambda found: found[1] or " " * len(found[0]), text)
    names = ("fragments", "external_processes", "platform_rules", "allow_port_forward")
    lists = {name: found for name in names if (found := _literal(blanked, name)) is not None}
    bindings: dict[str, str] = {}
    lines: dict[str, int] = {}
    for bound in _BINDING.finditer(text):
        bindings.setdefault(bound[1], bound[2].strip())
        lines.setdefault(bound[1], _line(text, bound.start()))
    return Written(tuple(_containers(blanked)), lists, bindings, lines)


def _start(text: str, name: str) -> int | None:
    found = re.search(_LIST.format(name=name), text, re.MULTILINE)
    return None if found is None else found.end()


def _literal(text: str, name: str) -> list[Any] | None:
    start = _start(text, name)
    if start is None:
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None


def _containers(text: str) -> Iterator[WrittenContainer]:
    at = _start(text, "containers")
    if at is None or text[at : at + 1] != "[":
        return
    at += 1
    decoder = json.JSONDecoder()
    while True:
        skipped = _SPACE.match(text, at)
        at = skipped.end() if skipped is not None else at
        if text[at : at + 1] != "{":
            return
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        yield WrittenContainer(_tidy(value), _line(text, at), _member_lines(text, at, end, value))
        at = end


def _tidy(value: Mapping[str, Any]) -> dict[str, Any]:
    """Members that must be lists are lists of the right kind; what does not belong there is left out."""
    tidy = dict(value)
    for key, kind in _KINDS.items():
        if key in value:
            members = value[key] if isinstance(value[key], list) else []
            kept = [member for member in members if isinstance(member, kind)]
            tidy[key] = [_tidy_entry(m) if isinstance(m, dict) else m for m in kept]
    return tidy


def _tidy_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Rules and processes hold texts, numbers, and lists of those."""
    tidy: dict[str, Any] = {}
    for key, value in entry.items():
        if key in _ENTRY_LISTS:
            listed = value if isinstance(value, list) else []
            tidy[key] = [item for item in listed if isinstance(item, str | int)]
        elif isinstance(value, str | int):
            tidy[key] = value
    return tidy


def _member_lines(text: str, start: int, end: int, value: Mapping[str, Any]) -> dict[str, int]:
    lines = {}
    for key in value:
        found = re.compile(re.escape(json.dumps(key)) + r"\s*:").search(text, start, end)
        if found is not None:
            lines[key] = _line(text, found.start())
    return lines


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
