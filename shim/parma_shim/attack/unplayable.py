"""Entries of the threat model that a host's client cannot play, each with the reason and where its proof is."""

from __future__ import annotations

from dataclasses import dataclass

from parma_shim.attack.registry import Must, catalogue, order_of


@dataclass(frozen=True, slots=True)
class Unplayable:
    """An entry that is only listed."""

    title: str
    must: Must
    reason: str


UNPLAYABLE: dict[str, Unplayable] = {}


def entries() -> list[dict[str, object]]:
    """All entries of the threat model, by id; `reason` is empty for those that are played."""
    rows: list[dict[str, object]] = [
        {"id": one.id, "title": one.title, "must": one.must.value, "playable": True, "reason": ""}
        for one in catalogue().values()
    ]
    rows += [
        {
            "id": name,
            "title": one.title,
            "must": one.must.value,
            "playable": False,
            "reason": one.reason,
        }
        for name, one in UNPLAYABLE.items()
    ]
    return sorted(rows, key=lambda row: order_of(str(row["id"])))
