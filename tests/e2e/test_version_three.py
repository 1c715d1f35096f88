"""A pod where `start` answers version 3 (containerd 2.x): its containers come to the pod's socket without one.

Parma's own `start` prints the plain address, which every containerd takes for version 2. A wrapper of this test's
answers in its place, as a future containerd may ask for, and writes down how it was called.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from parma_shim.demo import images
from parma_shim.demo.daemon import PrivateContainerd, Settings
from parma_shim.demo.group import pod_config
from tests.tools.newer_containerd import newer_containerd

from .conftest import ANNOTATION, Pod, Store, annotation, policy_text, programs
from .members import BOX, SHELL
from .observe import ended, leavings, status_of, wait_as_before, wait_for

pytestmark = [pytest.mark.vm, pytest.mark.containerd, pytest.mark.timeout(400)]
SHIM = "containerd-shim-parma-v2"
HELLO = ("/bin/sh", "-c", "echo hello; exit 3")
_WRAPPER = """#!/bin/sh
for word; do
  case "$word" in start | delete) printf '%s %s\\n' "$word" "${{PWD##*/}}" >> {calls} ;; esac
done
case " $* " in
*" start "*) address=$({shim} "$@") && printf '{{"version":3,"address":"%s","protocol":"ttrpc"}}' "$address" ;;
*) exec {shim} "$@" ;;
esac
"""


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the wrapper writes: a verb and a bundle's id in each line."""
    return tmp_path_factory.mktemp("calls") / "calls"


@pytest.fixture(scope="module")
def newest(
    cache: Path, store: Store, calls: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrivateContainerd]:
    tools = newer_containerd(cache, "forky")
    usual = programs(cache)
    wrapped = tmp_path_factory.mktemp("wrapper")
    wrapper = wrapped / SHIM
    wrapper.write_text(_WRAPPER.format(calls=calls, shim=usual.shim_folder / SHIM))
    wrapper.chmod(0o755)
    chosen = dataclasses.replace(
        usual, containerd=tools / "containerd", ctr=tools / "ctr", shim_folder=wrapped
    )
    folder = Path(tempfile.mkdtemp(prefix="p3-"))
    with PrivateContainerd(Settings(folder, chosen, images.PAUSE)) as running:
        running.ctr("images", "import", str(store.archive))
        yield running
    shutil.rmtree(folder, ignore_errors=True)


def test_39_a_pod_whose_containers_have_no_start(
    newest: PrivateContainerd, store: Store, calls: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    policy = policy_text(
        store.container("box", BOX.image, BOX.command, execs=[SHELL]),
        store.container("hello", BOX.image, HELLO),
    )
    before = leavings(newest)
    folder = tmp_path_factory.mktemp("pod")
    (folder / "logs").mkdir()
    config = folder / "pod.json"
    config.write_text(pod_config("three", folder / "logs", {ANNOTATION: annotation(policy)}))
    pod_id = newest.crictl("runp", "--runtime", "parma", str(config)).strip()
    pod = Pod(newest, folder, pod_id, config)
    bundle = newest.folder / "state/io.containerd.runtime.v2.task/k8s.io" / pod_id
    assert json.loads((bundle / "bootstrap.json").read_text())["version"] == 3
    box = pod.run(BOX)
    assert pod.sh(box, "echo $((6 * 7))").strip() == "42"
    hello = pod.run(dataclasses.replace(BOX, name="hello", command=HELLO))
    assert ended(newest, hello)["exitCode"] == 3
    assert wait_for(lambda: newest.crictl("logs", hello)) == "hello\n"
    newest.crictl("rm", hello)
    assert pod.sh(box, "echo still here").strip() == "still here"

    newest.stop()
    newest.start()
    assert status_of(newest, box)["state"] == "CONTAINER_RUNNING"
    assert pod.sh(box, "echo again").strip() == "again"

    pod.remove()
    wait_as_before(newest, before)
    # A containerd that was restarted takes the box for a shim of its own, and calls `delete` for it as well.
    seen = calls.read_text().splitlines()
    assert seen == [f"start {pod_id}", f"delete {box}", f"delete {pod_id}"]
