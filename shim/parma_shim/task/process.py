"""A container and its processes as containerd knows them; how each ended, and who waits for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from parma_api.gen.containerd.task import v2
from parma_api.gen.containerd.v1 import types
from parma_shim.agent.client import Exit
from parma_shim.errors import NoTaskError
from parma_shim.io.stdio import ProcessStdio
from parma_shim.io.target import StdioPaths
from parma_shim.sandbox.pod import GuestContainer
from parma_shim.task.states import Action, Kind, Status, after


@dataclass(eq=False, slots=True)
class Process:
    """One process: the first of a container, or an exec."""

    kind: Kind
    paths: StdioPaths
    document: bytes = b""
    """Of an exec: its OCI process object."""
    exec_id: str = ""
    pid: int = 0
    status: Status = Status.CREATED
    stdio: ProcessStdio | None = None
    exit: Exit | None = None
    exited_at: datetime | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Start, Delete and the end take turns; signals and questions wait for nobody."""
    size: tuple[int, int] = (0, 0)
    """Of a terminal, wished before the process exists."""
    input_ended: bool = False
    """CloseIO came; it may come while Start is under way."""

    def connected(self, stdio: ProcessStdio) -> None:
        """The streams are in the guest's hands: bytes begin to move."""
        self.stdio = stdio
        stdio.relay()
        if self.input_ended:
            stdio.close_stdin()

    def end_input(self) -> None:
        """CloseIO. Idempotent."""
        self.input_ended = True
        if self.stdio is not None:
            self.stdio.close_stdin()

    def require(self, action: Action) -> Status:
        """The status that the action leads to. Raises as `states.after`."""
        return after(self.kind, action, self.status)

    def finish(self, how: Exit) -> bool:
        """The end; False when it was known already."""
        if self.exit is not None:
            return False
        self.exit, self.exited_at = how, datetime.now(UTC)
        self.status = Status.STOPPED
        self.ended.set()
        return True

    @property
    def exit_status(self) -> int:
        """0 while it runs."""
        return self.exit.status if self.exit is not None else 0

    def times(self) -> dict[str, datetime]:
        """`exited_at` for an answer that has one."""
        return {"exited_at": self.exited_at} if self.exited_at is not None else {}


@dataclass(eq=False, slots=True)
class Task:
    """One container."""

    id: str
    bundle: Path
    init: Process
    is_sandbox: bool
    guest: GuestContainer | None = None
    """None for CRI's pause container, which no guest runs."""
    execs: dict[str, Process] = field(default_factory=dict)
    last_stats: v2.StatsResponse | None = None
    oom_told: bool = False

    def process(self, exec_id: str) -> Process:
        """Raises NoTaskError."""
        if not exec_id:
            return self.init
        found = self.execs.get(exec_id)
        if found is None:
            raise NoTaskError(f"exec {exec_id[:64]} of {self.id[:64]}")
        return found

    def state(self, process: Process) -> v2.StateResponse:
        """What State answers; execs are paused when their container is."""
        status = process.status
        if status is Status.RUNNING and self.init.status is Status.PAUSED:
            status = Status.PAUSED
        return v2.StateResponse(
            id=self.id,
            bundle=str(self.bundle),
            pid=process.pid,
            status=types.Status(status.value),
            stdin=process.paths.stdin,
            stdout=process.paths.stdout,
            stderr=process.paths.stderr,
            terminal=process.paths.terminal,
            exit_status=process.exit_status,
            exec_id=process.exec_id,
            **process.times(),
        )
