"""`$(NAME)` in commands and variables, as kubelet expands it, over values that may be known by a pattern only.

Source: k8s.io/kubernetes third_party/forked/golang/expansion.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_META: Final = re.compile(r"([\\.+*?()|\[\]{}^$])")


def escaped(text: str) -> str:
    """An RE2 pattern for exactly `text`."""
    return _META.sub(r"\\\1", text)


@dataclass(frozen=True, slots=True)
class Text:
    """A text that is known, or one that has to match a pattern (RE2)."""

    literal: str | None
    pattern: str
    example: str
    """A text that matches."""

    @classmethod
    def known(cls, literal: str) -> Text:
        """A text that is known."""
        return cls(literal, escaped(literal), literal)

    @classmethod
    def unknown(cls, pattern: str, example: str) -> Text:
        """What only the cluster will know."""
        return cls(None, f"(?:{pattern})" if "|" in pattern else pattern, example)

    def then(self, other: Text) -> Text:
        """Both in a row."""
        both = self.literal is not None and other.literal is not None
        return Text(
            f"{self.literal}{other.literal}" if both else None,
            self.pattern + other.pattern,
            self.example + other.example,
        )


def expand(text: str, lookup: Callable[[str], Text | None]) -> Text:
    """References replaced by what `lookup` gives; None leaves one as it stands, `$$` is a dollar."""
    done = Text.known("")
    at = 0
    while (dollar := text.find("$", at)) >= 0 and dollar + 1 < len(text):
        done = done.then(Text.known(text[at:dollar]))
        follows = text[dollar + 1]
        end = text.find(")", dollar + 2) if follows == "(" else -1
        if end >= 0:
            name = text[dollar + 2 : end]
            found = lookup(name)
            done = done.then(Text.known(f"$({name})") if found is None else found)
            at = end + 1
        else:
            done = done.then(Text.known("$" if follows == "$" else f"${follows}"))
            at = dollar + 2
    return done.then(Text.known(text[at:]))
