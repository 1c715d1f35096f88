"""What the agent expects of a runtime: the scripted one and real crun pass the same tests."""

# ruff: noqa: ASYNC240 (a test may look at files while its loop waits)

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from parma_api.ids import ContainerId
from parma_api.policy.decision import Capabilities
from parma_api.status import ApiError, DeadlineExceededError, InvalidArgumentError
from parma_guest.linux.cgroup import Limits
from parma_guest.oci.build import (
    ContainerPlan,
    Namespaces,
    ProcessPlan,
    build_container,
    build_process,
)
from parma_guest.oci.parse import Mount
from parma_guest.oci.users import Identities, Identity
from parma_guest.process.reaper import Reaper
from parma_guest.process.runtime import Crun, Runtime
from parma_guest.process.spawn import Descriptors, Spawner
from tests.fixtures.agent import become_subreaper, short_directory
from tests.fixtures.crun import OwnNamespaces, busybox_root, make_crun, require_root
from tests.fixtures.runtime import FakeRuntime

ONE = ContainerId("1" * 64)
ROOT_USER = Identities(Identity(0, "root"), (Identity(0, "root"),), 0o022)
NO_CAPS = Capabilities((), (), (), (), ())
SHELL = {
    "sleep": ("sh", "-c", "exec sleep 600"),
    "exit": ("sh", "-c", "exit 7"),
    "echo": ("echo", "hello"),
    "cat": ("cat",),
    "missing": ("missing",),
}
SCRIPT = {**SHELL, "sleep": ("sleep",), "exit": ("exit", "7")}


@dataclass
class Bench:
    runtime: Runtime
    programs: dict[str, tuple[str, ...]]
    root: Path
    namespaces: Namespaces

    def process(self, name: str, **changed: Any) -> ProcessPlan:
        fields = {
            "env": ("PATH=/bin",),
            "cwd": "/",
            "identities": ROOT_USER,
            "capabilities": NO_CAPS,
            "no_new_privileges": True,
            **changed,
        }
        return ProcessPlan(args=self.programs[name], **fields)

    def document(self, name: str, **changed: Any) -> dict[str, Any]:
        return build_container(
            ContainerPlan(
                container=ONE,
                process=self.process(name, **changed),
                root=str(self.root),
                read_only=False,
                mounts=(
                    Mount("/proc", "proc", "proc", ()),
                    Mount("/dev", "tmpfs", "tmpfs", ()),
                    Mount("/dev/pts", "devpts", "devpts", ("newinstance", "ptmxmode=0666")),
                ),
                namespaces=self.namespaces,
                seccomp=None,
                limits=Limits(),
                privileged=False,
                shm="/dev/shm",
            )
        )


def soon(seconds: float = 20.0) -> float:
    return asyncio.get_running_loop().time() + seconds


