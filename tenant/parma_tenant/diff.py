"""What one policy allows that another does not: by the literals of the texts; what is computed is compared as text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from parma_tenant.generate.model import FLAGS
from parma_tenant.generate.written import Written, WrittenContainer, read_policy

_LISTS: Final = ("env_rules", "mounts", "exec_processes", "signals")
_EXACT: Final = (
    "layers",
    "command",
    "working_dir",
    "user",
    "capabilities",
    "seccomp_profile_sha256",
)
_WIDER_TRUE: Final = ("allow_elevated", "allow_stdio_access")


@dataclass(frozen=True, slots=True)
class Change:
    """`side` is `-` for what only the first allows, `+` for what only the second does."""

    side: str
    where: str
    what: str
    value: object

    def to_json(self) -> dict[str, object]:
        """As `parma policy diff --json` prints it."""
        return {"side": self.side, "where": self.where, "what": self.what, "value": self.value}

    def __str__(self) -> str:
        value = self.value if isinstance(self.value, str) else json.dumps(self.value)
        return f"{self.side} {self.where}: {self.what}: {value}"


def diff_policies(first: str, second: str) -> list[Change]:
    """Empty if they allow the same, as far as the texts tell."""
    left, right = read_policy(first), read_policy(second)
    return [*_containers(left, right), *_top(left, right)]


def _containers(left: Written, right: Written) -> Iterator[Change]:
    rest = list(right.containers)
    for container in left.containers:
        other = _partner(container, rest)
        if other is None:
            yield Change("-", container.title, "container", container.value.get("command"))
            continue
        rest.remove(other)
        yield from _members(container, other)
    for other in rest:
        yield Change("+", other.title, "container", other.value.get("command"))


def _partner(
    container: WrittenContainer, others: Sequence[WrittenContainer]
) -> WrittenContainer | None:
    """By name, else by layers and command."""
    for other in others:
        if other.title == container.title:
            return other
    for other in others:
        if all(other.value.get(key) == container.value.get(key) for key in ("layers", "command")):
            return other
    return None


def _members(left: WrittenContainer, right: WrittenContainer) -> Iterator[Change]:
    where = left.title
    for key in _EXACT:
        if left.value.get(key) != right.value.get(key):
            yield Change("-", where, key, left.value.get(key))
            yield Change("+", where, key, right.value.get(key))
    for key in _LISTS:
        yield from _entries(where, key, left.value.get(key), right.value.get(key))
    for key in _WIDER_TRUE:
        yield from _flag(where, key, left.value.get(key) is True, right.value.get(key) is True)
    strict = [side.value.get("no_new_privileges") is True for side in (left, right)]
    yield from _flag(where, "new privileges", not strict[0], not strict[1])


def _flag(where: str, what: str, left: bool, right: bool) -> Iterator[Change]:  # noqa: FBT001
    if left != right:
        yield Change("-" if left else "+", where, what, "allowed")


def _entries(where: str, what: str, left: Any, right: Any) -> Iterator[Change]:
    """Lists whose order does not matter."""
    sides = [[_key(entry) for entry in side or ()] for side in (left, right)]
    for entry in dict.fromkeys(sides[0]):
        if entry not in sides[1]:
            yield Change("-", where, what, json.loads(entry))
    for entry in dict.fromkeys(sides[1]):
        if entry not in sides[0]:
            yield Change("+", where, what, json.loads(entry))


def _key(entry: object) -> str:
    """Without `required: false`, which says nothing."""
    if isinstance(entry, dict) and entry.get("required") is False:
        entry = {key: value for key, value in entry.items() if key != "required"}
    return json.dumps(entry, sort_keys=True)


def _top(left: Written, right: Written) -> Iterator[Change]:
    for name in ("fragments", "external_processes", "allow_port_forward"):
        yield from _entries("policy", name, left.lists.get(name), right.lists.get(name))
    for member in ("env_rules", "mounts"):
        yield from _entries("platform", member, left.platform(member), right.platform(member))
    for flag in FLAGS:
        yield from _flag("policy", flag, _true(left.bindings, flag), _true(right.bindings, flag))
    for name in sorted({*left.bindings, *right.bindings} - {*FLAGS, *left.lists, *right.lists}):
        sides = left.bindings.get(name), right.bindings.get(name)
        if sides[0] != sides[1] and not name.startswith("containers"):
            if sides[0] is not None:
                yield Change("-", "policy", name, sides[0])
            if sides[1] is not None:
                yield Change("+", "policy", name, sides[1])


def _true(bindings: Mapping[str, str], name: str) -> bool:
    return bindings.get(name) == "true"
