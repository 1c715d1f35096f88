"""The state that policies read and ask to change (policy.md, section 4). It belongs to the agent.

Snapshots are immutable and share what did not change, so that the difference between two of them is found by identity
and costs nothing that grows with what happened before.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

MATCHES: Final = "matches"
_INITIAL: Final[Mapping[str, object]] = {"operatingsystem": {"ostype": "linux"}}


class MetadataError(Exception):
    """A command cannot be applied; the text says which and why."""


class Action(enum.StrEnum):
    """What a command does with its entry."""

    ADD = "add"
    UPDATE = "update"
    REMOVE = "remove"


class Kind(enum.StrEnum):
    """What a collection is."""

    MAP = "map"
    SET = "set"


@dataclass(frozen=True, slots=True)
class Command:
    """One checked metadata command; `key` is empty for sets."""

    name: str
    action: Action
    kind: Kind
    key: str
    value: object


def canonical(value: object) -> str:
    """A text that is equal exactly for equal JSON values (`1` and `1.0` are one number)."""
    return json.dumps(_whole(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _whole(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return value


def parse_commands(raw: object) -> tuple[Command, ...]:
    """The commands of a result, in order; absent: none. Raises MetadataError."""
    if raw is None:
        return ()
    if not isinstance(raw, list):
        raise MetadataError("metadata is not a list")
    return tuple(_parse(item) for item in raw)


def _parse(raw: object) -> Command:
    if not isinstance(raw, dict):
        raise MetadataError("a metadata command is not an object")
    name = _text(raw, "name")
    try:
        action, kind = Action(raw.get("action", "")), Kind(raw.get("type", Kind.MAP))
    except ValueError:
        raise MetadataError(f"{name}: unknown action or type") from None
    if kind is Kind.SET and action is Action.UPDATE:
        raise MetadataError(f"{name}: a set has no entry to update")
    if "value" not in raw and not (kind is Kind.MAP and action is Action.REMOVE):
        raise MetadataError(f"{name}: no value")
    key = _text(raw, "key") if kind is Kind.MAP else ""
    return Command(name, action, kind, key, raw.get("value"))


def _text(raw: Mapping[str, object], member: str) -> str:
    value = raw.get(member)
    if not isinstance(value, str) or not value:
        raise MetadataError(
            f"a metadata command has no {member}, or it is not a text, or it is empty"
        )
    return value


@dataclass(frozen=True, slots=True)
class Metadata:
    """An immutable snapshot: `collections[NAME]` is an object, or a list without equal elements."""

    collections: Mapping[str, object]

    @classmethod
    def initial(cls) -> Metadata:
        """The state before the first request."""
        return cls(_INITIAL)

    def mapping(self, name: str) -> Mapping[str, object]:
        """Collection `name` as a map; empty if it is absent or a set."""
        found = self.collections.get(name)
        return found if isinstance(found, dict) else {}

    def apply(self, commands: Iterable[Command]) -> Metadata:
        """The state after all commands, in order. Raises MetadataError; then nothing has happened."""
        fresh: dict[str, object] = {}
        for command in commands:
            if command.name not in fresh:
                fresh[command.name] = self._copy(command)
            _apply(fresh[command.name], command)
        return Metadata({**self.collections, **fresh}) if fresh else self

    def _copy(self, command: Command) -> object:
        found = self.collections.get(command.name)
        if isinstance(found, dict):
            return dict(found)
        if isinstance(found, list):
            return list(found)
        return {} if command.kind is Kind.MAP else []

    def rebase(self, base: Metadata, commands: Sequence[Command]) -> Metadata:
        """Apply what was decided over `base` to this newer state.

        Candidates that another request has narrowed meanwhile are intersected: narrowing only ever removes. Raises
        MetadataError.
        """
        if self is base:
            return self.apply(commands)
        kept = [self._intersected(base, command) for command in commands]
        return self.apply(command for command in kept if command is not None)

    def _intersected(self, base: Metadata, command: Command) -> Command | None:
        if command.name != MATCHES or command.action is not Action.UPDATE:
            return command
        now, then = self.mapping(MATCHES).get(command.key), base.mapping(MATCHES).get(command.key)
        if now is then:
            return command
        if not isinstance(now, list) or not isinstance(command.value, list):
            return None
        wanted = {canonical(candidate) for candidate in command.value}
        left = [candidate for candidate in now if canonical(candidate) in wanted]
        return Command(command.name, command.action, command.kind, command.key, left)


def _apply(collection: object, command: Command) -> None:
    if isinstance(collection, dict):
        if command.kind is not Kind.MAP:
            raise MetadataError(f"{command.name} is a map")
        _apply_to_map(collection, command)
    elif isinstance(collection, list):
        if command.kind is not Kind.SET:
            raise MetadataError(f"{command.name} is a set")
        _apply_to_set(collection, command)
    else:
        raise MetadataError(f"{command.name} is no collection")


def _apply_to_map(collection: dict[str, object], command: Command) -> None:
    if command.action is Action.REMOVE:
        collection.pop(command.key, None)
    elif command.action is Action.ADD and command.key in collection:
        raise MetadataError(f"{command.name} has the key already")
    else:
        collection[command.key] = command.value


def _apply_to_set(collection: list[object], command: Command) -> None:
    wanted = canonical(command.value)
    index = next((i for i, item in enumerate(collection) if canonical(item) == wanted), None)
    if command.action is Action.ADD and index is None:
        collection.append(command.value)
    elif command.action is Action.REMOVE and index is not None:
        del collection[index]


def pointer(*segments: str) -> str:
    """A JSON pointer for OPA, which also percent-decodes each segment."""
    return "".join(
        "/" + s.replace("%", "%25").replace("~", "~0").replace("/", "~1") for s in segments
    )


def patch(old: Metadata, new: Metadata) -> list[dict[str, object]]:
    """The JSON patch below `/metadata` that turns `old` into `new`."""
    operations: list[dict[str, object]] = []
    for name, value in new.collections.items():
        before = old.collections.get(name)
        if before is value:
            continue
        if isinstance(before, dict) and isinstance(value, dict):
            operations += _entries(name, before, value)
        else:
            operations.append(_add(pointer("metadata", name), value))
    gone = [name for name in old.collections if name not in new.collections]
    return operations + [_remove(pointer("metadata", name)) for name in gone]


def _entries(
    name: str, before: Mapping[str, object], after: Mapping[str, object]
) -> list[dict[str, object]]:
    changed = [
        _add(pointer("metadata", name, key), value)
        for key, value in after.items()
        if key not in before or before[key] is not value
    ]
    return changed + [_remove(pointer("metadata", name, key)) for key in before if key not in after]


def _add(path: str, value: object) -> dict[str, object]:
    return {"op": "add", "path": path, "value": value}


def _remove(path: str) -> dict[str, object]:
    return {"op": "remove", "path": path}