@pytest.fixture(params=["script", "crun"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    require_root()
    become_subreaper()
    reaper = Reaper(orphans=False)
    spawner = Spawner(reaper)
    with short_directory() as folder:
        namespaces = OwnNamespaces(folder / "ns")
        try:
            if request.param == "crun":
                root = busybox_root(folder / "rootfs")
                made = Bench(make_crun(spawner, folder), SHELL, root, namespaces.namespaces)
            else:
                made = Bench(FakeRuntime(spawner, folder), SCRIPT, folder, namespaces.namespaces)
            yield made
            await made.runtime.delete(ONE, soon())
            assert not (folder / "c" / ONE).exists()
        finally:
            namespaces.close()
            spawner.close()
            reaper.close()


@pytest.fixture
def null() -> Any:
    fd = os.open(os.devnull, os.O_RDWR)
    yield Descriptors(fd, fd, fd)
    os.close(fd)


async def test_the_first_process_waits_for_start(bench: Bench, null: Descriptors) -> None:
    made = await bench.runtime.create(ONE, bench.document("exit"), null, soon())
    assert not made.ended.done()
    assert Path(f"/proc/{made.pid}").exists()
    await bench.runtime.start(ONE, soon())
    assert (await made.ended).status == 7


async def test_a_second_start_is_refused(bench: Bench, null: Descriptors) -> None:
    await bench.runtime.create(ONE, bench.document("sleep"), null, soon())
    await bench.runtime.start(ONE, soon())
    with pytest.raises(ApiError):
        await bench.runtime.start(ONE, soon())


async def test_a_missing_program_fails_in_create_and_leaves_nothing(
    bench: Bench, null: Descriptors
) -> None:
    with pytest.raises(InvalidArgumentError, match="127"):
        await bench.runtime.create(ONE, bench.document("missing"), null, soon())
    made = await bench.runtime.create(ONE, bench.document("exit"), null, soon())
    await bench.runtime.start(ONE, soon())
    assert (await made.ended).status == 7


async def test_standard_streams_are_the_ones_given(bench: Bench, null: Descriptors) -> None:
    ours, theirs = os.pipe()
    streams = Descriptors(null.stdin, theirs, null.stderr)
    made = await bench.runtime.create(ONE, bench.document("echo"), streams, soon())
    os.close(theirs)
    await bench.runtime.start(ONE, soon())
    await made.ended
    assert os.read(ours, 100) == b"hello\n"
    assert os.read(ours, 100) == b""
    os.close(ours)


async def test_a_further_process_runs_at_once(bench: Bench, null: Descriptors) -> None:
    await running(bench, null)
    process = build_process(bench.process("exit"), None)
    further = await bench.runtime.execute(ONE, process, null, soon())
    assert (await further.ended).status == 7


async def test_a_missing_program_fails_in_exec(bench: Bench, null: Descriptors) -> None:
    await running(bench, null)
    process = build_process(bench.process("missing"), None)
    with pytest.raises(InvalidArgumentError, match="127"):
        await bench.runtime.execute(ONE, process, null, soon())


async def test_kill_all_ends_every_process(bench: Bench, null: Descriptors) -> None:
    made = await running(bench, null)
    process = build_process(bench.process("sleep"), None)
    further = await bench.runtime.execute(ONE, process, null, soon())
    assert {made.pid, further.pid} <= set(bench.runtime.pids(ONE))
    bench.runtime.kill_all(ONE)
    assert (await made.ended).status == 128 + signal.SIGKILL
    assert (await further.ended).status == 128 + signal.SIGKILL


async def test_delete_kills_and_can_be_repeated(bench: Bench, null: Descriptors) -> None:
    made = await running(bench, null)
    await bench.runtime.delete(ONE, soon())
    assert (await made.ended).status == 128 + signal.SIGKILL
    await bench.runtime.delete(ONE, soon())


async def test_delete_of_what_never_was(bench: Bench) -> None:
    await bench.runtime.delete(ONE, soon())


async def running(bench: Bench, null: Descriptors) -> Any:
    made = await bench.runtime.create(ONE, bench.document("sleep"), null, soon())
    await bench.runtime.start(ONE, soon())
    return made


# Of crun alone


@pytest.fixture
def crun(bench: Bench) -> Crun:
    return bench.runtime  # type: ignore[return-value]


only_crun = pytest.mark.parametrize("bench", ["crun"], indirect=True)


@only_crun
async def test_a_file_that_is_no_program(bench: Bench, null: Descriptors) -> None:
    await running(bench, null)
    process = build_process(bench.process("sleep"), None) | {"args": ["/bin/plain"]}
    with pytest.raises(ApiError, match="126"):
        await bench.runtime.execute(ONE, process, null, soon())


@only_crun
async def test_no_socket_to_the_channel(bench: Bench, null: Descriptors) -> None:
    """The filter is inherited: /proc says so of the container's own process."""
    made = await running(bench, null)
    status = Path(f"/proc/{made.pid}/status").read_text()
    assert "Seccomp:\t2" in status
    assert "Seccomp_filters:\t1" in status


@only_crun
async def test_a_terminal_is_handed_over(bench: Bench, null: Descriptors) -> None:
    document = bench.document("echo", terminal=True, size=(101, 33))
    document["process"]["args"] = ["stty", "size"]
    made = await bench.runtime.create(ONE, document, null, soon())
    assert made.terminal is not None
    await bench.runtime.start(ONE, soon())
    await made.ended
    assert os.read(made.terminal, 100) == b"33 101\r\n"
    os.close(made.terminal)


@only_crun
async def test_a_runtime_that_hangs_is_ended_at_the_deadline(
    bench: Bench, null: Descriptors, tmp_path: Path
) -> None:
    stuck = tmp_path / "stuck"
    stuck.write_text("#!/bin/sh\nexec sleep 600\n")
    stuck.chmod(0o755)
    runtime = bench.runtime
    assert isinstance(runtime, Crun)
    good, runtime._prefix = runtime._prefix, [str(stuck)]
    with pytest.raises(DeadlineExceededError):
        await runtime.start(ONE, soon(0.2))
    runtime._prefix = good


@only_crun
async def test_user_umask_and_capabilities_are_in_force(bench: Bench, null: Descriptors) -> None:
    who = Identities(Identity(1000, "app"), (Identity(1001, "apps"), Identity(44, "")), 0o077)
    caps = Capabilities(("CAP_KILL",), ("CAP_KILL",), ("CAP_KILL",), ("CAP_KILL",), ("CAP_KILL",))
    document = bench.document("sleep", identities=who, capabilities=caps)
    made = await bench.runtime.create(ONE, document, null, soon())
    await bench.runtime.start(ONE, soon())
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{made.pid}/status").read_text().splitlines()
    )
    assert status["Uid"].split() == ["1000"] * 4
    assert status["Gid"].split() == ["1001"] * 4
    assert status["Groups"].split() == ["44"]
    assert status["Umask"] == "0077"
    assert {
        int(status[name], 16) for name in ("CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb")
    } == {1 << 5}
    assert status["NoNewPrivs"] == "1"
