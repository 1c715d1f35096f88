"""The pod on real namespaces: a shared pid namespace and its first process, connections to its loopback."""

# ruff: noqa: ASYNC240, PTH116 (a test may look at files while its loop waits)

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from parma_api.ids import SandboxId
from parma_api.status import FailedPreconditionError, UnavailableError
from parma_guest.agent.pod import Pod
from parma_guest.linux.mount import MNT_DETACH, umount
from parma_guest.linux.netns import PodNamespaces
from parma_guest.linux.pidfd import CHILDREN

POD = SandboxId("d" * 64)


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    pause = tmp_path / "pause"
    pause.write_text("#!/bin/sh\nexec sleep 600\n")
    pause.chmod(0o755)
    before = set(CHILDREN)
    yield Pod(str(tmp_path), str(pause))
    for pid in CHILDREN - before:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        CHILDREN.discard(pid)
    pinned = tmp_path / POD
    if (pinned / "pid").exists():
        umount(str(pinned / "pid"), MNT_DETACH)
        (pinned / "pid").unlink()
    if pinned.exists():
        PodNamespaces(POD, str(tmp_path)).remove()


async def test_before_setup(pod: Pod) -> None:
    with pytest.raises(FailedPreconditionError, match="SetupSandbox first"):
        await pod.namespaces(share_pid=False)


async def test_namespaces(pod: Pod, tmp_path: Path) -> None:
    await pod.setup(POD, "web-0", [], [], [])
    own = await pod.namespaces(share_pid=False)
    assert (own.pid, own.net) == (None, f"{tmp_path}/{POD}/net")
    shared = await pod.namespaces(share_pid=True)
    assert shared.pid == f"{tmp_path}/{POD}/pid"
    assert await pod.namespaces(share_pid=True) == shared
    ours = os.stat("/proc/self/ns/pid").st_ino
    assert os.stat(shared.pid).st_ino != ours
    (first,) = [p for p in CHILDREN if os.stat(f"/proc/{p}/ns/pid").st_ino != ours]
    status = Path(f"/proc/{first}/status").read_text()
    assert f"NSpid:\t{first}\t1\n" in status


async def test_an_image_without_the_pause_program(pod: Pod) -> None:
    await pod.setup(POD, "web-0", [], [], [])
    pod._pause = "/no/such/program"
    with pytest.raises(FailedPreconditionError, match="no shared pid namespace"):
        await pod.namespaces(share_pid=True)


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
async def test_connections_reach_the_pods_loopback(pod: Pod, family: int, address: str) -> None:
    await pod.setup(POD, "web-0", [], [], [])

    def listen() -> socket.socket:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.bind((address, 0))
        listener.listen()
        return listener

    listener = pod._pinned().run(listen, ("net",))
    port = listener.getsockname()[1]
    with listener, socket.socket(fileno=await pod.connect(port)) as ours:
        theirs, _ = listener.accept()
        with theirs:
            theirs.sendall(b"x")
            ours.setblocking(True)
            assert ours.recv(1) == b"x"
    with pytest.raises(UnavailableError, match="refused"):
        await pod.connect(port)
