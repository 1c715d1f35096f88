"""Entries of the threat model that a host's client cannot play, each with the reason and where its proof is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from parma_shim.attack.registry import Must, catalogue, order_of


@dataclass(frozen=True, slots=True)
class Unplayable:
    """An entry that is only listed."""

    title: str
    must: Must
    reason: str


_GUEST_SIDE = "it is the guest's attack on the host, and needs a hostile guest"
_CLIENT_SIDE = "it is the client that has to notice it, not the VM: parma attest and its tests"

UNPLAYABLE: Mapping[str, Unplayable] = {
    "F8": Unplayable(
        "reads, writes or remaps the VM's memory",
        Must.NO_EFFECT,
        "only SEV-SNP hardware stands against it; of a launch with debugging allowed the verifier tells",
    ),
    "F9a": Unplayable("sits between a user and the group", Must.DETECTED, _CLIENT_SIDE),
    "F9b": Unplayable("replays an older report or session", Must.DETECTED, _CLIENT_SIDE),
    "M4a": Unplayable("changes the workload's network messages", Must.DETECTED, _CLIENT_SIDE),
    "K3": Unplayable(
        "reaches the VMM's or the kernel's command line by annotations",
        Must.NO_EFFECT,
        "the shim is what must hold: golden command lines under hostile annotations",
    ),
    "K11": Unplayable(
        "finds an enforcement point without a rule",
        Must.DENIED,
        "the build must fail: tests compare the tables of points",
    ),
    "K12": Unplayable(
        "shapes /proc so that an exec gets other capabilities",
        Must.NO_EFFECT,
        "it is a container's attack, with programs that the attacker's layers do not have",
    ),
    "K15": Unplayable(
        "gives the policy generator an image archive that leads outside",
        Must.REFUSES,
        "the tenant's tool must hold, and no VM takes part",
    ),
    "K17": Unplayable(
        "lets a container fail again and again",
        Must.NO_EFFECT,
        "what is left behind is seen inside the guest only: counted by the agent's tests",
    ),
    "K18a": Unplayable(
        "an out-of-memory event names a foreign container", Must.NO_EFFECT, _GUEST_SIDE
    ),
    "K18b": Unplayable("a stream brings more bytes than were asked for", Must.REFUSES, _GUEST_SIDE),
    "K18c": Unplayable("an answer has no end", Must.REFUSES, _GUEST_SIDE),
    "K18d": Unplayable("text is injected through error messages", Must.NO_EFFECT, _GUEST_SIDE),
    "K18e": Unplayable("statistics are poisoned", Must.REFUSES, _GUEST_SIDE),
    "K22": Unplayable(
        "replays an older state of the policy engine, or kills it",
        Must.DENIED,
        "the engine is inside the VM, out of the host's reach: played in the agent's own tests",
    ),
}
"""By id of the threat model."""


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
