"""`ctr` with the real shim: exit statuses, terminals, log files, detached tasks with execs (conformance 33)."""

from __future__ import annotations

import base64
import os
import pty
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from parma_shim.demo import images
from parma_shim.demo.daemon import CommandFailedError, PrivateContainerd

from .conftest import ANNOTATION, Store, annotation, policy_text
from .observe import leavings, wait_as_before, wait_for

pytestmark = [pytest.mark.vm, pytest.mark.containerd, pytest.mark.timeout(300)]
RUNTIME = ("--runtime", "io.containerd.parma.v2")
SHELL = ("/bin/sh",)
SLEEP = ("/bin/sleep", "1000000")
SEVEN = ("/bin/sh", "-c", "/bin/busybox tty; id -u; exit 7")


@pytest.fixture(scope="module")
def policy(store: Store) -> bytes:
    commands = {"true": ("/bin/true",), "false": ("/bin/false",), "seven": SEVEN, "sleep": SLEEP}
    return policy_text(
        *(
            store.container(name, images.BUSYBOX, command, execs=[SHELL, ("/bin/nothing",)])
            for name, command in commands.items()
        )
    )


@pytest.fixture(autouse=True)
def nothing_is_left(daemon: PrivateContainerd) -> Iterator[None]:
    before = leavings(daemon)
    yield
    wait_as_before(daemon, before)


def ctr(daemon: PrivateContainerd, *words: str) -> list[str]:
    program = str(daemon.settings.programs.ctr)
    return [program, "--address", str(daemon.socket), "--namespace", "default", *words]


def run(daemon: PrivateContainerd, name: str, command: tuple[str, ...], *flags: str) -> str:
    words = (*RUNTIME, *flags, images.BUSYBOX, name, *command)
    return daemon.ctr("run", *words, namespace="default")


def test_33_success_into_a_log_file(
    daemon: PrivateContainerd, policy: bytes, tmp_path: Path
) -> None:
    log = tmp_path / "deep" / "log"
    given = f"{ANNOTATION}={annotation(policy)}"
    run(daemon, "yes", ("/bin/true",), "--rm", "--annotation", given, "--log-uri", f"file://{log}")
    assert log.exists()


def test_33_failure_with_the_policy_in_a_file(
    daemon: PrivateContainerd, policy: bytes, tmp_path: Path
) -> None:
    (tmp_path / "policy.rego").write_bytes(policy)
    options = tmp_path / "options.toml"
    options.write_text('policy = "policy.rego"\n')
    with pytest.raises(CommandFailedError) as caught:
        run(daemon, "no", ("/bin/false",), "--rm", "--runtime-config-path", str(options))
    assert caught.value.status == 1


def test_33_a_terminal(daemon: PrivateContainerd, policy: bytes) -> None:
    ours, theirs = pty.openpty()
    given = f"{ANNOTATION}={base64.b64encode(policy).decode()}"
    words = ("run", *RUNTIME, "--rm", "--tty", "--annotation", given, images.BUSYBOX, "tty", *SEVEN)
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *ctr(daemon, *words)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        assert process.wait(120) == 7
        assert os.read(ours, 4096).split() == [b"/dev/pts/0", b"0"]
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def execute(
    daemon: PrivateContainerd, name: str, script: bytes, *command: str
) -> tuple[int, bytes, bytes]:
    """Status, output and errors of an exec of a shell, or of another command."""
    words = ("tasks", "exec", "--exec-id", f"e{os.urandom(4).hex()}", name, *(command or SHELL))
    done = subprocess.run(
        ctr(daemon, *words), input=script, capture_output=True, timeout=120, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_33_detached_with_execs_killed_deleted(daemon: PrivateContainerd, policy: bytes) -> None:
    given = f"{ANNOTATION}={annotation(policy)}"
    run(daemon, "long", SLEEP, "--detach", "--annotation", given)
    try:
        for script, status in (("true", 0), ("exit 126", 126), ("kill -9 $$", 137)):
            assert execute(daemon, "long", script.encode())[0] == status
        assert execute(daemon, "long", b"echo out; echo err >&2") == (0, b"out\n", b"err\n")
        status, _, errors = execute(daemon, "long", b"", "/bin/nothing")
        assert status != 0
        assert b"/bin/nothing" in errors
        with ThreadPoolExecutor(20) as threads:
            scripts = [f"echo {n}; exit {n}".encode() for n in range(20)]
            answers = list(threads.map(lambda script: execute(daemon, "long", script), scripts))
        assert [(s, int(out)) for s, out, _ in answers] == [(n, n) for n in range(20)]
        files = b"cd /security-context-*; for f in *; do echo $f; base64 -d < $f | head -c 20; echo; done"
        context = execute(daemon, "long", files)[1].decode()
        assert "host-amd-cert-base64" in context
        assert "security-policy-base64\npackage policy" in context
        assert daemon.ctr("tasks", "ls", namespace="default").split()[-1] == "RUNNING"
        daemon.ctr("tasks", "pause", "long", namespace="default")
        assert daemon.ctr("tasks", "ls", namespace="default").split()[-1] == "PAUSED"
        daemon.ctr("tasks", "resume", "long", namespace="default")
        with pytest.raises(CommandFailedError, match="task must be stopped before deletion"):
            daemon.ctr("tasks", "delete", "long", namespace="default")
        daemon.ctr("tasks", "kill", "--signal", "SIGKILL", "long", namespace="default")
        wait_for(lambda: "STOPPED" in daemon.ctr("tasks", "ls", namespace="default"))
        assert "pids.current" in daemon.ctr("tasks", "metrics", "long", namespace="default")
        done = subprocess.run(
            ctr(daemon, "tasks", "delete", "long"), capture_output=True, timeout=60, check=True
        )
        assert b"exit with non-zero exit code 137" in done.stderr
    finally:
        subprocess.run(
            ctr(daemon, "tasks", "delete", "--force", "long"), capture_output=True, check=False
        )
        daemon.ctr("containers", "delete", "long", namespace="default")
