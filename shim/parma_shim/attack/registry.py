"""The attacks by id: a module of the catalogue holds those of one topic."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from parma_shim.attack.outcome import Observation

if TYPE_CHECKING:
    from parma_shim.attack.lab import Lab


class Must(enum.StrEnum):
    """What the threat model says of an attack (docs/threat-model.md)."""

    DENIED = "denied"
    DETECTED = "detected"
    REFUSES = "refuses"
    NO_EFFECT = "no effect"


class Stage(enum.IntEnum):
    """When an attack is played: those of a stage leave the shared VM as the next ones need it."""

    FRESH = 0
    """The shared VM, before its policy."""
    BARE = 1
    """The shared VM, its policy in force and nothing else done."""
    READY = 2
    """The shared VM, with its group running."""
    LAST = 3
    """The shared VM, which may be of no use afterwards."""
    OWN = 4
    """In VMs of its own."""


Play: TypeAlias = "Callable[[Lab], Awaitable[Observation]]"


@dataclass(frozen=True, slots=True)
class Attack:
    """One entry of the catalogue."""

    id: str
    title: str
    must: Must
    stage: Stage
    play: Play


_ATTACKS: dict[str, Attack] = {}


def attack(name: str, title: str, must: Must, stage: Stage = Stage.READY) -> Callable[[Play], Play]:
    """Puts a function into the catalogue. Raises ValueError for an id that is taken."""

    def register(play: Play) -> Play:
        if name in _ATTACKS:
            raise ValueError(f"attack {name} exists twice")
        _ATTACKS[name] = Attack(name, title, must, stage, play)
        return play

    return register


def catalogue() -> dict[str, Attack]:
    """All attacks, in the order in which they can be played one after the other."""
    from parma_shim.attack import catalogue as topics

    topics.load()
    return dict(sorted(_ATTACKS.items(), key=lambda item: (item[1].stage, order_of(item[0]))))


def order_of(name: str) -> tuple[str, int, str]:
    """Sorts F10 behind F9."""
    digits = "".join(c for c in name if c.isdigit())
    return name[0], int(digits or "0"), name
