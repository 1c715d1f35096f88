"""Machines in the host's QEMU around a kernel of some hundred bytes: privileges, disks, console, ends."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from parma_api.status import NotFoundError, ResourceExhaustedError
from parma_shim.qmp.errors import QmpCommandError
from parma_shim.vmm.config import MachineConfig, Privileges
from parma_shim.vmm.disks import MAX_DISKS
from parma_shim.vmm.errors import BootFailureError, VmmError, VmmGoneError, VmmSetupError
from parma_shim.vmm.machine import DiskAccess, Machine, ScsiAddress, start_machine
from tests.tools.machines import UID, tiny_machine
from tests.tools.tiny_kernel import RESET

pytestmark = pytest.mark.vm


@asynccontextmanager
async def running(config: MachineConfig) -> AsyncIterator[Machine]:
    machine = await start_machine(config)
    try:
        yield machine
    finally:
        await machine.stop()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "layer"
    path.write_bytes(bytes(4096))
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    def descriptors() -> set[str]:
        return {entry.name for entry in Path("/proc/self/fd").iterdir()}

    before = descriptors()
    yield
    assert descriptors() <= before | {str(max(map(int, before)) + 1)}  # the listing's own


async def until_console(machine: Machine, text: str) -> None:
    async with asyncio.timeout(60):
        while text not in machine.console_tail():  # noqa: ASYNC110 -- the ring has no event to wait for
            await asyncio.sleep(0.01)


async def test_it_boots_and_its_console_is_kept(tmp_path: Path) -> None:
    async with running(tiny_machine(tmp_path, "hello\x1b[31m from the guest\n")) as machine:
        await until_console(machine, "hello [31m from the guest")
        assert await machine.query_status() == "running"
        ended = await machine.stop()
        assert (ended.status, await machine.wait()) == (0, ended)
        assert "host-qmp-quit" in ended.cause


@pytest.mark.root
async def test_it_has_no_privileges(tmp_path: Path) -> None:
    """K25, as /proc shows it."""
    async with running(tiny_machine(tmp_path)) as machine:
        assert await machine.query_status() == "running"
        proc = Path(f"/proc/{machine.pid}")
        status = dict(
            line.split(":\t", 1)
            for line in (proc / "status").read_text().splitlines()
            if ":\t" in line
        )
        assert status["Uid"].split() == status["Gid"].split() == [str(UID)] * 4
        assert status["Groups"].strip() == ""
        assert {status[f"Cap{which}"] for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {
            "0" * 16
        }
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert (proc / "environ").read_bytes() == b""
        assert "Max core file size        0                    0" in (proc / "limits").read_text()
        assert os.getsid(machine.pid) == machine.pid
        assert not list((proc / "task" / str(machine.pid) / "children").read_text().split())
        opened = {str(fd.readlink()) for fd in (proc / "fd").iterdir()}
        files = {name for name in opened if name.startswith("/") and not name.startswith("/dev/")}
        assert files == {str(tmp_path / name) for name in ("vmlinux", "initrd.img", "root.img")}


async def test_disks_in_parallel_and_out_again(tmp_path: Path, disk: int) -> None:
    async with running(tiny_machine(tmp_path)) as machine:
        many = await asyncio.gather(
            *(machine.attach_disk(disk, access=DiskAccess.READ_ONLY) for _ in range(30))
        )
        assert sorted(many) == [ScsiAddress(0, lun) for lun in range(30)]
        await asyncio.gather(*(machine.detach_disk(address) for address in many[:10]))
        with pytest.raises(NotFoundError):
            await machine.detach_disk(many[0])
        with pytest.raises(NotFoundError):
            await machine.detach_disk(ScsiAddress(1, 20))
        scratch = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR)
        os.truncate(scratch, 1 << 20)
        try:
            address = await machine.attach_disk(scratch, access=DiskAccess.READ_WRITE)
            assert address == ScsiAddress(0, 30)
            await machine.detach_disk(address)
        finally:
            os.close(scratch)


async def test_a_full_controller(tmp_path: Path, disk: int) -> None:
    async with running(tiny_machine(tmp_path)) as machine:
        await asyncio.gather(
            *(machine.attach_disk(disk, access=DiskAccess.READ_ONLY) for _ in range(MAX_DISKS))
        )
        with pytest.raises(ResourceExhaustedError, match="too many layers"):
            await machine.attach_disk(disk, access=DiskAccess.READ_ONLY)
        await machine.detach_disk(ScsiAddress(0, 77))
        assert await machine.attach_disk(disk, access=DiskAccess.READ_ONLY) == ScsiAddress(0, 77)


async def test_a_refused_disk_leaves_nothing(tmp_path: Path, disk: int) -> None:
    """Read-only descriptors cannot be scratch; the unit and the descriptor set are free again."""
    async with running(tiny_machine(tmp_path)) as machine:
        with pytest.raises(QmpCommandError, match="blockdev-add"):
            await machine.attach_disk(disk, access=DiskAccess.READ_WRITE)
        every = (machine.attach_disk(disk, access=DiskAccess.READ_ONLY) for _ in range(MAX_DISKS))
        assert len(set(await asyncio.gather(*every))) == MAX_DISKS


async def test_a_guest_that_resets_is_the_end(tmp_path: Path) -> None:
    async with running(tiny_machine(tmp_path, "last words\n", RESET)) as machine:
        ended = await asyncio.wait_for(machine.wait(), 60)
        assert ended.status == 0
        assert "guest-reset" in ended.cause
        assert "last words" in ended.cause
        assert "last words" in machine.console_tail()


async def test_killed_from_outside(tmp_path: Path, disk: int) -> None:
    async with running(tiny_machine(tmp_path)) as machine:
        os.kill(machine.pid, signal.SIGKILL)
        ended = await asyncio.wait_for(machine.wait(), 10)
        assert ended.status == 137
        assert "killed by SIGKILL" in ended.cause
        with pytest.raises(VmmGoneError, match="SIGKILL"):
            await machine.attach_disk(disk, access=DiskAccess.READ_ONLY)


async def test_an_end_before_the_first_answer_is_a_boot_failure(tmp_path: Path) -> None:
    async with running(tiny_machine(tmp_path, "panic\n", RESET)) as machine:
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with pytest.raises(BootFailureError, match="guest-reset") as caught:
            await machine.until_answer(never, 60)
        assert "panic" in caught.value.cause


async def test_silence_is_a_boot_failure(tmp_path: Path) -> None:
    async with running(tiny_machine(tmp_path, "here\n")) as machine:
        await until_console(machine, "here")
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with pytest.raises(BootFailureError, match=r"no answer in 0.01 s.*here"):
            await machine.until_answer(never, 0.01)


async def test_an_answer_is_handed_through(tmp_path: Path) -> None:
    async with running(tiny_machine(tmp_path)) as machine:
        assert await machine.until_answer(asyncio.sleep(0, "pong"), 60) == "pong"


async def test_a_qemu_that_refuses_says_why(tmp_path: Path) -> None:
    config = tiny_machine(tmp_path)
    config.image.vmlinux.path.write_bytes(b"no kernel")
    async with running(config) as machine:
        ended = await asyncio.wait_for(machine.wait(), 30)
        assert ended.status == 1
        assert "qemu" in ended.cause


async def test_what_is_missing_is_told_before_anything_starts(tmp_path: Path) -> None:
    config = tiny_machine(tmp_path)
    config.image.root.path.unlink()
    with pytest.raises(VmmSetupError, match=r"root.img cannot be read"):
        await start_machine(config)
    config = tiny_machine(tmp_path)
    config.image.initrd.path.chmod(0o600)
    with pytest.raises(VmmSetupError, match=r"chmod o\+r"):
        await start_machine(dataclasses.replace(config, privileges=Privileges(UID, UID)))
    with pytest.raises(VmmSetupError, match="cgroup"):
        await start_machine(dataclasses.replace(tiny_machine(tmp_path), cgroups=(tmp_path / "no",)))


async def test_no_qemu(tmp_path: Path) -> None:
    with pytest.raises(VmmSetupError, match="apt install"):
        await start_machine(dataclasses.replace(tiny_machine(tmp_path), qemu=tmp_path / "qemu"))


async def test_the_main_thread_only(tmp_path: Path) -> None:
    def start() -> None:
        asyncio.run(start_machine(tiny_machine(tmp_path)))

    with pytest.raises(VmmError, match="main thread"):
        await asyncio.to_thread(start)


def memory_cgroup(name: str) -> Path | None:
    """A new child of this process's memory cgroup, of whichever version; None if this process may make none."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(",") or number == "0":
            base = Path("/sys/fs/cgroup") / (controllers or "")
            folder = base / path.lstrip("/") / name
            if (base / "cgroup.procs").exists() and (folder.parent / "cgroup.procs").exists():
                folder.mkdir()
                return folder
    return None


