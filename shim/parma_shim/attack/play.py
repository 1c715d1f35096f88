"""Plays attacks one after the other and says of each what came of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from parma_api.status import ApiError
from parma_shim.agent.text import clean
from parma_shim.attack.lab import Lab
from parma_shim.attack.registry import Attack

MAX_TEXT = 400


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of one attack."""

    attack: Attack
    observed: str
    reason_codes: tuple[str, ...]
    ok: bool

    def as_json(self) -> dict[str, object]:
        """As `parma attack --json` prints it."""
        return {
            "id": self.attack.id,
            "title": self.attack.title,
            "must": self.attack.must.value,
            "observed": self.observed,
            "reason_codes": list(self.reason_codes),
            "ok": self.ok,
        }


async def play(lab: Lab, attacks: Sequence[Attack]) -> AsyncIterator[Row]:
    """Rows as they come, in the order of `attacks`. An attack that cannot be played at all is not ok either."""
    for one in attacks:
        yield await play_one(lab, one)


async def play_one(lab: Lab, one: Attack) -> Row:
    """One row."""
    try:
        seen = await one.play(lab)
    except ApiError as error:
        return Row(one, clean(error.message, MAX_TEXT), (), ok=False)
    except (OSError, TimeoutError) as error:
        return Row(one, clean(f"not played: {error!r}", MAX_TEXT), (), ok=False)
    return Row(one, clean(seen.observed, MAX_TEXT), seen.reason_codes, ok=True)
