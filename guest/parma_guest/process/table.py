"""Containers and their processes: who runs, who ended, whose end may be told. Pure.

    created --start--> running --ended--> stopped --drained--> told
       |                                     ^
       +---------------ended-----------------+

An end is told when the process's output has been carried off; that of a container's first process after those of all
its further processes. Processes of the machine itself belong to the container "".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import NamedTuple

from parma_api.status import AlreadyExistsError, FailedPreconditionError, NotFoundError
from parma_guest.process.reaper import Exit

MAX_PROCESSES = 4096
"""Of one container, ended ones included: an exec's end can be asked for until its container is forgotten."""


class Key(NamedTuple):
    """A process: the container, and "" for its first process."""

    container: str
    exec_id: str = ""

    def __str__(self) -> str:
        what = self.container or "the machine"
        return f"process {self.exec_id} of {what}" if self.exec_id else f"container {what}"


class State(enum.Enum):
    """Where a process stands."""

    CREATED = "created"
    RUNNING = "running"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Entry:
    """One process. `args` is what a signal's decision sees."""

    key: Key
    pid: int
    args: tuple[str, ...]
    state: State
    exit: Exit | None = None
    drained: bool = False
    told: bool = False


class Table:
    """All processes that the agent started."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Entry]] = {"": {}}

    def containers(self) -> tuple[str, ...]:
        """All that are not forgotten."""
        return tuple(name for name in self._rows if name)

    def require_new(self, key: Key) -> None:
        """Raises AlreadyExistsError, NotFoundError, FailedPreconditionError (the container does not run)."""
        if not key.exec_id:
            if key.container in self._rows:
                raise AlreadyExistsError(f"{key} already exists")
            return
        rows = self._container(key)
        if key.exec_id in rows:
            raise AlreadyExistsError(f"{key} already exists")
        if key.container and rows[""].state is not State.RUNNING:
            raise FailedPreconditionError(f"container {key.container} is {rows[''].state.value}")
        if len(rows) >= MAX_PROCESSES:
            raise FailedPreconditionError(f"{MAX_PROCESSES} processes have run in it: no more")

    def add(self, key: Key, pid: int, args: tuple[str, ...]) -> None:
        """A container that is created, or a further process, which runs at once. Raises as `require_new`."""
        self.require_new(key)
        state = State.RUNNING if key.exec_id else State.CREATED
        self._rows.setdefault(key.container, {})[key.exec_id] = Entry(key, pid, args, state)

    def get(self, key: Key) -> Entry:
        """Raises NotFoundError."""
        rows = self._rows.get(key.container, {})
        if key.exec_id not in rows:
            raise NotFoundError(f"{key}: not found")
        return rows[key.exec_id]

    def require_alive(self, key: Key) -> Entry:
        """A process that has not ended. Raises NotFoundError."""
        entry = self.get(key)
        if entry.state is State.STOPPED:
            raise NotFoundError(f"{key} has ended: not found")
        return entry

    def start(self, container: str) -> None:
        """Created to running. Raises NotFoundError, FailedPreconditionError."""
        entry = self.get(Key(container))
        if entry.state is not State.CREATED:
            raise FailedPreconditionError(
                f"container {container} is {entry.state.value}, not created"
            )
        self._put(replace(entry, state=State.RUNNING))

    def ended(self, key: Key, how: Exit) -> None:
        """The process is gone; its output may still be on the way."""
        self._put(replace(self.get(key), state=State.STOPPED, exit=how))

    def drained(self, key: Key) -> tuple[Key, ...]:
        """Its output has been carried off: the processes whose ends may be told now, in order."""
        self._put(replace(self.get(key), drained=True))
        rows = self._rows[key.container]
        ready = [entry for entry in rows.values() if entry.drained and not entry.told]
        others_told = all(e.told or e.drained for e in rows.values() if e.key.exec_id)
        told = [entry for entry in ready if entry.key.exec_id or others_told]
        told.sort(key=lambda entry: not entry.key.exec_id)
        for entry in told:
            self._put(replace(entry, told=True))
        return tuple(entry.key for entry in told)

    def processes(self, container: str) -> tuple[Entry, ...]:
        """Of one container, the first one first. Empty if there is none."""
        return tuple(self._rows.get(container, {}).values())

    def commands(self, container: str) -> dict[str, tuple[str, ...]]:
        """Commands of the processes that have not ended, by exec id."""
        return {
            entry.key.exec_id: entry.args
            for entry in self.processes(container)
            if entry.state is not State.STOPPED
        }

    def forget(self, container: str) -> None:
        """Every row of a container. Raises FailedPreconditionError while one of its processes lives."""
        if any(entry.state is not State.STOPPED for entry in self.processes(container)):
            raise FailedPreconditionError(f"container {container} still has processes")
        self._rows.pop(container, None)

    def _container(self, key: Key) -> dict[str, Entry]:
        if key.container not in self._rows:
            raise NotFoundError(f"container {key.container}: not found")
        return self._rows[key.container]

    def _put(self, entry: Entry) -> None:
        self._rows[entry.key.container][entry.key.exec_id] = entry
