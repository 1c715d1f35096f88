"""`start`, `serve`, `delete` as processes, without containerd. Numbers: reference/containerd.md 6.1."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from parma_api.channel.stream import connect_unix
from parma_api.gen.containerd.task import v2
from parma_api.ttrpc.client import TtrpcClient
from parma_shim.lifecycle.state import is_alive, read_state
from tests.fakes.launcher import write_fake_shim
from tests.fakes.rig import document

CRI = "io.kubernetes.cri."


@dataclass
class Shim:
    """The executable and what it needs around."""

    program: Path
    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "r"

    def bundle(self, name: str, spec: object | None = None) -> Path:
        folder = self.folder / "b" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(spec or document("sleep", "60")))
        return folder

    def __call__(
        self, bundle: Path, *words: str, stdin: bytes = b"", flags: Sequence[str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        common = ["-namespace", "ns", "-address", "/containerd.sock", "-publish-binary", "/x"]
        return subprocess.run(
            [str(self.program), *(common if flags is None else flags), *words],
            cwd=bundle,
            input=stdin,
            capture_output=True,
            check=False,
            timeout=20,
            env={"PARMA_RUN": str(self.run), "PATH": os.environ["PATH"]},
        )

    def start(self, name: str, spec: object | None = None) -> str:
        done = self(self.bundle(name, spec), "-id", name, "start")
        assert (done.returncode, done.stderr) == (0, b""), done
        return done.stdout.decode().strip()

    def delete(self, name: str) -> v2.DeleteResponse:
        bundle = self.bundle(name)
        done = self(bundle, "-bundle", str(bundle), "-id", name, "delete")
        assert (done.returncode, done.stderr) == (0, b""), done
        return v2.DeleteResponse().parse(done.stdout)

    def states(self) -> list[Path]:
        return list(self.run.glob("*/state.json"))


@pytest.fixture
def shim(tmp_path: Path, repository: Path) -> Iterator[Shim]:
    made = Shim(write_fake_shim(tmp_path / "containerd-shim-fake-v2", repository), tmp_path)
    yield made
    for path in made.states():
        state = read_state(str(path))
        for pid, started in ((state.shim_pid, state.shim_start), (state.vmm_pid, state.vmm_start)):
            if is_alive(pid, started):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def connected(address: str):
    client = TtrpcClient(await connect_unix(address.removeprefix("unix://")))
    try:
        yield v2.TaskStub(client)
    finally:
        await client.close()


async def created(shim: Shim, name: str, address: str) -> int:
    async with connected(address) as task:
        answer = await task.create(v2.CreateTaskRequest(id=name, bundle=str(shim.bundle(name))))
        return answer.pid


def until(condition: object, seconds: float = 5) -> None:
    """Poll: another process has no event for us."""
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def only_state(shim: Shim):
    until(lambda: len(shim.states()) == 1)
    return read_state(str(shim.states()[0]))


def test_11_version_and_info(shim: Shim, tmp_path: Path) -> None:
    assert b"Version:" in shim(tmp_path, "-v", flags=[]).stdout
    for stdin in (b"", b"\n\x19runtimeoptions.v1.Options\x12\x00"):
        done = shim(tmp_path, "-info", flags=[], stdin=stdin)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.startswith(b"\n\x16io.containerd.parma.v2")


def test_12_start(shim: Shim) -> None:
    address = shim.start("a")
    assert (shim.bundle("a") / "address").read_text() == address
    assert address.startswith(f"unix://{shim.run}/")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(address.removeprefix("unix://"))
    state = only_state(shim)
    assert os.getsid(state.shim_pid) == state.shim_pid
    own = int(Path("/proc/self/oom_score_adj").read_text())
    assert int(Path(f"/proc/{state.shim_pid}/oom_score_adj").read_text()) == min(own + 1, 1000)
    fds = {int(x.name): str(x.readlink()) for x in Path(f"/proc/{state.shim_pid}/fd").iterdir()}
    assert fds[0] == fds[1] == "/dev/null"
    assert fds[2].endswith("shim.err")
    assert Path(f"/proc/{state.shim_pid}/cwd").readlink() == Path("/")
    assert Path(address.removeprefix("unix://")).stat().st_mode & 0o777 == 0o600


def test_13_one_group_one_process(shim: Shim) -> None:
    pod = document(
        "/pause", annotations={f"{CRI}container-type": "sandbox", f"{CRI}sandbox-id": "a"}
    )
    member = document(
        "x", annotations={f"{CRI}container-type": "container", f"{CRI}sandbox-id": "a"}
    )
    address = shim.start("a", pod)
    assert shim.start("b", member) == address
    assert only_state(shim).shim_pid


def test_13_a_container_without_its_pod(shim: Shim) -> None:
    spec = document("x", annotations={f"{CRI}container-type": "container", f"{CRI}sandbox-id": "a"})
    done = shim(shim.bundle("b", spec), "-id", "b", "start")
    assert done.returncode == 1
    assert b"is not running any more" in done.stderr
    assert list(shim.run.iterdir()) == []


def test_13_a_stale_socket_is_replaced(shim: Shim) -> None:
    address = shim.start("a")
    state = only_state(shim)
    os.kill(state.shim_pid, signal.SIGKILL)
    until(lambda: not is_alive(state.shim_pid, state.shim_start))
    assert shim.start("a") == address
    until(lambda: only_state(shim).shim_pid not in (0, state.shim_pid))


def test_13_two_at_once(shim: Shim) -> None:
    bundle = shim.bundle("a")
    words = [str(shim.program), "-namespace", "ns", "-address", "/c", "-id", "a", "start"]
    environment = {"PARMA_RUN": str(shim.run), "PATH": os.environ["PATH"]}
    running = [
        subprocess.Popen(
            words, cwd=bundle, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        for _ in range(6)
    ]
    answers = {process.communicate(timeout=20)[0] for process in running}
    assert len(answers) == 1
    assert {process.returncode for process in running} == {0}
    state = only_state(shim)
    pattern = f"-socket\0{answers.pop().decode().strip().removeprefix('unix://')}".encode()
    found = [
        path
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if pattern in _read(path) and _read(path).rstrip(b"\0").endswith(b"serve")
    ]
    assert [int(path.parent.name) for path in found] == [state.shim_pid]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("flags", "text", "match"),
    [
        (["-id", "a"], "{}", b"namespace"),
        (["-namespace", "ns"], "{}", b"-id"),
        (["-namespace", "ns", "-id", "../x"], "{}", b"-id"),
        (["-namespace", "ns", "-id", "a"], None, b"config.json"),
        (["-namespace", "ns", "-id", "a"], "{", b"not JSON"),
        (["-namespace", "ns", "-id", "a"], "[]", b"not an OCI document"),
        (["-nonsense", "x"], "{}", b"not defined"),
    ],
)
def test_14_what_start_refuses(
    shim: Shim, tmp_path: Path, flags: list[str], text: str | None, match: bytes
) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    done = shim(tmp_path, "start", flags=flags)
    assert done.returncode != 0
    assert match in done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_16_delete_of_what_never_was(shim: Shim) -> None:
    answer = shim.delete("never")
    assert answer.exit_status == 137
    assert abs(answer.exited_at.timestamp() - time.time()) < 60


async def test_16_delete_leaves_a_live_pod_alone(shim: Shim) -> None:
    address = await asyncio.to_thread(shim.start, "a")
    pid = await created(shim, "a", address)
    await asyncio.to_thread(shim.delete, "a")
    os.kill(pid, 0)
    async with connected(address) as task:
        assert (await task.state(v2.StateRequest(id="a"))).pid == pid


async def test_16_delete_after_the_shim_died(shim: Shim) -> None:
    address = await asyncio.to_thread(shim.start, "a")
    await created(shim, "a", address)
    state = only_state(shim)
    assert is_alive(state.vmm_pid, state.vmm_start)
    os.kill(state.shim_pid, signal.SIGKILL)
    started = time.monotonic()
    answers = await asyncio.gather(*(asyncio.to_thread(shim.delete, "a") for _ in range(10)))
    assert time.monotonic() - started < 5
    assert {answer.exit_status for answer in answers} == {137}
    assert not is_alive(state.vmm_pid, state.vmm_start)
    assert list(shim.run.iterdir()) == []
    await asyncio.to_thread(shim.delete, "a")


async def test_16_delete_never_kills_by_number_alone(shim: Shim) -> None:
    address = await asyncio.to_thread(shim.start, "a")
    pid = await created(shim, "a", address)
    path = shim.states()[0]
    document_ = json.loads(path.read_text())
    state = read_state(str(path))
    path.write_text(json.dumps(document_ | {"vmm_start": document_["vmm_start"] + 1}))
    os.kill(state.shim_pid, signal.SIGKILL)
    await asyncio.to_thread(shim.delete, "a")
    assert is_alive(pid, state.vmm_start)
    os.kill(pid, signal.SIGKILL)


async def test_29_the_last_container_ends_the_shim(shim: Shim) -> None:
    address = await asyncio.to_thread(shim.start, "a")
    await created(shim, "a", address)
    state = only_state(shim)
    async with connected(address) as task:
        await task.shutdown(v2.ShutdownRequest(id="a"))
        await task.kill(v2.KillRequest(id="a", signal=9))
        await task.wait(v2.WaitRequest(id="a"))
        await task.delete(v2.DeleteRequest(id="a"))
        asked = time.monotonic()
        await task.shutdown(v2.ShutdownRequest(id="a"))
    await asyncio.to_thread(until, lambda: not is_alive(state.shim_pid, state.shim_start), 3)
    assert time.monotonic() - asked < 3
    assert not is_alive(state.vmm_pid, state.vmm_start)
    assert list(shim.run.iterdir()) == []
    assert shim.delete("a").exit_status == 137


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_30_a_clean_end(shim: Shim, number: int) -> None:
    address = await asyncio.to_thread(shim.start, "a")
    await created(shim, "a", address)
    state = only_state(shim)
    os.kill(state.shim_pid, signal.SIGHUP)
    os.kill(state.shim_pid, signal.SIGPIPE)
    async with connected(address) as task:
        await task.state(v2.StateRequest(id="a"))
    os.kill(state.shim_pid, number)
    await asyncio.to_thread(until, lambda: not is_alive(state.shim_pid, state.shim_start))
    assert not is_alive(state.vmm_pid, state.vmm_start)
    assert list(shim.run.iterdir()) == []


async def test_31_the_log(shim: Shim) -> None:
    fifo = shim.bundle("a") / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        address = await asyncio.to_thread(shim.start, "a")
        await created(shim, "a", address)
        line = os.read(reader, 65536).decode().splitlines()[0]
    finally:
        os.close(reader)
    assert line.startswith('time="')
    assert " level=info msg=" in line
    assert line.endswith("id=a")
    async with connected(address) as task:  # nobody reads the log now
        await task.kill(v2.KillRequest(id="a", signal=9))
        await task.wait(v2.WaitRequest(id="a"))
