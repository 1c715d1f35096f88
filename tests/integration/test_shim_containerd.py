"""The shim under a real containerd, with a guest of local processes. Numbers: reference/containerd.md 6.1."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from parma_shim.lifecycle.state import is_alive, read_state
from tests.fakes.launcher import write_fake_shim
from tests.tools.oci_image import Image, layer_tar

pytestmark = [pytest.mark.containerd, pytest.mark.root]
IMAGE = "docker.io/test/tiny:1"
RUNTIME = "io.containerd.fakeguest.v2"


@dataclass
class Daemon:
    """A private containerd."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {
            "PATH": f"{self.folder}:/usr/sbin:/usr/bin:/sbin:/bin",
            "PARMA_RUN": str(self.folder / "r"),
        }
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["containerd", "-c", str(self.folder / "config.toml")],
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        until(lambda: self.ctr("version", check=False).returncode == 0, 60)

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(30)

    def ctr(
        self, *words: str, check: bool = True, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            ["ctr", "-a", str(self.folder / "c.sock"), *words],
            input=stdin,
            capture_output=True,
            timeout=60,
        )
        assert not check or done.returncode == 0, (words, done.stderr, self.log())
        return done

    def run(self, name: str, *words: str, flags: tuple[str, ...] = ("--rm",), check: bool = True):
        return self.ctr("run", "--runtime", RUNTIME, *flags, IMAGE, name, *words, check=check)

    def log(self) -> str:
        return (self.folder / "log").read_text()[-4000:]

    def groups(self) -> list[Path]:
        return [path for path in (self.folder / "r").glob("*") if (path / "s").exists()]


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("ctrd")
    write_fake_shim(folder / "containerd-shim-fakeguest-v2", repository)
    (folder / "config.toml").write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{folder}/c.sock"\n[debug]\nlevel = "debug"\n'
    )
    made = Daemon(folder)
    made.start()
    archive = Image([layer_tar("file", b"x" * 100)]).write(folder / "image.tar", IMAGE)
    made.ctr("images", "import", "--snapshotter", "native", str(archive))
    made.ctr("snapshots", "--snapshotter", "native", "ls")
    try:
        yield made
    finally:
        for state in [read_state(str(path / "state.json")) for path in made.groups()]:
            for pid, start in (
                (state.shim_pid, state.shim_start),
                (state.vmm_pid, state.vmm_start),
            ):
                if is_alive(pid, start):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        made.stop()


@pytest.fixture(autouse=True)
def nothing_is_left(daemon: Daemon) -> Iterator[None]:
    yield
    until(lambda: daemon.groups() == [])
    bundles = daemon.folder / "state/io.containerd.runtime.v2.task/default"
    until(lambda: not bundles.exists() or not list(bundles.iterdir()))


NATIVE = ("--snapshotter", "native")


def test_33_status_and_output(daemon: Daemon) -> None:
    flags = ("--rm", *NATIVE)
    assert daemon.run("t", "true", flags=flags).returncode == 0
    assert daemon.run("s", "sh", "-c", "exit 7", flags=flags, check=False).returncode == 7
    done = daemon.run("o", "sh", "-c", "echo out; echo err >&2", flags=flags)
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_33_a_missing_program(daemon: Daemon) -> None:
    done = daemon.run("m", "no-such-program", flags=("--rm", *NATIVE), check=False)
    assert done.returncode != 0
    assert b"executable file not found" in done.stderr


def test_33_detached_exec_kill(daemon: Daemon) -> None:
    daemon.run("d", "sleep", "600", flags=("-d", *NATIVE))
    assert b"RUNNING" in daemon.ctr("task", "ls").stdout
    done = daemon.ctr(
        "task", "exec", "--exec-id", "e", "d", "sh", "-c", "echo hello; exit 3", check=False
    )
    assert (done.returncode, done.stdout) == (3, b"hello\n")
    assert b"1000" in daemon.ctr("task", "metrics", "d").stdout
    daemon.ctr("task", "pause", "d")
    assert b"PAUSED" in daemon.ctr("task", "ls").stdout
    daemon.ctr("task", "resume", "d")
    daemon.ctr("task", "kill", "-s", "SIGKILL", "d")
    until(lambda: b"STOPPED" in daemon.ctr("task", "ls").stdout)
    assert b"exit code 137" in daemon.ctr("task", "delete", "d").stderr
    daemon.ctr("containers", "rm", "d")


def test_33_twenty_at_once(daemon: Daemon) -> None:
    with ThreadPoolExecutor(8) as pool:
        done = list(
            pool.map(
                lambda n: daemon.run(f"p{n}", "sh", "-c", f"echo {n}", flags=("--rm", *NATIVE)),
                range(20),
            )
        )
    assert [int(x.stdout) for x in done] == list(range(20))


def test_34_restart_of_the_daemon(daemon: Daemon) -> None:
    daemon.run("running", "sh", "-c", "sleep 600", flags=("-d", *NATIVE))
    daemon.run("finished", "sh", "-c", "exit 5", flags=("-d", *NATIVE))
    until(lambda: b"STOPPED" in daemon.ctr("task", "ls").stdout)
    daemon.stop()
    daemon.start()
    listed = daemon.ctr("task", "ls").stdout
    assert b"RUNNING" in listed
    assert b"STOPPED" in listed
    done = daemon.ctr("task", "exec", "--exec-id", "e", "running", "echo", "alive")
    assert done.stdout == b"alive\n"
    assert b"exit code 5" in daemon.ctr("task", "delete", "finished").stderr
    daemon.ctr("task", "delete", "--force", "running", check=False)
    daemon.ctr("containers", "rm", "running", "finished")


def test_35_a_killed_shim(daemon: Daemon, tmp_path: Path) -> None:
    told = tmp_path / "events"
    with told.open("wb") as file:
        events = subprocess.Popen(
            ["ctr", "-a", str(daemon.folder / "c.sock"), "events"], stdout=file
        )
    try:
        daemon.run("k", "sleep", "600", flags=("-d", *NATIVE))
        state = read_state(str(daemon.groups()[0] / "state.json"))
        os.kill(state.shim_pid, signal.SIGKILL)
        until(lambda: not is_alive(state.vmm_pid, state.vmm_start))
        until(lambda: b"k" not in daemon.ctr("task", "ls", "-q").stdout.split())
        until(lambda: "/tasks/delete" in told.read_text())
    finally:
        events.terminate()
        events.wait()
    assert '/tasks/exit {"container_id":"k","id":"k"' in told.read_text()
    assert '"exit_status":137' in told.read_text()
    daemon.ctr("containers", "rm", "k")
