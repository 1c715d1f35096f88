"""Streams: terminals and their size, twenty execs at once, ten megabytes both ways, a deadline that leaves nothing."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pty
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from parma_shim.demo.daemon import PrivateContainerd

from .conftest import Pod
from .members import BOX, CAT, LONG

pytestmark = [pytest.mark.vm, pytest.mark.containerd, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def box(daemon: PrivateContainerd, shared_pod: Pod) -> Iterator[str]:
    made = shared_pod.run(BOX, metadata={"name": "box", "attempt": 20})
    yield made
    daemon.crictl("rm", "--force", made)


def resize(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def read_until(terminal: int, wanted: bytes, seconds: float = 60) -> bytes:
    found = b""
    deadline = time.monotonic() + seconds
    while wanted not in found.replace(b"\r", b""):
        assert time.monotonic() < deadline, found
        with contextlib.suppress(BlockingIOError):
            found += os.read(terminal, 65536)
            continue
        time.sleep(0.05)
    return found.replace(b"\r", b"")  # ctr leaves its own terminal translating line ends


def test_27_a_terminal_and_its_size(daemon: PrivateContainerd, box: str) -> None:
    ours, theirs = pty.openpty()
    resize(ours, 40, 100)
    os.set_blocking(ours, False)
    words = ("--namespace", "k8s.io", "tasks", "exec", "--tty", "--exec-id", "tty", box, "/bin/sh")
    command = [str(daemon.settings.programs.ctr), "--address", str(daemon.socket), *words]
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    try:
        read_until(ours, b"# ")
        os.write(ours, b"/bin/busybox stty size; /bin/busybox tty\r")
        assert b"\n40 100\n" in read_until(ours, b"/dev/pts/0\n")
        resize(ours, 50, 120)
        time.sleep(1)
        os.write(ours, b"/bin/busybox stty size\r")
        read_until(ours, b"\n50 120\n")
        os.write(ours, b"exit 7\r")
        assert process.wait(60) == 7
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_33_twenty_execs_at_once(shared_pod: Pod, box: str) -> None:
    with ThreadPoolExecutor(20) as threads:
        answers = list(
            threads.map(lambda n: shared_pod.sh(box, f"echo $(({n} * 3))", 200), range(20))
        )
    assert [int(answer) for answer in answers] == [n * 3 for n in range(20)]


def test_27_ten_megabytes_both_ways(daemon: PrivateContainerd, box: str) -> None:
    data = os.urandom(10 << 20)
    command = [*daemon.crictl_command(), "exec", "-i", box, *CAT]
    done = subprocess.run(command, input=data, capture_output=True, timeout=200, check=True)
    assert len(done.stdout) == len(data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_36_an_exec_past_its_deadline_leaves_nothing(shared_pod: Pod, box: str) -> None:
    command = [*shared_pod.daemon.crictl_command(), "exec", "--sync", "--timeout", "2", box]
    done = subprocess.run([*command, *LONG], capture_output=True, timeout=60, check=False)
    assert b"timeout 2s exceeded" in done.stderr
    assert "sleep 777" not in shared_pod.sh(box, "ps")
