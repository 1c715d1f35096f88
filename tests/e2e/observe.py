"""Looking from outside: waiting for something to become true, and what pods have left on the host."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from parma_shim.demo.daemon import CommandFailedError, PrivateContainerd, run_checked

T = TypeVar("T")


def wait_for(check: Callable[[], T], seconds: float = 30) -> T:
    """The first true answer of `check`; commands that fail meanwhile are tried again."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = check()
            if found:
                return found
        except CommandFailedError:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.2)


def leavings(daemon: PrivateContainerd) -> dict[str, list[str]]:
    """What pods of this daemon left: run files, processes that know its folder, mounts, taps, bundles."""
    folder = str(daemon.folder)
    own = str(daemon._process.pid) if daemon._process is not None else ""
    processes = [
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/environ")
        if folder.encode() in contents(path) and path.parent.name != own
    ]
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    links = json.loads(run_checked([*daemon.inside(), "ip", "-json", "link"]))
    tasks = daemon.folder / "state/io.containerd.runtime.v2.task"
    return {
        "run": sorted(
            path.name for path in (daemon.folder / "run").iterdir() if path.name != "denials"
        ),
        "processes": sorted(processes),
        "mounts": sorted(mount for mount in mounts if mount.startswith(folder)),
        # The bridge comes with the first pod.
        "links": sorted({link["ifname"] for link in links} - {"parma0"}),
        "bundles": sorted(path.name for path in tasks.glob("*/*")),
    }


def wait_as_before(
    daemon: PrivateContainerd, before: dict[str, list[str]], seconds: float = 60
) -> None:
    """Nothing more than there was; the failure shows what is."""
    with contextlib.suppress(AssertionError):
        wait_for(lambda: leavings(daemon) == before, seconds)
    now = leavings(daemon)
    differing = {key: (before[key], now[key]) for key in before if before[key] != now[key]}
    assert not differing, f"before and now: {differing}"


def runs(pid: int) -> bool:
    """Whether the process is there and not just its status: not every machine's process 1 collects orphans at once."""
    stat = contents(Path(f"/proc/{pid}/stat"))
    return bool(stat) and stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def contents(path: Path) -> bytes:
    """Of a file that may go away any moment."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def status_of(daemon: PrivateContainerd, container: str) -> dict[str, Any]:
    """CRI's status of a container."""
    status: dict[str, Any] = json.loads(daemon.crictl("inspect", container))["status"]
    return status


def ended(daemon: PrivateContainerd, container: str, seconds: float = 60) -> dict[str, Any]:
    """CRI's status of a container once it has ended."""

    def look() -> dict[str, Any] | None:
        status = status_of(daemon, container)
        return status if status["state"] == "CONTAINER_EXITED" else None

    found = wait_for(look, seconds)
    assert found is not None
    return found


@contextlib.contextmanager
def configured(daemon: PrivateContainerd, text: str) -> Iterator[None]:
    """Shims that start meanwhile read this configuration."""
    path = daemon.folder / "parma.toml"
    before = path.read_text()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(before)


@contextlib.contextmanager
def recorded_events(daemon: PrivateContainerd) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Topic and content of each event of all namespaces, as they come."""
    found: list[tuple[str, dict[str, Any]]] = []
    listening = threading.Event()
    command = [str(daemon.settings.programs.ctr), "--address", str(daemon.socket), "events"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = process.stdout

        def read() -> None:
            for line in lines:
                parts = line.split(" ", 6)
                topic = next((part for part in parts if part.startswith("/")), "")
                listening.set()
                if not topic.startswith("/namespaces/"):
                    found.append((topic, json.loads(line[line.index("{") :])))

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            wait_for(lambda: _provoke_event(daemon) or listening.wait(0.5))
            yield found
        finally:
            process.kill()
            reader.join(5)


def _provoke_event(daemon: PrivateContainerd) -> None:
    """ctr says nothing when it listens: a namespace that comes and goes is an event that harms nobody."""
    for action in ("create", "remove"):
        daemon.ctr("namespaces", action, "probe")
