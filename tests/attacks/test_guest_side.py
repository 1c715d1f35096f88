"""What holds inside the guest and in the tenant's tool, where no client of the host comes: against the code itself."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import signal
import tarfile
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner

from parma_api.gen.parma.agent.v1 import (
    ShutdownContainerRequest,
    StartContainerRequest,
    UnmountOverlayRequest,
    WaitProcessRequest,
)
from parma_api.policy.decision import PointRequest, PolicyDenied
from parma_api.policy.opa import OpaEngine
from parma_api.policy.points import Point
from parma_api.status import ApiError, Code
from parma_api.volumes import root_path
from parma_guest.linux.beneath import Beneath
from parma_guest.policy.methods import GATED, UNGATED, check_complete
from parma_tenant.cli.policy import policy as policy_command
from tests.fixtures.group import Driver, container_id, oci_document

ONE = container_id(1)
LOOPS = 100


def test_K1_a_link_put_in_place_between_two_calls(tmp_path: Path) -> None:
    """The host writes, a container exchanges a directory for a link, the host writes again."""
    outside, root = tmp_path / "outside", tmp_path / "pod"
    outside.mkdir()
    (root / "sandboxMounts" / "v").mkdir(parents=True)
    with Beneath(str(root)) as tree:
        tree.write("sandboxMounts/v/file", b"first", 0o644, (os.getuid(), os.getgid()))
        (root / "sandboxMounts" / "v" / "file").unlink()
        (root / "sandboxMounts" / "v").rmdir()
        (root / "sandboxMounts" / "v").symlink_to(outside)
        with pytest.raises(ApiError):
            tree.write("sandboxMounts/v/file", b"second", 0o644, (os.getuid(), os.getgid()))
    assert list(outside.iterdir()) == []


def test_K10_no_call_reads_files_out() -> None:
    """All calls there are, by name; one that copies a file out of the guest would be a new name here."""
    assert sorted([*GATED, *UNGATED]) == sorted(
        """
        CreateContainer DumpStacks ExecExternal ExecProcess ForwardPort Health ListProcesses LoadFragment MountLayer
        MountOverlay MountScratch NextEvent PauseGroup PutFiles ResizeTerminal ResumeGroup SetPolicy SetupSandbox
        ShutdownContainer SignalProcess StartContainer Stats UnmountLayer UnmountOverlay UnmountScratch
        UpdateResources WaitProcess
        """.split()
    )


def test_K11_each_point_has_a_rule_body(repository: Path) -> None:
    """Not only a default: a rule of the framework's that can say yes under conditions."""
    text = "\n".join(
        path.read_text()
        for path in (repository / "policy_bundles" / "framework").rglob("*.rego")
        if not path.stem.endswith("_test")
    )
    refused_always = {Point.MOUNT_BLOCKDEV, Point.UNMOUNT_BLOCKDEV}
    without = [point for point in Point if not re.search(rf"^{point} := .+", text, re.MULTILINE)]
    assert set(without) <= refused_always
    assert not re.search(r"^default \w+ := true", text, re.MULTILINE)


def test_K11_a_call_without_a_point_does_not_start() -> None:
    with pytest.raises(ValueError, match="neither gated nor ungated"):
        check_complete([*GATED, *UNGATED, "CopyFile"])


def test_K12_capabilities_and_namespaces_come_from_no_path_of_a_container(
    repository: Path,
) -> None:
    """Two places name namespaces by /proc: the thread's own, and the agent's own child, which nobody reaps."""
    places = set()
    for path in (repository / "guest" / "parma_guest").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert "cap_last_cap" not in node.value, path
                places |= {path.name} if "/ns/" in node.value else set()
    assert places == {"netns.py", "pod.py"}


async def test_K12_an_exec_gets_the_judged_capabilities_and_none_after_the_end(
    ready: Driver,
) -> None:
    await ready.run()
    await ready.execute(ONE)
    given = ready.rig.runtime.documents[-1]["capabilities"]
    assert sorted(given["bounding"]) == sorted(
        oci_document(ONE)["process"]["capabilities"]["bounding"]
    )
    assert given["inheritable"] == given["ambient"] == []
    ready.rig.runtime.kill_all(ONE)
    await ready.rig.client.wait_process(WaitProcessRequest(container_id=ONE))
    count = len(ready.rig.runtime.documents)
    with pytest.raises(ApiError):
        await ready.execute(ONE, exec_id="late")
    assert len(ready.rig.runtime.documents) == count


