"""Control groups, version 2 (Documentation/admin-guide/cgroup-v2.rst): files of one directory."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from parma_api.status import DeadlineExceededError
from parma_guest.linux.errno import kernel_call

ROOT = "/sys/fs/cgroup"
CONTAINERS = "/parma"
"""The group above all containers, beneath the root."""
NO_LIMIT = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What to write; None leaves a file as it is, -1 lifts a limit. Bytes, microseconds, weights of version 2."""

    memory_max: int | None = None
    memory_low: int | None = None
    swap_max: int | None = None
    cpu_weight: int | None = None
    cpu_quota: int | None = None
    cpu_period: int = 100_000
    cpus: str | None = None
    pids_max: int | None = None

    def files(self) -> tuple[tuple[str, str], ...]:
        """Files and what goes into them, in the order of writing."""
        rows: list[tuple[str, str]] = []
        for name, value in (
            ("memory.low", self.memory_low),
            ("memory.max", self.memory_max),
            ("memory.swap.max", self.swap_max),
            ("cpu.weight", self.cpu_weight),
            ("pids.max", self.pids_max),
        ):
            if value is not None:
                rows.append((name, "max" if value < 0 else str(value)))
        if self.cpu_quota is not None:
            quota = "max" if self.cpu_quota < 0 else str(self.cpu_quota)
            rows.append(("cpu.max", f"{quota} {self.cpu_period}"))
        if self.cpus is not None:
            rows.append(("cpuset.cpus", self.cpus))
        return tuple(rows)


def weight_of_shares(shares: int) -> int:
    """cpu.weight (1 to 10000) of version 1's shares (2 to 262144): the conversion that runc and crun make."""
    bounded = min(max(shares, 2), 262144)
    return 1 + (bounded - 2) * 9999 // 262142


@dataclass(frozen=True, slots=True)
class Io:
    """Counters of one device."""

    major: int
    minor: int
    values: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Stats:
    """What the files say, by the kernel's own names; an absent file gives an empty mapping."""

    cpu: Mapping[str, int]
    memory: Mapping[str, int]
    memory_current: int
    memory_max: int
    swap_current: int
    swap_max: int
    memory_events: Mapping[str, int]
    pids_current: int
    pids_max: int
    io: tuple[Io, ...]


def parse_flat(text: str) -> dict[str, int]:
    """A file of lines `key value`."""
    return {key: int(value) for key, value in (line.split() for line in text.splitlines() if line)}


def parse_io(text: str) -> tuple[Io, ...]:
    """io.stat: lines `major:minor key=value ...`."""
    found: list[Io] = []
    for line in text.splitlines():
        device, *pairs = line.split()
        major, minor = device.split(":")
        values = {key: int(value) for key, _, value in (pair.partition("=") for pair in pairs)}
        found.append(Io(int(major), int(minor), values))
    return tuple(found)


def parse_number(text: str) -> int:
    """A number or `max`; an empty text is 0."""
    word = text.strip()
    return NO_LIMIT if word == "max" else int(word or 0)


class Cgroup:
    """One group, by its directory. Methods raise KernelError."""

    def __init__(self, path: str) -> None:
        self.path = path

    def child(self, name: str) -> Cgroup:
        """The group of that name beneath this one; it may not exist yet."""
        return Cgroup(f"{self.path}/{name}")

    def create(self) -> None:
        """Make the directory; one that is there is fine."""
        with kernel_call("mkdir", self.path), suppress(FileExistsError):
            os.mkdir(self.path, 0o755)  # noqa: PTH102 (pathlib costs an import)

    def enable(
        self, controllers: tuple[str, ...] = ("cpu", "cpuset", "io", "memory", "pids")
    ) -> None:
        """Give those of the controllers that are there to the children."""
        present = self._read("cgroup.controllers").split()
        words = " ".join(f"+{name}" for name in controllers if name in present)
        if words:
            self._write("cgroup.subtree_control", words)

    def apply(self, limits: Limits) -> None:
        """Write the limits."""
        for name, value in limits.files():
            self._write(name, value)

    def add(self, pid: int) -> None:
        """Move a process here."""
        self._write("cgroup.procs", str(pid))

    def processes(self) -> tuple[int, ...]:
        """Processes here and in every group beneath."""
        found = [int(word) for word in self._read("cgroup.procs").split()]
        with os.scandir(self.path) as entries:
            inner = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        for name in inner:
            found.extend(self.child(name).processes())
        return tuple(sorted(found))

    def freeze(self, timeout: float = 10.0) -> None:
        """Stop every process; returns when the kernel says so. Raises DeadlineExceededError."""
        self._set_frozen("1", timeout)

    def thaw(self, timeout: float = 10.0) -> None:
        """Let them go on."""
        self._set_frozen("0", timeout)

    def _set_frozen(self, wanted: str, timeout: float) -> None:
        self._write("cgroup.freeze", wanted)
        self._await_event("frozen", wanted, timeout)

    def kill(self) -> None:
        """SIGKILL to every process here and beneath, new ones included."""
        self._write("cgroup.kill", "1")

    def wait_empty(self, timeout: float) -> None:
        """Wait until no process is left. Raises DeadlineExceededError."""
        self._await_event("populated", "0", timeout)

    def _await_event(self, key: str, value: str, timeout: float) -> None:
        path = f"{self.path}/cgroup.events"
        deadline = time.monotonic() + timeout
        with kernel_call("open", path):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            poll = select.poll()
            poll.register(fd, select.POLLPRI)
            while f"{key} {value}" not in os.pread(fd, 256, 0).decode().splitlines():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise DeadlineExceededError(f"{self.path}: not '{key} {value}' in time")
                poll.poll(min(left, 0.5) * 1000)
        finally:
            os.close(fd)

    def remove(self) -> None:
        """Remove the directory and the empty ones beneath; absent is fine."""
        with suppress(FileNotFoundError), os.scandir(self.path) as entries:
            inner = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
            for name in inner:
                self.child(name).remove()
        with kernel_call("rmdir", self.path), suppress(FileNotFoundError):
            os.rmdir(self.path)  # noqa: PTH106 (pathlib costs an import)

    def memory_events(self) -> dict[str, int]:
        """low, high, max, oom, oom_kill."""
        return parse_flat(self._read("memory.events"))

    def stats(self) -> Stats:
        """Everything at once."""
        return Stats(
            cpu=parse_flat(self._read("cpu.stat")),
            memory=parse_flat(self._read("memory.stat")),
            memory_current=parse_number(self._read("memory.current")),
            memory_max=parse_number(self._read("memory.max")),
            swap_current=parse_number(self._read("memory.swap.current")),
            swap_max=parse_number(self._read("memory.swap.max")),
            memory_events=self.memory_events(),
            pids_current=parse_number(self._read("pids.current")),
            pids_max=parse_number(self._read("pids.max")),
            io=parse_io(self._read("io.stat")),
        )

    def _read(self, name: str) -> str:
        path = f"{self.path}/{name}"
        with (
            kernel_call("read", path),
            suppress(FileNotFoundError),
            open(path, encoding="ascii") as file,  # noqa: PTH123 (pathlib costs an import)
        ):
            return file.read()
        return ""

    def _write(self, name: str, value: str) -> None:
        path = f"{self.path}/{name}"
        with (
            kernel_call("write", path, f"value {value!r}"),
            open(path, "w", encoding="ascii") as file,  # noqa: PTH123 (pathlib costs an import)
        ):
            file.write(value)
