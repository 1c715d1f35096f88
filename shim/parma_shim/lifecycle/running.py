"""The groups that run on this host, by what their shims noted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from parma_api.status import FailedPreconditionError, InvalidArgumentError, NotFoundError
from parma_shim.lifecycle.places import Group
from parma_shim.lifecycle.state import is_alive, read_state

MAX_ID = 128


def running_group(run: Path, sandbox_id: str) -> Group:
    """The group of a sandbox, named by its whole id or the beginning of it.

    Raises InvalidArgumentError, NotFoundError, FailedPreconditionError when several ids begin so.
    """
    if not 0 < len(sandbox_id) <= MAX_ID:
        raise InvalidArgumentError(f"a sandbox id has 1 to {MAX_ID} characters")
    found = [(known, group) for known, group in _groups(run) if known.startswith(sandbox_id)]
    exact = [(known, group) for known, group in found if known == sandbox_id]
    if len(exact or found) > 1:
        raise FailedPreconditionError(
            f"{len(found)} sandboxes begin with {sandbox_id}: give more of the id"
        )
    if not found:
        raise NotFoundError(
            f"no sandbox {sandbox_id} runs here (looked in {run}): `crictl pods` lists them"
        )
    return (exact or found)[0][1]


def _groups(run: Path) -> Iterator[tuple[str, Group]]:
    for path in sorted(run.glob("*/state.json")):
        state = read_state(str(path))
        if state.sandbox_id and is_alive(state.shim_pid, state.shim_start):
            yield state.sandbox_id, Group(str(path.parent))
