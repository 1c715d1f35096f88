"""kubectl's ways to a running container: logs, exec, attach, cp, port-forward, ephemeral containers, stats."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from .cluster.demo import port_forward
from .conftest import Lab, wait_for

pytestmark = [pytest.mark.kubernetes, pytest.mark.vm, pytest.mark.timeout(900)]
POD = "streams"
OPTIONS = (
    *("--allow-exec", "box=/bin/sh", "--allow-exec", "box=/bin/sh -c exit\\ 7"),
    *("--allow-exec", "talker=/bin/sh"),
    *("--allow-exec", "box=tar cf - /tmp/out", "--allow-exec", "box=tar -xmf - -C /tmp"),
    *("--allow-exec", "box=test -d /tmp/in", "--allow-port-forward", "6379"),
)


@pytest.fixture(scope="module", autouse=True)
def pod(lab: Lab, applied: Callable[..., None]) -> None:
    applied("streams.yaml", OPTIONS)
    lab.ready(POD)


def command(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        lab.cluster.kubectl_command(*words),
        env={**os.environ, **lab.cluster.environment},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_logs_follow(lab: Lab) -> None:
    words = lab.cluster.kubectl_command("logs", "-f", POD, "-c", "box", "--tail=1")
    with subprocess.Popen(
        words, env={**os.environ, **lab.cluster.environment}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.terminate()
    numbers = [int(line.split()[1]) for line in lines]
    assert numbers == list(range(numbers[0], numbers[0] + 3))


def test_logs_with_time_stamps_and_since(lab: Lab) -> None:
    line = lab.cluster.kubectl("logs", POD, "-c", "box", "--timestamps", "--tail=1")
    assert line.startswith("20")
    assert "line " in line


def has_files(lab: Lab, folder: str, number: int) -> bool:
    return len(lab.cluster.node("ls", folder).split()) >= number


def test_logs_are_rotated_and_nothing_is_lost(lab: Lab) -> None:
    """`logs -f` goes on in the new file, and both turns are there line for line."""
    uid = lab.object("pod", POD)["metadata"]["uid"]
    folder = f"/var/log/pods/default_{POD}_{uid}/talker"
    words = lab.cluster.kubectl_command("logs", "-f", POD, "-c", "talker")
    with subprocess.Popen(
        words, env={**os.environ, **lab.cluster.environment}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for turn in range(2):
            lab.sh(POD, "touch /tmp/talk", "talker")
            lines = [int(process.stdout.readline()) for _ in range(60000)]
            assert lines == list(range(1, 60001))
            wait_for(partial(has_files, lab, folder, turn + 2), 60)
        process.terminate()


def test_exec_gives_the_exit_code(lab: Lab) -> None:
    done = command(lab, "exec", POD, "-c", "box", "--", "/bin/sh", "-c", "exit 7")
    assert done.returncode == 7, done.stderr


def test_exec_with_a_terminal(lab: Lab) -> None:
    words = lab.cluster.kubectl_command("exec", "-it", POD, "-c", "box", "--", "/bin/sh")
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            words,
            env={**os.environ, **lab.cluster.environment},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        os.write(ours, b"test -t 0 && echo this-is-a-$((40+2))-terminal; exit 3\n")
        seen = b""
        deadline = time.monotonic() + 40
        while b"this-is-a-42-terminal" not in seen and time.monotonic() < deadline:
            try:
                seen += os.read(ours, 4096)
            except OSError:
                break
        assert b"this-is-a-42-terminal" in seen
        assert process.wait(30) == 3
    finally:
        os.close(ours)


def test_what_the_policy_does_not_list_is_refused_readably(lab: Lab) -> None:
    done = command(lab, "exec", POD, "-c", "box", "--", "/bin/cat", "/etc/passwd")
    assert done.returncode != 0
    assert "exec_in_container denied by policy: process.command" in done.stderr


def test_a_megabyte_through_exec(lab: Lab) -> None:
    assert lab.sh(POD, "seq 1 150000") == "".join(f"{n}\n" for n in range(1, 150001))


def test_attach_sees_output_and_gives_input(lab: Lab) -> None:
    words = lab.cluster.kubectl_command("attach", "-i", POD, "-c", "echo")
    with subprocess.Popen(
        words,
        env={**os.environ, **lab.cluster.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("hello\n")
        process.stdin.flush()
        assert process.stdout.readline().strip() == "got hello"
        process.kill()


def test_cp_out_and_in(lab: Lab, tmp_path: Path) -> None:
    lab.sh(POD, "mkdir -p /tmp/out /tmp/in; echo kept > /tmp/out/file")
    lab.cluster.kubectl("cp", "-c", "box", f"{POD}:/tmp/out", str(tmp_path / "out"))
    assert (tmp_path / "out" / "file").read_text() == "kept\n"
    (tmp_path / "new").write_text("from outside\n")
    lab.cluster.kubectl("cp", "-c", "box", str(tmp_path / "new"), f"{POD}:/tmp/new")
    assert lab.sh(POD, "cat /tmp/new") == "from outside\n"


def ping(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(100)


def test_port_forward_reaches_what_listens_on_loopback_only(lab: Lab) -> None:
    with port_forward(lab.cluster, f"pod/{POD}", 6379) as port:
        assert ping(port) == b"+PONG\r\n"


def test_port_forward_to_a_port_that_the_policy_has_not(lab: Lab) -> None:
    with port_forward(lab.cluster, f"pod/{POD}", 9090) as port:
        try:
            assert ping(port) == b""
        except ConnectionError:
            return


def test_the_kubelets_statistics_are_the_guests(lab: Lab) -> None:
    def memory() -> int:
        path = f"/api/v1/nodes/{lab.object('pod', POD)['spec']['nodeName']}/proxy/stats/summary"
        pods = json.loads(lab.cluster.kubectl("get", "--raw", path))["pods"]
        rows = [
            row for pod in pods if pod["podRef"]["name"] == POD for row in pod.get("containers", [])
        ]
        return next(
            (
                row.get("memory", {}).get("workingSetBytes", 0)
                for row in rows
                if row["name"] == "box"
            ),
            0,
        )

    # A shell and a sleep: more than nothing, and far less than the VM around it.
    assert 50_000 < wait_for(memory, 60) < 64 << 20
