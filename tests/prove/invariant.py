"""What must hold in each state, and of each step. Written anew from the article's promise, not from the framework."""

from __future__ import annotations

import json
from collections.abc import Iterator

from parma_api.volumes import root_path
from tests.prove.guest import State
from tests.prove.story import BASE, COMMANDS, IDS, JOB, LAYERS, PROBE, WEB

NAMED_LAYERS = {BASE, WEB, JOB}


class BrokenError(AssertionError):
    """The invariant does not hold; the text says what."""


def check_state(state: State) -> None:
    """Raises BrokenError. An inconsistent group is one that nobody trusts: nothing is asked of its books."""
    if state.inconsistent is not None:
        return
    for problem in _books_differ(state):
        raise BrokenError(problem)
    for problem in _unnamed(state):
        raise BrokenError(problem)


def mounted_roots(state: State) -> dict[str, str]:
    """Target -> root hash of what the kernel has mounted read-only, from its own tables."""
    found = {}
    for target, value in state.world.mounts.items():
        if value[0] == "device":
            words = state.world.devices[value[1]].split()
            if "verity" in words:
                found[target] = words[words.index("sha256") + 1]
    return found


def _books_differ(state: State) -> Iterator[str]:
    """Ledger, metadata and kernel must tell the same."""
    world, books, metadata = state.world, state.books, state.metadata
    roots = mounted_roots(state)
    writable = {
        target
        for target, value in world.mounts.items()
        if value[0] == "device" and target not in roots
    }
    overlays = {target for target, value in world.mounts.items() if value[0] == "overlay"}
    told = {
        "devices": (roots, {t: str(row.root_hash) for t, row in books.layers.items()}),
        "rw_devices": (writable, set(books.scratch)),
        "overlayTargets": (overlays, set(books.overlays)),
        "scratch_mounts": (
            set(world.scratch),
            {row.scratch_path for row in books.overlays.values() if row.scratch_path is not None},
        ),
    }
    for name, (real, ledger) in told.items():
        policy = metadata.mapping(name)
        known = dict(policy) if isinstance(real, dict) else set(policy)
        if not real == ledger == known:
            yield f"{name}: the kernel has {real}, the ledger {ledger}, the metadata {known}"
    needed = {value[1] for value in world.mounts.values() if value[0] == "device"}
    needed |= {row.integrity for row in books.scratch.values()}
    if set(world.devices) != needed:
        yield f"devices left over or missing: {sorted(set(world.devices) ^ needed)}"


def _unnamed(state: State) -> Iterator[str]:
    """Nothing is mounted or runs that the policy does not name."""
    roots = mounted_roots(state)
    for target, root in roots.items():
        if root not in NAMED_LAYERS:
            yield f"{target} holds a layer that the policy does not name"
    for target, value in state.world.mounts.items():
        if value[0] == "overlay" and not _names_of(state, target):
            yield f"{target} is made of layers that no container of the policy has"
    for container, exec_id, command in state.world.processes:
        names = _names_of(state, root_path(container))
        wanted = {PROBE} if exec_id else {COMMANDS[name] for name in names}
        allowed = command in wanted
        if not allowed or not names:
            yield f"{container[:4]} runs {command}, and the policy names no such process"
        if container not in state.metadata.mapping("started"):
            yield f"{container[:4]} runs, and the metadata does not know it"


def _names_of(state: State, target: str) -> list[str]:
    """The containers of the policy, and of fragments that are loaded, whose layers are mounted at `target`."""
    value = state.world.mounts.get(target)
    if value is None or value[0] != "overlay":
        return []
    roots = mounted_roots(state)
    below = tuple(roots.get(layer, "") for layer in reversed(value[1:-1]))
    loaded = {"web", "job"} | ({"side"} if state.metadata.mapping("issuers") else set())
    return [name for name in sorted(loaded) if LAYERS[name] == below]


def check_step(before: State, after: State, refused: str | None) -> None:
    """Raises BrokenError when a refusal or failure has changed something."""
    if refused is None:
        if before.inconsistent is not None:
            raise BrokenError("an inconsistent group was changed")
        return
    if after.inconsistent is not None and before.inconsistent is None:
        return  # an undo failed: said so, and nothing is changed any more
    if key(before) != key(after):
        raise BrokenError(f"refused ({refused[:80]}), and yet the state is another")


def key(state: State) -> str:
    """Equal for states that differ in nothing but which container id is which, and in names of devices."""
    if state.inconsistent is not None:
        return "inconsistent"
    return min(_text(state, IDS), _text(state, IDS[::-1]))


def _text(state: State, order: tuple[str, ...]) -> str:
    world = state.world
    document = [
        state.metadata.collections,
        sorted(
            [t, world.devices[v[1]], ""] if v[0] == "device" else [t, *v]
            for t, v in world.mounts.items()
        ),
        sorted(world.devices.values()),
        sorted(world.scratch),
        sorted(map(list, world.processes), key=str),
        sorted([t, str(row.root_hash), str(row.address)] for t, row in state.books.layers.items()),
        sorted([t, str(row.address)] for t, row in state.books.scratch.items()),
        sorted([t, *row.layers, row.scratch_path or ""] for t, row in state.books.overlays.items()),
        {target: sorted(who) for target, who in state.books.running.items()},
        state.stdio,
    ]
    text = json.dumps(document, sort_keys=True)
    if order == IDS:
        return _sorted(document, text)
    swapped = text.replace(IDS[0], "?").replace(IDS[1], IDS[0]).replace("?", IDS[1])
    return _sorted(None, swapped)


def _sorted(_document: object, text: str) -> str:
    """Lists that hold ids are sets: sorted once more after ids were exchanged."""
    parts = json.loads(text)
    for index in (1, 3, 4, 5, 6, 7):
        parts[index] = sorted(parts[index], key=str)
    parts[2] = sorted(_without_names(value) for value in parts[2])
    parts[1] = [[t, _without_names(first), *rest] for t, first, *rest in parts[1]]
    return json.dumps(parts, sort_keys=True)


def _without_names(table: str) -> str:
    """A table that lies over another device names it by a number that depends on the way here."""
    return table.rstrip("0123456789") if table.startswith("crypt over") else table
