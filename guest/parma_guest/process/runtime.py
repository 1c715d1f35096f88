"""crun: containers made, started, entered, taken apart. One process of crun for each call, each under a deadline."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from parma_api.ids import ContainerId
from parma_api.status import (
    ApiError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
)
from parma_guest.linux.cgroup import ROOT, Cgroup
from parma_guest.linux.errno import KernelError, kernel_call
from parma_guest.oci.build import CGROUP
from parma_guest.process.console import ConsoleSocket
from parma_guest.process.reaper import Exit
from parma_guest.process.spawn import Descriptors, Spawner

MAX_LOG: Final = 4096
"""Bytes of crun's log that are read for an error's text."""
MAX_MESSAGE: Final = 300
_MISSING: Final = re.compile(r"not found|No such file or directory")
_NOT_PRINTABLE: Final = re.compile(r"[^ -~]")


@dataclass(frozen=True, slots=True)
class Started:
    """A process that exists: its pid, its end, and its terminal's master side if it has one."""

    pid: int
    ended: asyncio.Future[Exit]
    terminal: int | None = None


class Runtime(Protocol):
    """What the agent needs of a container runtime. Methods raise ApiError; `deadline` is by the loop's clock."""

    async def create(
        self,
        container: ContainerId,
        document: Mapping[str, object],
        streams: Descriptors,
        deadline: float,
    ) -> Started:
        """Set the container up, its first process waiting. A missing program fails here. Nothing is left on failure."""
        ...

    async def start(self, container: ContainerId, deadline: float) -> None:
        """Let the first process run."""
        ...

    async def execute(
        self,
        container: ContainerId,
        process: Mapping[str, object],
        streams: Descriptors,
        deadline: float,
    ) -> Started:
        """A further process, running. A missing program fails here."""
        ...

    async def delete(self, container: ContainerId, deadline: float) -> None:
        """Take the container apart, killing what is left of it. One that is not there is fine."""
        ...

    def kill_all(self, container: ContainerId) -> None:
        """SIGKILL to every process of the container; none is fine."""
        ...

    def pids(self, container: ContainerId) -> tuple[int, ...]:
        """Every process of the container."""
        ...

    def cgroup(self, container: ContainerId) -> Cgroup:
        """Its control group, whether it exists or not."""
        ...


