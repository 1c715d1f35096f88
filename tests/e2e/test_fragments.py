"""A signed fragment for a pod that runs: `parma fragment load`, judged by the pod's policy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from parma_shim.demo.daemon import CommandFailedError, PrivateContainerd
from parma_tenant.generate import model, rego
from tests.fixtures.signed import ISSUER, envelope

from .conftest import Pod, Store
from .members import BOX

pytestmark = [pytest.mark.vm, pytest.mark.containerd, pytest.mark.timeout(300)]


def load(daemon: PrivateContainerd, sandbox: str, file: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("parma")
    words = [program, "fragment", "load", "--sandbox", sandbox, str(file), "--json"]
    environment = os.environ | {"PARMA_RUN": str(daemon.folder / "run")}
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)


def test_a_fragment_for_a_pod_that_runs(
    daemon: PrivateContainerd, start_pod: Callable[[bytes], Pod], store: Store, tmp_path: Path
) -> None:
    allowed = {"issuer": ISSUER, "feed": "side", "minimum_svn": 2, "includes": ["containers"]}
    pod = start_pod(rego.render(model.Policy((), fragments=(allowed,))).encode())
    box = store.container("box", BOX.image, BOX.command).value()
    text = (
        'package sidecar\nsvn := 3\nframework_version := "0.5.0"\n'
        f"containers := {json.dumps([box])}\n"
    ).encode()
    good, other, broken = (tmp_path / name for name in ("good", "other", "broken"))
    good.write_bytes(envelope(text, "side"))
    other.write_bytes(envelope(text, "elsewhere"))
    broken.write_bytes(good.read_bytes()[:-1])

    with pytest.raises(CommandFailedError, match="denied by policy"):
        pod.run(BOX)
    refused = load(daemon, pod.id, other)
    assert (refused.returncode, json.loads(refused.stdout)["loaded"]) == (1, False)
    assert "denied by policy" in refused.stderr
    assert load(daemon, pod.id, broken).returncode == 1
    with pytest.raises(CommandFailedError, match="denied by policy"):
        pod.run(BOX, metadata={"name": "box", "attempt": 1})

    done = load(daemon, pod.id[:12], good)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"loaded": True}
    pod.run(BOX, metadata={"name": "box", "attempt": 2})
    assert load(daemon, "0" * 64, good).returncode == 2
    pod.remove()
