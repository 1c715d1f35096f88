"""The same shim under newer containerds: 1.7 (Debian 13) and 2.x (the suite after it)."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from parma_shim.demo import images
from parma_shim.demo.daemon import PrivateContainerd, Settings
from parma_shim.demo.group import pod_config
from tests.tools.newer_containerd import newer_containerd

from .conftest import ANNOTATION, Pod, Store, annotation, policy_text, programs
from .members import BOX
from .observe import ended, leavings, status_of, wait_as_before, wait_for

pytestmark = [pytest.mark.vm, pytest.mark.containerd, pytest.mark.timeout(400)]
VERSIONS = {"trixie": "1.7.", "forky": "2."}
HELLO = ("/bin/sh", "-c", "echo hello; exit 3")


@pytest.fixture(scope="module", params=VERSIONS)
def newer(request: pytest.FixtureRequest, cache: Path, store: Store) -> Iterator[PrivateContainerd]:
    tools = newer_containerd(cache, request.param)
    chosen = dataclasses.replace(
        programs(cache), containerd=tools / "containerd", ctr=tools / "ctr"
    )
    folder = Path(tempfile.mkdtemp(prefix="pv-"))
    with PrivateContainerd(Settings(folder, chosen, images.PAUSE)) as running:
        server = running.ctr("version").partition("Server:")[2]
        assert f"Version:  {VERSIONS[request.param]}" in server
        running.ctr("images", "import", str(store.archive))
        yield running
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def policy(store: Store) -> bytes:
    return policy_text(
        store.container("box", BOX.image, BOX.command, execs=[("/bin/sh",)]),
        store.container("hello", BOX.image, HELLO),
    )


def test_17_a_container_of_its_own(newer: PrivateContainerd, policy: bytes) -> None:
    before = leavings(newer)
    given = f"{ANNOTATION}={annotation(policy)}"
    words = ("--runtime", "io.containerd.parma.v2", "--annotation", given, images.BUSYBOX, "one")
    newer.ctr("run", "--detach", *words, *BOX.command)
    # An empty input hangs ctr itself now and then, with runc too: it may end before ctr knows whom to tell.
    program = [str(newer.settings.programs.ctr), "--address", str(newer.socket)]
    done = subprocess.run(
        [*program, "--namespace", "k8s.io", "tasks", "exec", "--exec-id", "e", "one", "/bin/sh"],
        input=b"echo $((6 * 7))\n",
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == b"42\n"
    newer.ctr("tasks", "kill", "--signal", "SIGKILL", "one")
    wait_for(lambda: "STOPPED" in newer.ctr("tasks", "ls"))
    newer.ctr("tasks", "delete", "--force", "one")
    newer.ctr("containers", "delete", "one")
    wait_as_before(newer, before)


def test_36_a_pod(
    newer: PrivateContainerd, policy: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = leavings(newer)
    folder = tmp_path_factory.mktemp("pod")
    (folder / "logs").mkdir()
    config = folder / "pod.json"
    config.write_text(pod_config("newer", folder / "logs", {ANNOTATION: annotation(policy)}))
    pod = Pod(
        newer, folder, newer.crictl("runp", "--runtime", "parma", str(config)).strip(), config
    )
    box = pod.run(BOX)
    assert pod.sh(box, "echo $((6 * 7))").strip() == "42"
    hello = pod.run(dataclasses.replace(BOX, name="hello", command=HELLO))
    assert ended(newer, hello)["exitCode"] == 3
    assert wait_for(lambda: newer.crictl("logs", hello)) == "hello\n"
    newer.stop()
    newer.start()
    assert status_of(newer, box)["state"] == "CONTAINER_RUNNING"
    assert pod.sh(box, "echo again").strip() == "again"
    pod.remove()
    wait_as_before(newer, before)