class Crun:
    """The real one."""

    def __init__(
        self,
        spawner: Spawner,
        *,
        binary: str = "/usr/bin/crun",
        directory: str = "/run/parma/c",
        state: str = "/run/parma/crun",
        cgroups: str = ROOT,
    ) -> None:
        """`directory` gets a folder for each container, `state` is crun's own; both are made as needed, root only."""
        self._spawner = spawner
        self._directory = directory
        self._prefix = [binary, "--root", state, "--cgroup-manager", "cgroupfs"]
        self._cgroups = cgroups
        self._numbers = 0

    async def create(
        self,
        container: ContainerId,
        document: Mapping[str, object],
        streams: Descriptors,
        deadline: float,
    ) -> Started:
        """See Runtime."""
        folder = self._folder(container)
        with kernel_call("mkdir", folder):
            os.makedirs(folder, 0o700, exist_ok=True)  # noqa: PTH103 (pathlib costs an import)
        _write(f"{folder}/config.json", document)
        try:
            arguments = ["create", "--bundle", folder]
            return await self._launch(container, arguments, document["process"], streams, deadline)
        except BaseException:
            await self._outlasting_delete(container)
            raise

    async def start(self, container: ContainerId, deadline: float) -> None:
        """See Runtime."""
        await self._call(container, ["start", container], deadline)

    async def execute(
        self,
        container: ContainerId,
        process: Mapping[str, object],
        streams: Descriptors,
        deadline: float,
    ) -> Started:
        """See Runtime."""
        self._numbers += 1
        path = f"{self._folder(container)}/process-{self._numbers}.json"
        _write(path, process)
        try:
            arguments = ["exec", "--detach", "--process", path]
            return await self._launch(container, arguments, process, streams, deadline)
        finally:
            _remove(path)

    async def delete(self, container: ContainerId, deadline: float) -> None:
        """See Runtime."""
        self.kill_all(container)
        await self._call(container, ["delete", "--force", container], deadline)
        await asyncio.to_thread(self.cgroup(container).remove)
        folder = self._folder(container)
        with kernel_call("remove", folder), suppress(FileNotFoundError):
            for name in os.listdir(folder):  # noqa: PTH208 (pathlib costs an import)
                _remove(f"{folder}/{name}")
            os.rmdir(folder)  # noqa: PTH106 (pathlib costs an import)

    def kill_all(self, container: ContainerId) -> None:
        """See Runtime."""
        with suppress(KernelError):
            self.cgroup(container).kill()

    def pids(self, container: ContainerId) -> tuple[int, ...]:
        """See Runtime."""
        try:
            return self.cgroup(container).processes()
        except (KernelError, FileNotFoundError):
            return ()

    def cgroup(self, container: ContainerId) -> Cgroup:
        """See Runtime."""
        return Cgroup(f"{self._cgroups}{CGROUP}/{container}")

    def _folder(self, container: ContainerId) -> str:
        return f"{self._directory}/{container}"

    async def _launch(
        self,
        container: ContainerId,
        arguments: list[str],
        process: object,
        streams: Descriptors,
        deadline: float,
    ) -> Started:
        assert isinstance(process, Mapping)
        self._numbers += 1
        pid_file = f"{self._folder(container)}/pid-{self._numbers}"
        arguments = [*arguments, "--pid-file", pid_file]
        try:
            with self._spawner.reaper.expecting():
                if not process["terminal"]:
                    await self._call(container, [*arguments, container], deadline, streams)
                    return self._started(pid_file)
                with ConsoleSocket(f"{self._folder(container)}/tty-{self._numbers}") as console:
                    arguments += ["--console-socket", console.path, container]
                    await self._call(container, arguments, deadline, streams)
                    return self._started(pid_file, await console.receive(deadline))
        except BaseException:
            _kill(pid_file)  # what was refused, or came too late, does not run on
            raise
        finally:
            _remove(pid_file)

    def _started(self, pid_file: str, terminal: int | None = None) -> Started:
        pid = _read_pid(pid_file)
        if pid is None:
            raise InternalError("crun wrote no pid")
        return Started(pid, self._spawner.reaper.watch(pid), terminal)

    async def _call(
        self,
        container: ContainerId,
        arguments: list[str],
        deadline: float,
        streams: Descriptors | None = None,
    ) -> None:
        self._numbers += 1
        log = f"{self._folder(container)}/log-{self._numbers}"
        if not os.access(self._folder(container), os.X_OK):
            log = os.devnull  # taken apart already
        command = [*self._prefix, "--log", log, *arguments]
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            given = streams or Descriptors(null, null, null)
            how = await self._spawner.run(command, given, deadline)
            if how.status:
                raise _failure(arguments[0], _last_line(log), how.status)
        finally:
            os.close(null)
            if log != os.devnull:
                _remove(log)

    async def _outlasting_delete(self, container: ContainerId) -> None:
        """Take a failed creation apart, also when the caller is cancelled."""
        deadline = asyncio.get_running_loop().time() + 15.0
        work = asyncio.ensure_future(self.delete(container, deadline))
        while not work.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({work})
        with suppress(ApiError):
            work.result()


def _failure(action: str, message: str, status: int) -> ApiError:
    """crun's own words; 127 and 126 are what a shell would say."""
    text = f"crun {action}: {message or f'status {status}'}"
    if "executable" in message:
        code = 127 if _MISSING.search(message) else 126
        return InvalidArgumentError(f"{text} ({code})")
    if "is not running" in message or "does not exist" in message or "already" in message:
        return FailedPreconditionError(text)
    return InternalError(text)


def _read_pid(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:  # noqa: PTH123 (pathlib costs an import)
            return int(file.read(16))
    except (OSError, ValueError):
        return None


def _kill(pid_file: str) -> None:
    pid = _read_pid(pid_file)
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(
                pid, signal.SIGKILL
            )  # our child by now, and not reaped while a launch is expected


def _last_line(path: str) -> str:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (pathlib costs an import)
            content = file.read(MAX_LOG)
    except OSError:
        return ""
    lines = content.decode(errors="replace").strip().splitlines()
    return _NOT_PRINTABLE.sub("?", lines[-1])[:MAX_MESSAGE] if lines else ""


def _write(path: str, document: Mapping[str, object]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with kernel_call("write", path):
        fd = os.open(path, flags, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(document, file)


def _remove(path: str) -> None:
    with kernel_call("unlink", path), suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 (pathlib costs an import)
