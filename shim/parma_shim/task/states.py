"""What may be done to a process in which state, and what it becomes: one table, for first processes and for execs.

    created --start--> running --pause--> paused --resume--> running
       \\------------------\\------------------\\--- exit ---> stopped --delete--> (gone)

Codes and texts are those that containerd's clients test for (containerd.md 3.1).
"""

from __future__ import annotations

import enum

from parma_api.status import ApiError
from parma_shim.errors import NoTaskError, WrongStateError


class Status(enum.IntEnum):
    """containerd.v1.types.Status."""

    CREATED = 1
    RUNNING = 2
    STOPPED = 3
    PAUSED = 4


class Kind(enum.Enum):
    """Which table counts."""

    INIT = "process"
    EXEC = "exec"


class Action(enum.Enum):
    """What a request wants."""

    START = "start"
    DELETE = "delete"
    KILL = "kill"
    EXEC = "exec"
    START_EXEC = "start an exec in"
    PAUSE = "pause"
    RESUME = "resume"
    UPDATE = "update"


class Refusal(enum.Enum):
    """How a request that does not fit is answered."""

    UNKNOWN = "unknown"
    PRECONDITION = "precondition"
    FINISHED = "finished"


class StateError(ApiError):
    """`cannot start a running process`: no code of its own in containerd's clients."""


_CREATED, _RUNNING, _STOPPED, _PAUSED = (
    Status.CREATED,
    Status.RUNNING,
    Status.STOPPED,
    Status.PAUSED,
)
_NO, _UNKNOWN, _FINISHED = Refusal.PRECONDITION, Refusal.UNKNOWN, Refusal.FINISHED

TABLE: dict[tuple[Kind, Action], dict[Status, Status | Refusal]] = {
    (Kind.INIT, Action.START): {
        _CREATED: _RUNNING,
        _RUNNING: _UNKNOWN,
        _PAUSED: _UNKNOWN,
        _STOPPED: _NO,
    },
    (Kind.INIT, Action.DELETE): {
        _CREATED: _STOPPED,
        _RUNNING: _NO,
        _PAUSED: _NO,
        _STOPPED: _STOPPED,
    },
    (Kind.INIT, Action.KILL): {
        _CREATED: _CREATED,
        _RUNNING: _RUNNING,
        _PAUSED: _PAUSED,
        _STOPPED: _FINISHED,
    },
    (Kind.INIT, Action.EXEC): {
        _CREATED: _CREATED,
        _RUNNING: _RUNNING,
        _PAUSED: _NO,
        _STOPPED: _NO,
    },
    (Kind.INIT, Action.START_EXEC): {
        _CREATED: _NO,
        _RUNNING: _RUNNING,
        _PAUSED: _NO,
        _STOPPED: _NO,
    },
    (Kind.INIT, Action.PAUSE): {
        _CREATED: _NO,
        _RUNNING: _PAUSED,
        _PAUSED: _NO,
        _STOPPED: _NO,
    },
    (Kind.INIT, Action.RESUME): {
        _CREATED: _NO,
        _RUNNING: _NO,
        _PAUSED: _RUNNING,
        _STOPPED: _NO,
    },
    (Kind.INIT, Action.UPDATE): {
        _CREATED: _CREATED,
        _RUNNING: _RUNNING,
        _PAUSED: _PAUSED,
        _STOPPED: _FINISHED,
    },
    (Kind.EXEC, Action.START): {
        _CREATED: _RUNNING,
        _RUNNING: _UNKNOWN,
        _PAUSED: _UNKNOWN,
        _STOPPED: _NO,
    },
    (Kind.EXEC, Action.DELETE): {
        _CREATED: _STOPPED,
        _RUNNING: _NO,
        _PAUSED: _NO,
        _STOPPED: _STOPPED,
    },
    (Kind.EXEC, Action.KILL): {
        _CREATED: _NO,
        _RUNNING: _RUNNING,
        _PAUSED: _PAUSED,
        _STOPPED: _FINISHED,
    },
}


def after(kind: Kind, action: Action, status: Status) -> Status:
    """The status when `action` has succeeded. Raises NoTaskError, WrongStateError, StateError."""
    outcome = TABLE[kind, action][status]
    if isinstance(outcome, Status):
        return outcome
    text = f"cannot {action.value} a {status.name.lower()} {kind.value}"
    match outcome:
        case Refusal.FINISHED:
            raise NoTaskError("process already finished")
        case Refusal.PRECONDITION:
            raise WrongStateError(text)
        case Refusal.UNKNOWN:
            raise StateError(text)