def hostile_archive(path: Path, member: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as tar:
        tar.addfile(member)
    return path


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


@pytest.mark.parametrize(
    "bad",
    [
        member("../../evil"),
        member("/evil"),
        member("index.json", tarfile.SYMTYPE, "/etc/passwd"),
        member("index.json", tarfile.LNKTYPE, "index.json"),
        member("index.json", size=1 << 40),
    ],
    ids=["upwards", "absolute", "link", "loop", "terabyte"],
)
def test_K15_an_archive_that_leads_outside(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    archive = hostile_archive(inside / "image.tar", bad)
    group = inside / "group.json"
    group.write_text(json.dumps({"containers": [{"name": "c", "image": "example.org/c:1"}]}))
    before = sorted(tmp_path.rglob("*"))
    arguments = ["generate", str(group), "--archive", str(archive), "--output", str(inside / "p")]
    result = CliRunner().invoke(policy_command, arguments)
    assert result.exit_code != 0
    assert isinstance(result.exception, ApiError | SystemExit), result.exception
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
async def test_K17_a_container_that_fails_again_and_again(ready: Driver) -> None:
    """After a hundred lives nothing of them is left: descriptors, processes, tables, mounts."""
    client = ready.rig.client

    async def life(number: int) -> None:
        container = container_id(number)
        await ready.mount_overlay(container)
        await ready.create(container)
        await client.start_container(StartContainerRequest(container_id=container))
        ready.rig.runtime.kill_all(container)
        await client.wait_process(WaitProcessRequest(container_id=container))
        await client.shutdown_container(ShutdownContainerRequest(container_id=container))
        request = UnmountOverlayRequest(container_id=container, target=root_path(container))
        await client.unmount_overlay(request)

    def left() -> tuple[int, int, object, object]:
        return (
            sum(1 for _ in Path("/proc/self/fd").iterdir()),
            len(asyncio.all_tasks()),
            ready.rig.agent.group.processes.containers(),
            ready.rig.storage.snapshot(),
        )

    await life(1)
    before = left()
    for number in range(2, LOOPS + 2):
        await life(number)
    assert left() == before
    assert ready.rig.gate.metadata().mapping("matches") == {}


def engine_of(ready: Driver) -> OpaEngine:
    engine = ready.rig.gate._engine
    assert isinstance(engine, OpaEngine)
    return engine


async def put_generation(ready: Driver, document: object) -> None:
    """An older state in the engine's store, as somebody who reached its socket would put it there."""
    connector = aiohttp.UnixConnector(str(engine_of(ready).sidecar.socket))
    operation = [{"op": "add", "path": "/gate_state", "value": document}]
    async with aiohttp.ClientSession(connector=connector) as session:
        headers = {"Content-Type": "application/json-patch+json"}
        async with session.patch("http://opa/v1/data", json=operation, headers=headers) as answer:
            assert answer.status == 204, await answer.text()


@pytest.mark.parametrize("document", [{"generation": 0}, {}, {"generation": 1 << 40}])
async def test_K22_an_older_state_of_the_engine(ready: Driver, document: object) -> None:
    await ready.run()
    await ready.execute(ONE, exec_id="e0")  # the engine has the agent's state now
    await put_generation(ready, document)
    generation = ready.rig.gate.generation
    with pytest.raises(ApiError) as caught:
        await ready.execute(ONE)
    assert caught.value.code is Code.PERMISSION_DENIED
    assert ready.rig.gate.generation == generation
    await ready.execute(ONE, exec_id="e2")  # reloaded from the agent's own state


async def test_K22_the_engine_is_killed_before_the_commit(ready: Driver) -> None:
    await ready.run()
    pid = engine_of(ready).sidecar.pid
    assert pid is not None
    question = PointRequest(Point.SHUTDOWN_CONTAINER, {"containerID": ONE})
    loop = asyncio.get_running_loop()
    async with ready.rig.gate.transaction(ONE, [question], loop.time() + 20):
        os.kill(pid, signal.SIGKILL)
    assert ONE not in ready.rig.gate.metadata().mapping("matches")
    assert ONE in ready.rig.gate.metadata().mapping("started")
    for exec_id in ("e1", "e2"):  # the death may be noticed by the first of them
        with pytest.raises((ApiError, PolicyDenied)):
            await ready.execute(ONE, exec_id=exec_id)
    assert engine_of(ready).sidecar.pid != pid