@pytest.mark.root
async def test_in_the_pods_cgroup(tmp_path: Path) -> None:
    folder = memory_cgroup(f"parma-test-{os.getpid()}")
    assert folder is not None
    try:
        async with running(
            dataclasses.replace(tiny_machine(tmp_path), cgroups=(folder,))
        ) as machine:
            assert (folder / "cgroup.procs").read_text().split() == [str(machine.pid)]
    finally:
        folder.rmdir()


CHILD = """
import asyncio, sys
from pathlib import Path
from tests.tools.machines import tiny_machine
from parma_shim.vmm.machine import start_machine

async def main():
    machine = await start_machine(tiny_machine(Path(sys.argv[1])))
    await machine.query_status()
    print(machine.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_it_dies_with_its_shim(tmp_path: Path, repository: Path) -> None:
    paths = [str(repository / part) for part in ("api", "shim", ".")]
    child = subprocess.Popen(  # noqa: ASYNC220 -- it is killed as a shim is
        [sys.executable, "-c", CHILD, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ":".join(paths)},
    )
    with child:
        assert child.stdout is not None
        machine = os.pidfd_open(int(child.stdout.readline()))
        child.kill()
    ended = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_reader(machine, ended.set_result, None)
    await asyncio.wait_for(ended, 10)
    asyncio.get_running_loop().remove_reader(machine)
    os.close(machine)
