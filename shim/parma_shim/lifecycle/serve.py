"""`serve`: the process that lives as long as the group.

Descriptor 3 is the listening socket. It ends when containerd asks for it and no container is left, or on SIGTERM or
SIGINT; then the VM, the socket and the group's folder are gone. SIGKILL leaves them to `delete`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from parma_api.status import ApiError
from parma_api.ttrpc.server import TtrpcServer
from parma_api.wire.strict import Unknown
from parma_shim.errors import UsageError
from parma_shim.lifecycle.arguments import Arguments
from parma_shim.lifecycle.logfifo import FifoHandler
from parma_shim.lifecycle.places import Group as Places
from parma_shim.lifecycle.places import run_directory
from parma_shim.lifecycle.start import LISTEN_FD
from parma_shim.lifecycle.state import GroupState, start_time, write_state
from parma_shim.sandbox.ports import Ports, RunningMachine
from parma_shim.task.control import ControlService
from parma_shim.task.events import Publisher, dial_containerd
from parma_shim.task.group import Group
from parma_shim.task.service import TaskService, TaskServiceV3

log = logging.getLogger(__name__)

Assemble: TypeAlias = Callable[[Arguments], Ports]
"""Gives the collaborators that the process works with."""

FLUSH_DEADLINE = 2.0
GRACE = 0.5
"""Seconds that calls under way may take to end; containerd gives Shutdown 3 s in all."""


def serve(arguments: Arguments, bundle: str, assemble: Assemble | None) -> None:
    """Returns when the group is over. Raises UsageError without a listening socket."""
    listener = _inherited()
    _set_up_log(arguments, bundle)
    places = Places(os.path.dirname(listener.getsockname()))  # noqa: PTH120
    os.chdir("/")
    _join_cgroup(arguments.shim_cgroup)
    try:
        ports = (assemble or _assemble)(arguments)
        asyncio.run(_Server(arguments, places, ports, listener).run())
    except Exception:
        log.exception("the shim ends by an error of its own")
        raise
    finally:
        logging.shutdown()


class _Server:
    """One run of the process."""

    def __init__(
        self, arguments: Arguments, places: Places, ports: Ports, listener: socket.socket
    ) -> None:
        self._arguments = arguments
        self._places = places
        self._ports = ports
        self._listener = listener
        self._state = GroupState(shim_pid=os.getpid(), shim_start=start_time(os.getpid()))

    async def run(self) -> None:
        self._write_state()
        over = asyncio.Event()
        _on_signals(over.set)
        publisher = Publisher(
            dial_containerd(os.environ.get("TTRPC_ADDRESS", "")), self._arguments.namespace
        )
        group = Group(
            self._arguments.namespace,
            self._ports,
            publisher,
            Path(self._places.directory),
            self._note_machine,
        )
        service = TaskService(group, publisher, over.set)
        server = TtrpcServer(
            [service, TaskServiceV3(service), ControlService(group)], unknown_fields=Unknown.IGNORE
        )
        async with asyncio.TaskGroup() as tasks:
            publishing = tasks.create_task(publisher.run())
            serving = tasks.create_task(server.serve_unix(self._listener))
            await over.wait()
            self._stop_listening()
            await server.shutdown(GRACE)
            await serving
            await group.stop()
            await publisher.flush(FLUSH_DEADLINE)
            publishing.cancel()
        shutil.rmtree(self._places.directory, ignore_errors=True)
        log.info("shim ended")

    def _stop_listening(self) -> None:
        """From now on a `start` for the same group begins a new one, as soon as it has the lock."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._places.socket)  # noqa: PTH108

    def _note_machine(self, running: RunningMachine, netns: Path | None) -> None:
        pid = running.machine.pid
        self._state = self._state._replace(
            vmm_pid=pid,
            vmm_start=start_time(pid),
            netns=str(netns) if netns is not None else "",
            cgroups=tuple(str(path) for path in running.cgroups),
            sandbox_id=self._arguments.id,
        )
        self._write_state()

    def _write_state(self) -> None:
        try:
            write_state(self._places.state, self._state)
        except OSError as error:
            log.warning("%s cannot be written: %s", self._places.state, error.strerror)


def _inherited() -> socket.socket:
    try:
        listener = socket.socket(fileno=LISTEN_FD)
    except OSError as error:
        raise UsageError("serve is run by `start`, which hands it a listening socket") from error
    os.set_inheritable(LISTEN_FD, False)  # noqa: FBT003 -- the os module's signature
    return listener


def _on_signals(stop: Callable[[], None]) -> None:
    """The first SIGTERM or SIGINT ends in order; containerd's going away (SIGHUP, SIGPIPE) is nothing to us."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    for number in (signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)


def _set_up_log(arguments: Arguments, bundle: str) -> None:
    handler = FifoHandler(
        f"{bundle}/log",
        f"runtime=io.containerd.parma.v2 namespace={arguments.namespace} id={arguments.id}",
    )
    logging.basicConfig(
        handlers=[handler], level=logging.DEBUG if arguments.debug else logging.INFO
    )
    logging.raiseExceptions = False
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def _join_cgroup(path: str) -> None:
    """Option ShimCgroup. A cgroup that does not take us is no reason to fail a pod."""
    if not path:
        return
    from parma_shim.vmm.cgroup import make_pod_cgroups

    try:
        for directory in make_pod_cgroups(path).directories:
            (directory / "cgroup.procs").write_text(str(os.getpid()))
    except (ApiError, OSError) as error:
        log.warning("ShimCgroup %s: %s", path, error)


def _assemble(arguments: Arguments) -> Ports:
    """A bad configuration is told to whoever creates a container: nobody reads the end of a process."""
    from parma_shim.sandbox.assembly import assemble, refusing

    try:
        return assemble(arguments.namespace, arguments.address, os.environ)
    except ApiError as error:
        log.error("no container can be run: %s", error.message)  # noqa: TRY400 -- no bug of ours
        return refusing(error, Path(run_directory(os.environ)))
