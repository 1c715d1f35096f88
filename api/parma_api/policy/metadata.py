"""The state that policies read and ask to change (policy.md, section 4). It belongs to the agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metadata:
    """An immutable snapshot: `collections[NAME]` is an object, or a list without equal elements."""

    collections: Mapping[str, object]
