"""Each call of the agent and the enforcement points that it passes; or the reason why it passes none (design.md 6).

Imports little: the agent reads it before its first answer.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from parma_api.policy.points import Point


class Turn(enum.Enum):
    """How a call meets the gate."""

    TRANSACTION = "decided, carried out, and booked, in its queue and before its deadline"
    QUERY = "decided; changes nothing and waits for nobody"
    ENVELOPE = "decided by the gate itself, which opens the signed envelope"


@dataclass(frozen=True, slots=True)
class Row:
    """A gated call: its points in order (the first ones only if they apply), and how long it may take, in seconds."""

    points: tuple[Point, ...]
    seconds: float
    turn: Turn = Turn.TRANSACTION


GATED: Final[Mapping[str, Row]] = {
    "LoadFragment": Row(
        (Point.LOAD_FRAGMENT, Point.LOAD_TRANSPARENCY_TRUST_LIST), 60, Turn.ENVELOPE
    ),
    "MountScratch": Row((Point.RW_MOUNT_DEVICE,), 180),
    "UnmountScratch": Row((Point.RW_UNMOUNT_DEVICE,), 60),
    "MountLayer": Row((Point.MOUNT_DEVICE,), 60),
    "UnmountLayer": Row((Point.UNMOUNT_DEVICE,), 60),
    "MountOverlay": Row((Point.SCRATCH_MOUNT, Point.MOUNT_OVERLAY), 60),
    "UnmountOverlay": Row((Point.UNMOUNT_OVERLAY, Point.SCRATCH_UNMOUNT), 60),
    "CreateContainer": Row((Point.CREATE_CONTAINER,), 60),
    "ExecProcess": Row((Point.EXEC_IN_CONTAINER,), 30),
    "ExecExternal": Row((Point.EXEC_EXTERNAL,), 30),
    "SignalProcess": Row((Point.SIGNAL_CONTAINER_PROCESS,), 60),
    "ShutdownContainer": Row((Point.SHUTDOWN_CONTAINER,), 60),
    "Stats": Row((Point.GET_PROPERTIES,), 10, Turn.QUERY),
    "ListProcesses": Row((Point.GET_PROPERTIES,), 10, Turn.QUERY),
    "DumpStacks": Row((Point.DUMP_STACKS,), 10, Turn.QUERY),
    "ForwardPort": Row((Point.PORT_FORWARD,), 10, Turn.QUERY),
}

UNGATED: Final[Mapping[str, str]] = {
    "Health": "tells what the guest is; nothing of the workload",
    "SetPolicy": "the first policy, checked against HOST_DATA of a report that the agent obtains itself",
    "SetupSandbox": "the pod's own interface, once, before the first container; the host sees the network anyhow",
    "PutFiles": "content beneath the pod's own directory; where a container sees it was judged with its mounts",
    "StartContainer": "runs, once, the process that create_container judged",
    "WaitProcess": "waits for an exit whose process exists; tells the end of the termination log that its mounts were "
    "judged with, unless the policy withholds standard streams",
    "NextEvent": "waits for what the guest has to say; changes nothing",
    "ResizeTerminal": "the size of a terminal",
    "UpdateResources": "bounded resources only; availability is not promised",
    "PauseGroup": "the whole group; availability is not promised",
    "ResumeGroup": "the whole group; availability is not promised",
}

WITHOUT_POLICY: Final = frozenset({"Health", "SetPolicy", "NextEvent"})
"""All that the agent does in deny-all."""
UNGATED_CHANGES: Final = frozenset(
    {"SetupSandbox", "PutFiles", "StartContainer", "UpdateResources"}
)
"""Refused, as gated changes are, once the group is inconsistent."""


def check_complete(
    offered: Iterable[str],
    gated: Mapping[str, object] = GATED,
    ungated: Mapping[str, object] = UNGATED,
) -> None:
    """Raises ValueError unless each method of the service is in exactly one of the two maps, and nothing else is."""
    names = set(offered)
    if both := gated.keys() & ungated.keys():
        raise ValueError(f"gated and ungated at once: {sorted(both)}")
    if missing := names - gated.keys() - ungated.keys():
        raise ValueError(f"neither gated nor ungated with a reason: {sorted(missing)}")
    if stale := (gated.keys() | ungated.keys()) - names:
        raise ValueError(f"in the map, but no method of the service: {sorted(stale)}")
