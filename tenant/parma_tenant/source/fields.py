"""Typed access to a document's members; errors name file, line and path."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final, NoReturn

from parma_tenant.source.document import Node
from parma_tenant.source.errors import SourceError

NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""What containers and volumes may be called (RFC 1123 label)."""


def printable(text: str) -> str:
    """One line, whatever a stranger put into it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Fields:
    """An object of a document."""

    def __init__(self, node: Node, file: str, path: str = "") -> None:
        self.file, self.path, self.line = file, path, node.line
        if not isinstance(node.value, dict):
            self.fail("this must be an object")
        self._members: Mapping[str, Node] = node.value

    def fail(self, why: str, key: str = "") -> NoReturn:
        """Raises SourceError for the object, or for its member `key`."""
        raise self.error(why, key)

    def error(self, why: str, key: str = "") -> SourceError:
        """What to raise for the object, or for its member `key`."""
        node = self._members.get(key) if key else None
        line = node.line if node is not None else self.line
        place = f"{self.file}:{line}" if line else self.file
        path = ".".join(part for part in (self.path, key) if part)
        return SourceError(printable(f"{place}: {path + ': ' if path else ''}{why}"))

    def refuse_unknown(self, known: Collection[str]) -> None:
        """Raises SourceError for a member that is not `known`."""
        for key in self._members:
            if key not in known:
                self.fail(f"there is no such member; there are {', '.join(sorted(known))}", key)

    def has(self, key: str) -> bool:
        """Whether the member is there and not null."""
        node = self._members.get(key)
        return node is not None and node.value is not None

    def keys(self) -> Iterator[str]:
        """Names of members that are not null."""
        return (key for key in self._members if self.has(key))

    def node(self, key: str) -> Node:
        """The member as it stands. Raises SourceError."""
        if not self.has(key):
            self.fail(f"`{key}` is missing")
        return self._members[key]

    def text(self, key: str, default: str | None = None) -> str:
        """A text. Raises SourceError."""
        if default is not None and not self.has(key):
            return default
        value = self.node(key).value
        if not isinstance(value, str):
            self.fail("this must be a text (put it into quotes)", key)
        return value

    def label(self, key: str) -> str:
        """A name that can be part of a path. Raises SourceError."""
        name = self.text(key)
        if not NAME.fullmatch(name):
            self.fail("a name is made of a-z, 0-9 and -, at most 63 characters", key)
        return name

    def number(self, key: str, default: int | None = None) -> int:
        """A whole number. Raises SourceError."""
        if default is not None and not self.has(key):
            return default
        value = self.node(key).value
        if not isinstance(value, int) or isinstance(value, bool):
            self.fail("this must be a whole number", key)
        return value

    def flag(self, key: str, *, default: bool = False) -> bool:
        """True or false. Raises SourceError."""
        if not self.has(key):
            return default
        value = self.node(key).value
        if not isinstance(value, bool):
            self.fail("this must be true or false", key)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts, empty where it is missing. Raises SourceError."""
        found = []
        for node in self._list(key):
            if not isinstance(node.value, str):
                self.fail("this must be a list of texts (put them into quotes)", key)
            found.append(node.value)
        return tuple(found)

    def numbers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers, empty where it is missing. Raises SourceError."""
        found = []
        for node in self._list(key):
            if not isinstance(node.value, int) or isinstance(node.value, bool):
                self.fail("this must be a list of whole numbers", key)
            found.append(node.value)
        return tuple(found)

    def lists(self, key: str) -> tuple[tuple[str, ...], ...]:
        """A list of lists of texts, empty where it is missing. Raises SourceError."""
        found = []
        for node in self._list(key):
            texts = [n.value for n in node.value] if isinstance(node.value, list) else [None]
            if not all(isinstance(text, str) for text in texts):
                self.fail("this must be a list of lists of texts", key)
            found.append(tuple(str(text) for text in texts))
        return tuple(found)

    def object(self, key: str) -> Fields | None:
        """The member as an object; None where it is missing. Raises SourceError."""
        if not self.has(key):
            return None
        return Fields(self.node(key), self.file, f"{self.path}.{key}" if self.path else key)

    def objects(self, key: str) -> tuple[Fields, ...]:
        """The members of a list of objects, empty where it is missing. Raises SourceError."""
        path = f"{self.path}.{key}" if self.path else key
        return tuple(
            Fields(node, self.file, f"{path}[{number}]")
            for number, node in enumerate(self._list(key))
        )

    def _list(self, key: str) -> list[Node]:
        if not self.has(key):
            return []
        value = self.node(key).value
        if not isinstance(value, list):
            self.fail("this must be a list", key)
        return value
