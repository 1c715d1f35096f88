"""What `delete` must know when the shim is dead: a file in the group's folder, replaced as a whole at each change."""

from __future__ import annotations

import json
import os
from typing import NamedTuple

MAX_STATE = 1 << 20


class GroupState(NamedTuple):
    """Ids of processes come with their start time: a number alone may be somebody else's by now."""

    shim_pid: int = 0
    shim_start: int = 0
    vmm_pid: int = 0
    vmm_start: int = 0
    netns: str = ""
    cgroups: tuple[str, ...] = ()
    """Those that the shim made, outermost first."""
    sandbox_id: str = ""


def start_time(pid: int) -> int:
    """Clock ticks after boot at which the process started (proc(5), stat, field 22); 0 if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            fields = file.read(4096).rpartition(b")")[2].split()
    except OSError:
        return 0
    return int(fields[19]) if len(fields) > 19 and fields[0] not in (b"Z", b"X") else 0


def is_alive(pid: int, started: int) -> bool:
    """Whether that very process lives; a zombie does not."""
    return pid > 1 and started > 0 and start_time(pid) == started


def write_state(path: str, state: GroupState) -> None:
    """Raises OSError."""
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:  # noqa: PTH123
        json.dump(state._asdict(), file)
    os.replace(temporary, path)  # noqa: PTH105


def read_state(path: str) -> GroupState:
    """All zero when there is none, or none that can be read: then there is nothing that we may touch."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            document = json.loads(file.read(MAX_STATE))
        numbers = {
            name: document[name] for name in ("shim_pid", "shim_start", "vmm_pid", "vmm_start")
        }
        if not all(type(value) is int for value in numbers.values()):
            return GroupState()
        return GroupState(
            **numbers,
            netns=str(document["netns"]),
            cgroups=tuple(str(path) for path in document["cgroups"]),
            sandbox_id=str(document["sandbox_id"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return GroupState()
